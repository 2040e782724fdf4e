"""What each class of layer does to the channels of the tensors that it reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = ["RULES", "Found", "Rule", "Runs", "Step", "positions"]

# The runs of channels along a tensor's last axis, by number.
Runs = tuple[int, ...]
Role = Literal["out", "pass", "in"]

# Activations that work on each number alone: they keep channels apart.
ELEMENTWISE = (
    *("elu", "exponential", "gelu", "hard_sigmoid", "hard_swish", "linear", "mish", "relu", "relu6", "selu"),
    *("sigmoid", "silu", "softplus", "softsign", "swish", "tanh"),
)
# The same as layers, and layers that work on each channel alone and have no weights.
ACTIVATIONS = ("ELU", "HardSigmoid", "HardSwish", "LeakyReLU", "ReLU", "Swish", "ThresholdedReLU")
PASSING = (
    *("AveragePooling2D", "Cropping2D", "Dropout", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling2D"),
    *("GlobalMaxPooling2D", "MaxPooling2D", "SpatialDropout2D", "UpSampling2D", "ZeroPadding2D"),
)
MERGES = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
# Classes of that name that are not Keras' own are trusted where they have no weights.
OWN = ("HardSigmoid", "HardSwish", "Swish")


@dataclass(frozen=True)
class Step:
    """One call of a layer, with the symbolic tensors that it reads and gives."""

    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """The layer's class, or "" for one of somebody else's, which may do what it likes under any name."""
        name, module = type(self.layer).__name__, type(self.layer).__module__
        keras = module.partition(".")[0] in ("keras", "tf_keras")
        return name if keras or (name in OWN and not self.layer.weights) else ""


@dataclass
class Found:
    """What is known of the channels on the way through a graph: runs are numbers, and joined ones have one root.

    Of each root: `makers` (layers), `reasons` (why it is left alone), `joined` (by a sum or the like), `active` (an
    activation follows).
    """

    sizes: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    makers: dict[int, list[str]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    joined: set[int] = field(default_factory=set)
    active: set[int] = field(default_factory=set)
    cuts: list[tuple[str, int | None, int, Role, Runs]] = field(default_factory=list)

    def start(self, size: int, layer: str) -> Runs:
        """Start a run of `size` channels that `layer` makes."""
        run = len(self.sizes)
        self.sizes.append(size)
        self.parents.append(run)
        self.makers[run] = [layer]
        return (run,)

    def root(self, run: int) -> int:
        """Give the run that stands for all those joined with `run`: the first."""
        while self.parents[run] != run:
            run = self.parents[run]
        return run

    def freeze(self, runs: Runs, reason: str) -> None:
        """Leave these channels alone; the first reason given stays."""
        for run in runs:
            self.reasons.setdefault(self.root(run), reason)

    def join(self, rows: list[Runs]) -> Runs | str:
        """Make the runs of several tensors one, the first with the first; or say why that can't be."""
        sizes = {tuple(self.sizes[run] for run in row) for row in rows}
        if len(sizes) > 1:
            return "its inputs divide the channels differently"
        for row in rows[1:]:
            for one, other in zip(rows[0], row, strict=True):
                self._unite(*sorted((self.root(one), self.root(other))))
        return rows[0]

    def mark(self, known: set[int], runs: Runs) -> None:
        """Note something of these channels in `joined` or `active`."""
        known.update(self.root(run) for run in runs)

    def cut(self, step: Step, role: Role, runs: Runs, *places: tuple[int | None, int]) -> None:
        """Note the (weight, axis) pairs of a layer on which these channels lie."""
        self.cuts += [(step.layer.name, weight, axis, role, runs) for weight, axis in places]

    def _unite(self, first: int, second: int) -> None:
        if first == second:  # an activation written as a product, say
            return
        self.joined.add(first)
        self.parents[second] = first
        self.makers[first] += self.makers.pop(second)
        if second in self.reasons:
            self.reasons.setdefault(first, self.reasons.pop(second))
        for known in (self.joined, self.active):
            if second in known:
                known.remove(second)
                known.add(first)


# Gives the runs of the output, or the reason for which the layer's channels are left alone.
Rule = Callable[[Found, Step, list[Runs]], Runs | str]


def positions(tensor: Any) -> int | None:
    """Count the places of a tensor that hold one number for each channel; None where that is open."""
    inner = tuple(tensor.shape)[1:-1]
    return None if None in inner else math.prod(inner)


def _image(found: Found, step: Step, _: list[Runs]) -> Runs:
    runs = found.start(int(step.outputs[0].shape[-1]), step.layer.name)
    found.freeze(runs, "the network's input")
    return runs


