"""Whether the int8 file of a network that was trained with rounding rounds as the training did: every network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, interval
from benchmarks.pruning import changed, from_scratch, judged, stages_of
from edgecv import nets
from edgecv.listener import Listener
from edgecv.quiet import quiet
from edgecv.recipe import Preprocess, Recipe
from edgecv.stats import accuracy_drop
from edgecv.verify import top_k

# Enough epochs to tell the classes apart, at a size that leaves every network a map to compute on.
EPOCHS, SIZE = 6, 64
# Images whose values are compared layer by layer, and how far apart they may be, in steps of the int8 scale: a value
# half way between two steps may fall to either side.
SEEN, APART = 8, 1.01


def rounding(listener: Listener) -> Iterator[Figure]:
    """Top-1 of each network's file beside that of the Keras network with fake quantization, and layer by layer."""
    for net in nets.names():
        stages = stages_of(recipe_of(net), f"rounding-{net}", listener)
        with stages.store.in_use():
            files, right = judged(stages, "qat")
            model, images = stages.network(("qat",)), np.asarray(stages.images("test")[:SEEN])
            keras_right = top_k(stages.outputs(("qat",)), stages.labels("test"), 1)
        drop = accuracy_drop(keras_right, right)
        top1 = f"top-1 {np.mean(right):.4f}, Keras {np.mean(keras_right):.4f}"
        how = f"{interval(drop.ci95)}, {drop.n} test images, {top1}"
        yield Figure(f"{net}: int8 file from quantized Keras, pp", abs(drop.drop_pp), "<= 0.5", how)
        steps = steps_apart(files[0].read_bytes(), model, images, stages.recipe.preprocess)
        apart = [name for name, found in steps.items() if found > APART]
        named = f"first apart: {apart[0]}" if apart else "none apart"
        how = f"largest of {len(steps)} layers, {SEEN} images; {named}"
        yield Figure(f"{net}: a layer from the file's, steps", max(steps.values()), f"<= {APART}", how)


def recipe_of(net: str) -> Recipe:
    """From random weights, then trained with quantization for one epoch."""
    recipe = changed(from_scratch(0, EPOCHS), model={"net": net}, preprocess={"size": SIZE}, qat={"epochs": 1})
    return changed(recipe, variants={"float32": (), "qat": ("qat",)})


def steps_apart(content: bytes, model: Any, images: NDArray[np.uint8], preprocess: Preprocess) -> dict[str, float]:
    """How far each layer's output is at most from the file's, in steps of its scale, reading what the file's reads.

    `model`: what `compress.quantize_aware` gave, and `content` was made from. `images`: uint8 `(n, size, size, 3)`.
    """
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from edgecv.export.flatbuffer import Flatbuffer
    from edgecv.export.trained import matched

    with quiet():
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        )
    interpreter.allocate_tensors()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    tensors = {name: details[tensor] for name, tensor in matched(Flatbuffer(content), model).items()}
    stored: dict[str, list[NDArray[np.float32]]] = {name: [] for name in tensors}
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        for name, detail in tensors.items():
            scale, zero_point = detail["quantization"]
            value = interpreter.get_tensor(detail["index"]).astype(np.float32)
            stored[name].append((value - zero_point) * np.float32(scale))
    values = {model.layers[0].name: ((images.astype(np.float32) - preprocess.mean) / preprocess.scale)}
    apart = {}
    for layer in model.layers[1:]:
        reads = [values[tensor.node.layer.name].astype(np.float32) for tensor in tf.nest.flatten(layer.input)]
        value = np.asarray(layer(reads if len(reads) > 1 else reads[0]))
        if layer.name in tensors:
            own = np.concatenate(stored[layer.name]).reshape(value.shape)
            apart[layer.name] = float(np.abs(value - own).max() / tensors[layer.name]["quantization"][0])
            value = own
        values[layer.name] = value
    return apart
