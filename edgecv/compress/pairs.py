"""Pairs of layers across which channels may be scaled: the second alone reads what the first gives."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from edgecv.artifact import Skipped
from edgecv.compress.graph import steps
from edgecv.compress.rules import Step

__all__ = ["KERNELS", "Pair", "find_pairs"]

# Layers with a kernel, and its name.
KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
# Layers that hand each channel on, or a mean or a maximum of it.
PASSES = {
    *("AveragePooling2D", "Dropout", "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "MaxPooling2D"),
    *("SpatialDropout2D", "ZeroPadding2D"),
}


@dataclass(frozen=True)
class Pair:
    """Two layers of which the second alone reads the first.

    `norm` and `next_norm`: the batch norms right behind them. `before_clip`: what an activation with a limit reads.
    """

    first: Any
    norm: Any | None
    next_norm: Any | None
    before_clip: Any | None
    limit: float
    second: Any


class _Graph:
    """The calls of layers, and who reads each tensor."""

    def __init__(self, model: Any) -> None:
        self.calls = steps(model)
        self.outputs = {id(tensor) for tensor in model.outputs}
        self.readers: dict[int, list[Step]] = defaultdict(list)
        for call in self.calls:
            for tensor in call.inputs:
                self.readers[id(tensor)].append(call)
        self.times = Counter(call.layer.name for call in self.calls)

    def norm(self, tensor: Any) -> Any | None:
        """Give the batch norm that alone reads a tensor, None where there is none."""
        readers = self.readers[id(tensor)]
        alone = len(readers) == 1 and type(readers[0].layer).__name__ == "BatchNormalization"
        return readers[0].layer if alone else None


def find_pairs(model: Any) -> tuple[list[Pair], list[Skipped]]:
    """Find the pairs in the order in which they run, and the layers with a kernel that are first in none."""
    graph = _Graph(model)
    pairs, left = list[Pair](), list[Skipped]()
    for call in graph.calls:
        if type(call.layer).__name__ not in KERNELS:
            continue
        found = _follow(call, graph)
        if isinstance(found, Pair):
            pairs.append(found)
        elif found:
            left.append(Skipped(call.layer.name, found))
    return pairs, left


def _follow(call: Step, graph: _Graph) -> Pair | str:
    """Go from a layer to the only one that reads it, or say why there is none; "" for the network's last layer."""
    norm, before_clip, limit = None, None, 0.0
    tensor = call.outputs[0]
    if graph.times[call.layer.name] > 1 or getattr(call.layer, "groups", 1) > 1:
        return "it is called more than once, or in groups"
    if _activation(call.layer) != 0.0:
        return "" if id(tensor) in graph.outputs else "it has an activation of its own, which is not plain ReLU"
    while id(tensor) not in graph.outputs:
        readers = graph.readers[id(tensor)]
        if len(readers) != 1:
            return "read by " + " and ".join(other.layer.name for other in readers) + ", which would need one scale"
        layer, kind = readers[0].layer, type(readers[0].layer).__name__
        if graph.times[layer.name] > 1:
            return f"read by {layer.name}, which is called more than once"
        if kind in KERNELS and getattr(layer, "groups", 1) == 1:
            return Pair(call.layer, norm, graph.norm(readers[0].outputs[0]), before_clip, limit, layer)
        if kind == "BatchNormalization" and tensor is call.outputs[0] and layer.scale:
            norm = layer
        elif kind in ("ReLU", "Activation") and (found := _activation(layer)) is not None:
            if found:
                before_clip, limit = tensor, found
        elif kind not in PASSES:
            return f"read by {layer.name}: what a {kind} gives does not grow with what it reads, channel by channel"
        tensor = readers[0].outputs[0]
    return ""


def _activation(layer: Any) -> float | None:
    """Give 0 for a function with f(s x) = s f(x), its limit where only that is in the way, and None for others."""
    if type(layer).__name__ == "ReLU":
        if layer.threshold:
            return None
        return 0.0 if layer.max_value is None else float(layer.max_value)
    name = getattr(getattr(layer, "activation", None), "__name__", "linear")
    return {"linear": 0.0, "relu": 0.0, "relu6": 6.0}.get(name)
