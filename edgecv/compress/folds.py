"""Which parts of a network TFLite's converter folds into others, and where a value is therefore rounded to int8."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgecv.compress.parts import WEIGHTS, Part
from edgecv.errors import ModelError

__all__ = ["Folds", "fold"]

# What these give is their input's, in other places: it has its scale.
MOVES = {
    *("ActivityRegularization", "Cropping2D", "Dropout", "Flatten", "GaussianDropout", "GaussianNoise"),
    *("GlobalMaxPooling2D", "MaxPooling2D", "Permute", "Reshape", "SpatialDropout2D", "ZeroPadding2D"),
}
# The int8 operator computes a new value, in its input's scale.
SAME_SCALE = {"AveragePooling2D"}
ARITHMETIC = {"Add", "Multiply", "Subtract"}
OTHERS = {"Concatenate", "GlobalAveragePooling2D"}


@dataclass
class Folds:
    """Where values are rounded, by the names of parts.

    `rounded`: those whose output gets a range. `same`: those whose output is rounded in another one's range. `float`:
    those that have no int8 form, and why; what they give is rounded.
    """

    rounded: set[str] = field(default_factory=set)
    same: dict[str, str] = field(default_factory=dict)
    float: dict[str, str] = field(default_factory=dict)


class _Graph:
    """The parts by name, and who reads each."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = {part.name: part for part in parts}
        self.readers: dict[str, list[Part]] = defaultdict(list)
        for part in parts:
            for name in part.reads:
                self.readers[name].append(part)

    def only_reader(self, name: str) -> Part | None:
        """Give the one part that reads `name`, None where there are more or none."""
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 else None

    def linear(self, part: Part) -> bool:
        """Whether a part is a convolution or dense layer, or is folded into one before it."""
        if part.kind in WEIGHTS:
            return True
        before = self.parts.get(part.reads[0]) if part.reads else None
        affine = part.kind in ("BatchNormalization", "Rescaling")
        return bool(affine and before and self.only_reader(before.name) is part and self.linear(before))

    def folded(self, part: Part) -> bool:
        """Whether a part's output is never written, as its only reader is done with it in one operator."""
        reader = self.only_reader(part.name)
        if reader is None:
            return False
        if _plain_relu(reader):
            return self.linear(part) or part.kind in {*ARITHMETIC, "Rescaling"}
        # What only a concatenation reads is written in its scale.
        return reader.kind == "Concatenate" or (self.linear(reader) and reader.kind not in WEIGHTS)


def fold(parts: Sequence[Part]) -> Folds:
    """Find where the values of a network are rounded once it is a TFLite file.

    Raises:
        ModelError: a batch norm stands behind nothing that it could be folded into.
    """
    graph, found = _Graph(parts), Folds()
    for part in parts:
        if _moves(part):
            continue
        if part.kind == "BatchNormalization" and not graph.linear(part):
            raise ModelError(
                f"the batch norm {part.name} can't be folded",
                got="behind " + ", ".join(part.reads),
                expected="behind a convolution or dense layer that nothing else reads",
                fix="take int8 without qat",
            )
        if part.kind in SAME_SCALE:
            found.same[part.name] = _origin(part.reads[0], graph)
        elif not graph.folded(part):
            found.rounded.add(part.name)
        if not _known(part):
            found.float[part.name] = f"{part.kind.lower()}: no int8 form of it is known here; what it gives is int8"
    return found


def _origin(name: str, graph: _Graph) -> str:
    """Find the part whose range a moved value has."""
    while name in graph.parts and (_moves(graph.parts[name]) or graph.parts[name].kind in SAME_SCALE):
        name = graph.parts[name].reads[0]
    return name


def _moves(part: Part) -> bool:
    return part.idle or part.kind in MOVES


def _plain_relu(part: Part) -> bool:
    """Whether a part is ReLU or ReLU6, which TFLite's kernels apply to what they compute."""
    layer = part.layer
    if part.kind != "ReLU":
        return False
    return layer.max_value in (None, 6.0) and not layer.negative_slope and not layer.threshold


def _known(part: Part) -> bool:
    kinds = {*WEIGHTS, *MOVES, *SAME_SCALE, *ARITHMETIC, *OTHERS, "BatchNormalization", "Rescaling"}
    return part.kind in kinds or part.fixed is not None or _plain_relu(part)
