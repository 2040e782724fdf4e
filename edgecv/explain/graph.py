"""What a model file computes inside, and which layer of the Keras network each of its tensors answers to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.explain.network import Network

__all__ = ["Match", "Quantised", "Tensor", "match", "read_graph"]

# OpenVINO's operators that follow a layer's own: bias and batch norm (with a constant), activations, and the rounding.
LINEAR = {"Add", "Convert", "Divide", "Multiply", "Subtract"}
ACTIVATIONS = {"Clamp", "Elu", "Gelu", "HSigmoid", "HSwish", "Mish", "PRelu", "Relu", "Sigmoid", "SoftPlus", "Swish"}
ACTIVATIONS |= {"Tanh"}
ROUNDING = "FakeQuantize"
# Operators by the Keras layers that they compute, where a file has lost a name.
COMPUTES = {
    "Convolution": "Conv2D",
    "CONV_2D": "Conv2D",
    "GroupConvolution": "DepthwiseConv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "MatMul": "Dense",
    "FULLY_CONNECTED": "Dense",
}


@dataclass(frozen=True)
class Quantised:
    """The range of a tensor that is rounded to `levels` steps; `low` and `high` hold one figure, or one a channel.

    `zero_point`: the stored number that stands for 0, where the file has one.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    levels: int
    zero_point: int | None = None

    @property
    def scale(self) -> float:
        """What one step is worth; of the widest range where each channel has its own."""
        return max(high - low for low, high in zip(self.low, self.high, strict=True)) / (self.levels - 1)


@dataclass(frozen=True)
class Tensor:
    """What one operator of a file gives: `shape` with the batch in front, and the ids of the operators it reads."""

    id: int
    kind: str
    name: str
    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    quantised: Quantised | None = None


@dataclass(frozen=True)
class Match:
    """A tensor of the file that holds what a Keras layer gives, `shape` for one image, channels last.

    `channels_first`: the file may hold them first, as OpenVINO does.
    """

    layer: str
    tensor: Tensor
    shape: tuple[int, ...]
    channels_first: bool = False

    def values(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Turn what the file stored, `(n, ...)`, into float32 `(n, *shape)`."""
        quantised, values = self.tensor.quantised, stored
        if quantised is not None and stored.dtype.kind in "iu":
            lowest = np.iinfo(stored.dtype).min
            values = (stored.astype(np.float32) - lowest) * np.float32(quantised.scale) + np.float32(quantised.low[0])
        if self.channels_first and stored.shape[2:] + stored.shape[1:2] == self.shape:
            values = np.moveaxis(values, 1, -1)
        return np.asarray(values, np.float32).reshape(len(stored), *self.shape)


def read_graph(operators: Iterable[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    """Read what the worker answers to "graph"; weights and what only unpacks them are left out."""
    found: dict[int, Tensor] = {}
    constants: set[int] = set()
    for entry in operators:
        inputs = set(entry["inputs"])
        if entry["kind"] == "Constant" or (inputs and inputs <= constants):
            constants.add(entry["id"])
            continue
        sources = tuple(one for one in entry["inputs"] if one in found)
        name, shape = str(entry["name"]), tuple(entry["shape"])
        found[entry["id"]] = Tensor(entry["id"], entry["kind"], name, shape, sources, _quantised(entry))
    return tuple(found.values())


def _quantised(entry: Mapping[str, Any]) -> Quantised | None:
    if "low" not in entry or entry["levels"] < 2:
        return None
    return Quantised(tuple(entry["low"]), tuple(entry["high"]), entry["levels"], entry.get("zero_point"))


def match(tensors: Sequence[Tensor], network: Network, *, channels_first: bool) -> tuple[Match, ...]:
    """Find for each layer of the network the tensor that holds what it gives, in the network's order.

    A tensor of TFLite is named by the layers that were fused into it, one of OpenVINO by the layer that its chain of
    operators begins with. Where the file has no operator of its own for the layers that follow, a batch norm or an
    activation, they are counted to it: an activation that the file lost is then a difference at this very layer.
    Operators with weights that have lost their names are told by their order.
    """
    named = {one.id: layer for one in tensors if (layer := _named(one, network))}
    named |= _by_order([one for one in tensors if one.id not in named], set(named.values()), network)
    readers: dict[int, list[Tensor]] = {one.id: [] for one in tensors}
    for one in tensors:
        for source in one.inputs:
            readers[source].append(one)
    ends = {layer: _chain(tensor, readers) for tensor in tensors if (layer := named.get(tensor.id))}
    found = []
    for layer, chain in ends.items():
        acts = any(one.kind in ACTIVATIONS for one in chain)
        told = acts or all(one.id in named for one in _beyond(chain[-1], readers))
        last = network.extend(layer, taken=ends.keys() - {layer}, activations=told)
        if _fits(chain[-1].shape[1:], shape := network.shapes[last]):
            found.append(Match(last, chain[-1], shape, channels_first))
    return tuple(sorted(found, key=lambda one: network.order[one.layer]))


def _named(tensor: Tensor, network: Network) -> str | None:
    """Find the last of the layers in a name: paths such as "net/layer/op", joined by ";" where layers were fused."""
    found = []
    for path in tensor.name.split(";"):
        parts = (part.removeprefix("quant_") for part in path.split("/"))
        found += [next((part for part in parts if part in network.order), None)]
    fitting = [one for one in found if one and _fits(tensor.shape[1:], network.shapes[one])]
    return max(fitting, key=network.order.__getitem__, default=None)


def _by_order(tensors: Sequence[Tensor], names: Set[str], network: Network) -> dict[int, str]:
    """Pair operators without a name and layers that no name tells of, for each kind of which there are as many."""
    known = {part for name in names for part in network.unit(name)}
    found: dict[int, str] = {}
    for kind in set(COMPUTES.values()):
        nameless = [one for one in tensors if COMPUTES.get(one.kind) == kind]
        lacking = [name for name in network.weighted if network.kinds[name] == kind and name not in known]
        if len(nameless) == len(lacking):
            pairs = list(zip(nameless, lacking, strict=True))
            if all(_fits(one.shape[1:], network.shapes[name]) for one, name in pairs):
                found |= {one.id: name for one, name in pairs}
    return found


def _chain(tensor: Tensor, readers: Mapping[int, list[Tensor]]) -> list[Tensor]:
    """List a tensor and what OpenVINO makes of it alone: bias, activation and rounding."""
    chain = [tensor]
    while chain[-1].kind != ROUNDING and len(following := readers[chain[-1].id]) == 1:
        follower = following[0]
        if len(follower.inputs) != 1 or follower.kind not in {*LINEAR, *ACTIVATIONS, ROUNDING}:
            break
        chain.append(follower)
    return chain


def _beyond(tensor: Tensor, readers: Mapping[int, list[Tensor]]) -> list[Tensor]:
    """List what reads a tensor, through the operators that only change its type."""
    casts = {"QUANTIZE", "DEQUANTIZE", ROUNDING}
    found: list[Tensor] = []
    for one in readers[tensor.id]:
        found += _beyond(one, readers) if one.kind in casts else [one]
    return found


def _fits(stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Tell whether one image's values, channels first or last, can be a layer's output."""
    if math.prod(stored) != math.prod(shape):
        return False
    candidates = [stored, (*stored[1:], *stored[:1])]
    return any([n for n in one if n != 1] == [n for n in shape if n != 1] for one in candidates)