def _kernel(found: Found, step: Step, runs: list[Runs]) -> Runs | str:
    """Follow Conv2D and Dense: the kernel's last two axes are input and output channels."""
    layer = step.layer
    if getattr(layer, "groups", 1) != 1:
        return f"a convolution in {layer.groups} groups ties its inputs to its outputs"
    axis = layer.kernel.shape.rank - 2
    found.cut(step, "in", runs[0], (0, axis))
    return _made(found, step, (0, axis + 1), *([(1, 0)] if layer.use_bias else []))


def _separable(found: Found, step: Step, runs: list[Runs]) -> Runs | str:
    layer = step.layer
    if layer.depth_multiplier != 1:
        return f"depth_multiplier is {layer.depth_multiplier}"
    found.cut(step, "pass", runs[0], (0, 2))
    found.cut(step, "in", runs[0], (1, 2))
    return _made(found, step, (1, 3), *([(2, 0)] if layer.use_bias else []))


def _made(found: Found, step: Step, *places: tuple[int, int]) -> Runs:
    made = found.start(int(step.outputs[0].shape[-1]), step.layer.name)
    found.cut(step, "out", made, *places)
    _activate(found, step.layer, made)
    return made


def _activate(found: Found, layer: Any, runs: Runs) -> None:
    name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
    if name not in ELEMENTWISE:
        found.freeze(runs, f"activation {name} of {layer.name} mixes channels, or is not known")
    elif name != "linear":
        found.mark(found.active, runs)


def _depthwise(found: Found, step: Step, runs: list[Runs]) -> Runs | str:
    layer = step.layer
    if layer.depth_multiplier != 1:
        return f"depth_multiplier is {layer.depth_multiplier}"
    found.cut(step, "pass", runs[0], (0, 2), *([(1, 0)] if layer.use_bias else []))
    _activate(found, layer, runs[0])
    return runs[0]


def _batch_norm(found: Found, step: Step, runs: list[Runs]) -> Runs | str:
    if list(step.layer.axis) != [len(step.inputs[0].shape) - 1]:
        return "it normalises another axis than the last"
    found.cut(step, "pass", runs[0], *((weight, 0) for weight in range(len(step.layer.weights))))
    return runs[0]


def _activation(found: Found, step: Step, runs: list[Runs]) -> Runs:
    if hasattr(step.layer, "activation"):
        _activate(found, step.layer, runs[0])
    else:
        found.mark(found.active, runs[0])
    return runs[0]


def _pass(_: Found, __: Step, runs: list[Runs]) -> Runs:
    return runs[0]


def _rescaling(_: Found, step: Step, runs: list[Runs]) -> Runs | str:
    each = np.ndim(step.layer.scale) or np.ndim(step.layer.offset)
    return "it has a factor for each channel" if each else runs[0]


def _merge(found: Found, step: Step, runs: list[Runs]) -> Runs | str:
    widths = [int(tensor.shape[-1]) for tensor in step.inputs]
    wide = [row for row, width in zip(runs, widths, strict=True) if width == max(widths)]
    for row, width in zip(runs, widths, strict=True):
        if width < max(widths):
            found.freeze(row, f"{step.layer.name} spreads one channel over all")
    return found.join(wide)


def _concatenate(found: Found, step: Step, runs: list[Runs]) -> Runs | str:
    if step.layer.axis not in (-1, len(step.inputs[0].shape) - 1):
        return found.join(runs)
    row = tuple(run for part in runs for run in part)
    found.mark(found.joined, row)
    return row


def _reshape(found: Found, step: Step, runs: list[Runs]) -> Runs | str:
    """Follow Flatten and Reshape: rows of channels may get other positions, or stand one after the other."""
    before, after, places = step.inputs[0].shape, step.outputs[0].shape, positions(step.inputs[0])
    if after[-1] == before[-1]:
        row = runs[0]
    elif len(after) == 2 and places is not None:
        row = runs[0] * places
    else:
        return f"it turns {tuple(before)[1:]} into {tuple(after)[1:]}, which mixes channels with positions"
    target = getattr(step.layer, "target_shape", (-1,))
    if target[-1] != -1:
        found.cut(step, "pass", row, (None, len(target) - 1))
    return row


RULES: dict[str, Rule] = {
    "InputLayer": _image,
    "Conv2D": _kernel,
    "Dense": _kernel,
    "SeparableConv2D": _separable,
    "DepthwiseConv2D": _depthwise,
    "BatchNormalization": _batch_norm,
    "Activation": _activation,
    "Rescaling": _rescaling,
    "Concatenate": _concatenate,
    "Flatten": _reshape,
    "Reshape": _reshape,
    **dict.fromkeys(ACTIVATIONS, _activation),
    **dict.fromkeys(PASSING, _pass),
    **dict.fromkeys(MERGES, _merge),
}
