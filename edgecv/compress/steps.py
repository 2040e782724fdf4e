"""The compression steps that a variant may name, and what each asks of the format and the data."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from edgecv.artifact import Format
from edgecv.errors import ConfigError
from edgecv.target import Precision

__all__ = ["CALIBRATED", "STEPS", "Known", "Precision", "check_calibration", "lacking", "precision_of"]

# Those whose ranges of activations come from calibration images.
CALIBRATED: tuple[Precision, ...] = ("int8", "int16x8")

FEWEST_IMAGES = 100
ENOUGH_IMAGES = 300


@dataclass(frozen=True)
class Known:
    """A step that a variant may name. `precision`: what the file is exported in, None where it gives a Keras model."""

    summary: str
    precision: Precision | None


STEPS: dict[str, Known] = {
    "slim": Known("channels removed, and the network rebuilt without them", None),
    "distill": Known("trained on the answers of the float model", None),
    "sparse": Known("small weights set to zero, the others trained on", None),
    "cluster": Known("a few values shared by all weights of a kernel", None),
    "equalize": Known("channels' ranges made alike across layers, the function unchanged", None),
    "float16": Known("weights in float16, activations in float", "float16"),
    "int8": Known("weights per channel and activations in int8, static ranges from calibration images", "int8"),
    "qat": Known("int8 with weights and ranges that were trained under its rounding", "int8"),
    "int16x8": Known("weights in int8, activations in int16, static ranges from calibration images", "int16x8"),
    "int8-dynamic": Known("weights in int8, the ranges of activations found in each inference", "int8-dynamic"),
    "int8-weights": Known("weights in int8, computed in float: a small file, no faster", "int8-weights"),
    "repair": Known("an int8 file that breaks the limit is mended, the cheapest remedy first", None),
}

REPAIR = "repair"
# What repair mends.
REPAIRED = ("int8",)
# (earlier, later): what the later step would undo, and why.
UNDONE: dict[tuple[str, str], str] = {
    ("sparse", "slim"): "it rebuilds the network, and the pattern of zeros is lost",
    ("cluster", "slim"): "it rebuilds the network, and the shared values are lost",
    ("cluster", "sparse"): "it trains all weights, and the shared values are lost",
    ("cluster", "equalize"): "it scales each channel apart, and the shared values are lost",
}

# (format, precision) that can't be had, and why. Every other pair of tflite or openvino and a precision can.
LACKING: dict[tuple[Format, Precision], str] = {
    ("openvino", "int8-dynamic"): (
        "OpenVINO's dynamic int8 is for fully connected layers with compressed weights; its CPU kernels run a "
        "convolution in int8 only with static ranges"
    ),
    ("openvino", "int16x8"): "OpenVINO's CPU has no kernels for int16 activations; its 16-bit formats are float",
}


def precision_of(steps: tuple[str, ...]) -> Precision:
    """Give the precision that the file of a variant with these steps is exported in.

    Raises:
        ConfigError: an unknown step, one named twice, two that set a precision, or an order that can't be: a precision
            before other steps, repair anywhere but last and after int8, or a step that undoes an earlier one.

    >>> precision_of(("slim", "int8", "repair"))
    'int8'
    """
    for step in steps:
        _check_known(step, steps)
    _check_once(steps)
    _check_repair(steps)
    _check_order(steps)
    set_by = [step for step in steps if STEPS[step].precision]
    return (STEPS[set_by[0]].precision if set_by else None) or "float32"


def _check_known(step: str, steps: tuple[str, ...]) -> None:
    if step not in STEPS:
        near = difflib.get_close_matches(step, STEPS, n=1)
        raise ConfigError(
            f"unknown compression step {step}",
            got=_listed(steps),
            expected="steps among " + ", ".join(STEPS),
            fix=f"did you mean {near[0]}?" if near else f"remove {step}",
        )


def _check_once(steps: tuple[str, ...]) -> None:
    if twice := [step for step in dict.fromkeys(steps) if steps.count(step) > 1]:
        raise ConfigError(
            f"{twice[0]} stands twice in a variant", got=_listed(steps), expected="each step once", fix="remove one"
        )
    set_by = [step for step in steps if STEPS[step].precision]
    if len(set_by) > 1:
        raise ConfigError(
            f"{' and '.join(set_by)} both set the precision",
            got=_listed(steps),
            expected="one of them",
            fix="make two variants of it",
        )


def _check_repair(steps: tuple[str, ...]) -> None:
    if REPAIR in steps and (len(steps) < 2 or steps[-1] != REPAIR or steps[-2] not in REPAIRED):
        others = tuple(step for step in steps if step != REPAIR)
        if others and others[-1] in REPAIRED:
            fix = f"write {_listed((*others, REPAIR))}"
        else:
            fix = f"remove {REPAIR}" if _sets_precision(others) else f"write {_listed((*others, 'int8', REPAIR))}"
        raise ConfigError(
            f"{REPAIR} is not in its place",
            got=_listed(steps),
            expected="at the end, directly after int8 (quantized training is one of its remedies)",
            fix=fix,
        )


def _check_order(steps: tuple[str, ...]) -> None:
    body = [step for step in steps if step != REPAIR]
    for index, step in enumerate(body):
        if STEPS[step].precision and index < len(body) - 1:
            raise ConfigError(
                f"{step} is not the last step",
                got=_listed(steps),
                expected="the step that sets the precision at the end",
                fix=f"move {step} to the end",
            )
        for earlier in body[:index]:
            if why := UNDONE.get((earlier, step)):
                raise ConfigError(
                    f"{step} after {earlier}: {why}",
                    got=_listed(steps),
                    expected=f"{step} before {earlier}",
                    fix=f"move {step} in front of {earlier}",
                )


def _sets_precision(steps: tuple[str, ...]) -> bool:
    return any(STEPS[step].precision for step in steps)


def lacking(target_format: Format, precision: Precision) -> str | None:
    """Say why a format has no such precision, or None where it has.

    >>> lacking("tflite", "int8-dynamic") is None
    True
    """
    return LACKING.get((target_format, precision))


def check_calibration(count: int, *, allow_few: bool) -> str | None:
    """Give a warning where `count` calibration images are fewer than 300, else None.

    Raises:
        ConfigError: none at all, or fewer than 100 and not `allow_few`.

    >>> check_calibration(300, allow_few=False) is None
    True
    """
    if count < 1 or (count < FEWEST_IMAGES and not allow_few):
        raise ConfigError(
            "too few calibration images for int8",
            got=f"{count}",
            expected=f"{FEWEST_IMAGES} or more, {ENOUGH_IMAGES} for ranges that can be relied on",
            fix=f"set calibration.images to {ENOUGH_IMAGES} and add photographs, or calibration.allow_few = true",
        )
    if count < ENOUGH_IMAGES:
        return (
            f"{count} calibration images (advised: {ENOUGH_IMAGES}): the ranges of rare activations may be cut; "
            f"use {ENOUGH_IMAGES - count} more (calibration.images, photographs in train)"
        )
    return None


def _listed(steps: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{step}"' for step in steps) + "]"
