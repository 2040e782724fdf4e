"""The compression steps that a variant may name, and what each asks of the format and the data."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from edgecv.artifact import Format
from edgecv.errors import ConfigError

__all__ = ["STEPS", "Known", "Precision", "check_calibration", "lacking", "precision_of"]

Precision = Literal["float32", "float16", "int8", "int8-dynamic"]

FEWEST_IMAGES = 100
ENOUGH_IMAGES = 300


@dataclass(frozen=True)
class Known:
    """A step that a variant may name. `precision`: what the file is exported in, None where it gives a Keras model."""

    summary: str
    precision: Precision | None


STEPS: dict[str, Known] = {
    "float16": Known("weights in float16, activations in float", "float16"),
    "int8": Known("weights per channel and activations in int8, static ranges from calibration images", "int8"),
    "int8-dynamic": Known("weights in int8, the ranges of activations found in each inference", "int8-dynamic"),
}

# (format, precision) that can't be had, and why. Every other pair of tflite or openvino and a precision can.
LACKING: dict[tuple[Format, Precision], str] = {
    ("openvino", "int8-dynamic"): (
        "OpenVINO's dynamic int8 is for fully connected layers with compressed weights; its CPU kernels run a "
        "convolution in int8 only with static ranges"
    ),
}


def precision_of(steps: tuple[str, ...]) -> Precision:
    """Give the precision that the file of a variant with these steps is exported in.

    Raises:
        ConfigError: an unknown step, two steps that set a precision, or one that is not the last.

    >>> precision_of(("int8",))
    'int8'
    """
    for step in steps:
        if step not in STEPS:
            near = difflib.get_close_matches(step, STEPS, n=1)
            raise ConfigError(
                f"unknown compression step {step}",
                got=_listed(steps),
                expected="steps among " + ", ".join(STEPS),
                fix=f"did you mean {near[0]}?" if near else f"remove {step}",
            )
    set_by = [step for step in steps if STEPS[step].precision]
    if len(set_by) > 1:
        raise ConfigError(
            f"{' and '.join(set_by)} both set the precision",
            got=_listed(steps),
            expected="one of them",
            fix="make two variants of it",
        )
    if set_by and steps[-1] != set_by[0]:
        raise ConfigError(
            f"{set_by[0]} is not the last step",
            got=_listed(steps),
            expected="the step that sets the precision at the end",
            fix=f"move {set_by[0]} to the end",
        )
    return (STEPS[set_by[0]].precision if set_by else None) or "float32"


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
