from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tf_keras

from edgecv.export.flatbuffer import Flatbuffer
from edgecv.export.sparse_kernels import dense_because, to_sparse_float32, zeros_of_pointwise
from edgecv.export.tflite import to_tflite
from edgecv.nets import build
from edgecv.quiet import quiet
from edgecv.recipe import Preprocess
from edgecv.train import predict


def network(size: int, share: float) -> Any:
    """A network with `share` of each 1x1 kernel zero."""
    tf_keras.utils.set_random_seed(0)
    model = build("separable_cnn", size=size, classes=3)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "Conv2D" and layer.kernel_size == (1, 1):
            layer.kernel.assign(np.where(rng.random(layer.kernel.shape) < share, 0.0, layer.kernel.numpy()))
    return model


def run(content: bytes, image: Any) -> Any:
    with quiet():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize(("size", "pads"), [(33, 4), (32, 0)])
def test_the_sparse_file_is_smaller_gives_the_same_answers_and_pads_where_all_sizes_are_odd(
    size: int, pads: int
) -> None:
    model, preprocess = network(size, 0.8), Preprocess(size=size)
    plain = to_tflite(network(size, 0.6), "float32", preprocess=preprocess, labels=["a", "b", "c"])
    exported = to_tflite(model, "float32", preprocess=preprocess, labels=["a", "b", "c"])
    content = to_sparse_float32(model, preprocess)
    assert len(exported.files["model.tflite"]) < 0.5 * len(plain.files["model.tflite"])
    assert exported.files["model.tflite"].startswith(content)
    image = np.random.default_rng(1).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    np.testing.assert_allclose(run(content, image)[0], predict(model, image, preprocess)[0], atol=1e-5)
    kinds = [operator.kind for operator in Flatbuffer(content).operators]
    assert kinds.count("PAD") == pads
    assert kinds.count("DENSIFY") == 7
    assert to_sparse_float32(model, preprocess) == content


def test_a_network_that_no_cpu_runs_with_sparse_kernels_says_why() -> None:
    assert dense_because(network(33, 0.8)) is None
    assert "stem_conv has stride 2 on 32x32" in str(dense_because(network(32, 0.8)))
    half = network(33, 0.5)
    assert zeros_of_pointwise(half) == pytest.approx(0.5, abs=0.01)
    assert "50% of the weights" in str(dense_because(half))
