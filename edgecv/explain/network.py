"""The float Keras network, layer by layer: its graph, and what each layer gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import ModelError
from edgecv.recipe import Preprocess

__all__ = ["Network"]

Arrays = dict[str, NDArray[np.float32]]
# Layers of one input whose output a runtime computes together with it, where it can.
LINEAR = {"BatchNormalization", "Dropout", "Rescaling"}
WEIGHTED = {"Conv2D", "Dense", "DepthwiseConv2D", "SeparableConv2D"}
ELEMENTWISE = LINEAR | {"Activation", "ReLU", "Softmax"}


class Network:
    """A functional Keras model that gives logits, its layers in the order in which they are computed."""

    def __init__(self, model: Any) -> None:
        self._layers = {layer.name: layer for layer in model.layers}
        self.inputs = {name: tuple(sources) for name, sources in _sources(model)}
        self.order = {name: place for place, name in enumerate(self._sorted())}
        self.shapes = {name: tuple(self._layers[name].output_shape[1:]) for name in self.order}
        self.kinds = {name: type(layer).__name__ for name, layer in self._layers.items()}
        self._readers = {name: [one for one in self.inputs if name in self.inputs[one]] for name in self.inputs}
        self._gates = {inner[0]: inner for name in self.order if (inner := self._gate(name))}
        self._gated = {inner[-1]: inner for inner in self._gates.values()}
        self.weighted = tuple(name for name in self.order if self.kinds[name] in WEIGHTED)

    def _sorted(self) -> Iterator[str]:
        """Give the names so that each comes after its inputs, in the model's own order otherwise."""
        done: set[str] = set()
        waiting = list(self.inputs)
        while waiting:
            ready = next(name for name in waiting if done.issuperset(self.inputs[name]))
            waiting.remove(ready)
            done.add(ready)
            if self.inputs[ready]:
                yield ready

    def _gate(self, product: str) -> tuple[str, ...]:
        """List the layers of an activation such as hard-swish, x times a function of x: from x to the product."""
        if self.kinds[product] != "Multiply" or len(self.inputs[product]) != 2:
            return ()
        for source, end in (self.inputs[product], self.inputs[product][::-1]):
            inner: list[str] = []
            while end != source and self.kinds[end] in ELEMENTWISE and len(self._readers[end]) == 1:
                inner.insert(0, end)
                (end,) = self.inputs[end]
            if inner and end == source and len(self._readers[source]) == 2:
                return (source, *inner, product)
        return ()

    def extend(self, layer: str, *, taken: Set[str], activations: bool) -> str:
        """Follow the batch norms, and if asked the activations, that alone read a layer, up to one that is `taken`."""
        kinds = ELEMENTWISE if activations else LINEAR
        last = layer
        while True:
            if activations and layer in self._gates and taken.isdisjoint(following := self._gates[layer][1:]):
                layer = following[-1]
            elif len(following := tuple(self._readers[layer])) == 1 and taken.isdisjoint(following):
                (layer,) = following
                if self.kinds[layer] not in kinds:
                    return last
            else:
                return last
            last = last if self.kinds[layer] == "Dropout" else layer

    def unit(self, layer: str) -> tuple[str, ...]:
        """List the layers that are computed together: what a batch norm or an activation belongs to, up to `layer`."""
        found: tuple[str, ...] = (layer,)
        while True:
            if first := self._gated.get(found[0]):
                found = (*first, *found[1:])
            elif self.kinds[found[0]] in ELEMENTWISE and self.inputs[self.inputs[found[0]][0]]:
                found = (self.inputs[found[0]][0], *found)
            else:
                return found

    def run(
        self, images: NDArray[np.uint8], given: Mapping[str, NDArray[np.float32]], preprocess: Preprocess
    ) -> tuple[Arrays, Arrays]:
        """Compute each layer of `given` twice, float32 `(n, ...)`: from the images, and from the nearest `given`.

        `given`: what a file holds for these layers. The first is what the float network gives, the second what it would
        give for the file's own inputs of that layer: the file's difference from it is the layer's own doing.
        """
        import tensorflow as tf

        pixels = (tf.cast(images, tf.float32) - preprocess.mean) / preprocess.scale
        reference, expected = ({name: pixels for name, sources in self.inputs.items() if not sources} for _ in range(2))
        for name in self.order:
            reference[name] = self._call(name, reference)
            seen = {one: given[one] if one in given else expected[one] for one in self.inputs[name]}
            expected[name] = self._call(name, {one: tf.convert_to_tensor(value) for one, value in seen.items()})
        first, second = ({name: values[name].numpy() for name in given} for values in (reference, expected))
        return first, second

    def _call(self, name: str, values: Mapping[str, Any]) -> Any:
        inputs = [values[one] for one in self.inputs[name]]
        return self._layers[name](inputs if len(inputs) > 1 else inputs[0], training=False)


def _sources(model: Any) -> Iterator[tuple[str, list[str]]]:
    """Give each layer with the layers it reads.

    Raises:
        ModelError: a layer stands at several places, or the network has several inputs.
    """
    entries = model.get_config()["layers"]
    for entry in entries:
        if len(entry["inbound_nodes"]) > 1:
            raise ModelError(f"layer {entry['name']} of {model.name} is used twice", expected="each layer at one place")
    if len(model.inputs) != 1:
        raise ModelError(f"the network {model.name} has several inputs", got=str(len(model.inputs)), expected="one")
    for entry in entries:
        nodes = entry["inbound_nodes"]
        yield entry["name"], [one[0] for one in nodes[0]] if nodes else []
