from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecv.artifact import Quantization
from edgecv.compress.equalize import equalize
from edgecv.errors import ConfigError
from edgecv.export import Exported, to_openvino, to_tflite
from edgecv.export.bias import correct_biases
from edgecv.export.flatbuffer import CASTS, Flatbuffer
from edgecv.export.ranges import measure
from tests import uneven
from tests.common import needs_vnni

pytest.importorskip("tensorflow", reason="the extra train is not installed")
pytest.importorskip("litert_quantizer", reason="the extra train is not installed")

RAISED = ("depthwise", "project")


@functools.cache
def images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Calibration and test images."""
    found = uneven.crops(320)
    return found[:120], found[120:]


@functools.cache
def network(name: str) -> Any:
    plain = uneven.network(images()[0])
    return {
        "plain": lambda: plain,
        "exploding": lambda: uneven.exploding(plain),
        "outliers": lambda: uneven.with_outliers(plain, images()[0]),
        "uneven": lambda: uneven.exploding(plain, np.geomspace(0.2, 5.0, 16)),
        "exploding, equalized": lambda: equalize(network("exploding"))[0],
        "uneven, equalized": lambda: equalize(network("uneven"))[0],
    }[name]()


@functools.cache
def exported(
    name: str, file_format: str, precision: str = "int8", quantization: Quantization | None = None
) -> Exported:
    if file_format == "openvino":
        pytest.importorskip("nncf", reason="the extra openvino is not installed")
    return (to_tflite if file_format == "tflite" else to_openvino)(
        network(name),
        precision,
        preprocess=uneven.PREPROCESS,
        labels=uneven.LABELS,
        calibration=images()[0] if precision in ("int8", "int16x8") else None,
        quantization=quantization or Quantization(),
    )


def answers(file: Exported, folder: Path) -> NDArray[np.float32]:
    if "model.tflite" in file.files:
        return uneven.run_tflite(file.files["model.tflite"], images()[1])
    import openvino as ov

    for name, content in file.files.items():
        (folder / name).write_bytes(content)
    compiled = ov.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled(image[np.newaxis])[0] for image in images()[1]])


def agreement(name: str, file: Exported, folder: Path) -> float:
    return uneven.agreement(answers(file, folder), uneven.probabilities(network(name), images()[1]))


def error(name: str, file: Exported, folder: Path) -> float:
    return float(np.abs(answers(file, folder) - uneven.probabilities(network(name), images()[1])).mean())


def kinds(file: Exported) -> dict[str, str]:
    """What each operator of a TFLite file gives, by its layer."""
    layers = {layer.name for layer in network("plain").layers}
    graph = Flatbuffer(file.files["model.tflite"])
    return {op.layer(layers): op.output.dtype for op in graph.operators if op.kind not in CASTS}


both = pytest.mark.parametrize("file_format", ["tflite", "openvino"])
both_exact = pytest.mark.parametrize("file_format", ["tflite", pytest.param("openvino", marks=needs_vnni)])


@both
def test_one_exploding_channel_ruins_int8_and_equalization_mends_it(file_format: str, tmp_path: Path) -> None:
    ruined = agreement("exploding", exported("exploding", file_format), tmp_path)
    assert ruined < 0.8
    assert agreement("exploding", exported("exploding, equalized", file_format), tmp_path) > ruined + 0.15


@both
@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_rare_outliers_widen_min_max_and_other_methods_cut_them(file_format: str, method: Any, tmp_path: Path) -> None:
    wide = error("outliers", exported("outliers", file_format), tmp_path)
    cut = exported("outliers", file_format, quantization=Quantization(method=method, percentile=99.95))
    assert error("outliers", cut, tmp_path) < 0.8 * wide


@both
def test_one_scale_a_kernel_loses_on_uneven_kernels_and_equalization_mends_it(file_format: str, tmp_path: Path) -> None:
    one = Quantization(granularity="tensor")
    lost = agreement("uneven", exported("uneven", file_format, quantization=one), tmp_path)
    assert agreement("uneven", exported("uneven", file_format), tmp_path) > lost + 0.05
    assert agreement("uneven", exported("uneven, equalized", file_format, quantization=one), tmp_path) > lost + 0.05


def test_each_kernel_has_as_many_scales_as_the_granularity_says() -> None:
    from ai_edge_litert.interpreter import Interpreter

    def most(granularity: Any) -> int:
        file = exported("plain", "tflite", quantization=Quantization(granularity=granularity))
        interpreter = Interpreter(model_content=file.files["model.tflite"])
        return max(len(detail["quantization_parameters"]["scales"]) for detail in interpreter.get_tensor_details())

    assert (most("channel"), most("tensor")) == (32, 1)


@both_exact
def test_layers_kept_in_float_are_named_and_raise_the_agreement(file_format: str, tmp_path: Path) -> None:
    file = exported("exploding", file_format, quantization=Quantization(float_layers=RAISED))
    reasons = {skipped.layer: skipped.reason for skipped in file.skipped}
    assert all("asked for" in reasons[layer] for layer in RAISED)
    assert not {"stem", "logits"} & reasons.keys()
    assert agreement("exploding", file, tmp_path) > 0.9


def test_layers_kept_in_float_are_float_in_the_file_and_no_others() -> None:
    found = kinds(exported("exploding", "tflite", quantization=Quantization(float_layers=RAISED)))
    assert {layer for layer, dtype in found.items() if dtype == "float32"} == {*RAISED, "softmax"}
    assert found["stem"] == found["logits"] == "int8"


def test_openvino_puts_no_quantizer_before_a_layer_kept_in_float() -> None:
    text = [
        exported("plain", "openvino", quantization=Quantization(float_layers=layers)).files["model.xml"].decode()
        for layers in ((), RAISED)
    ]
    assert text[1].count('type="FakeQuantize"') < text[0].count('type="FakeQuantize"')


def test_layers_raised_to_int16_are_int16_in_the_file_and_raise_the_agreement(tmp_path: Path) -> None:
    file = exported("exploding", "tflite", quantization=Quantization(int16_layers=RAISED))
    found = kinds(file)
    assert {layer for layer, dtype in found.items() if dtype == "int16"} == set(RAISED)
    assert (
        agreement("exploding", file, tmp_path) > agreement("exploding", exported("exploding", "tflite"), tmp_path) + 0.1
    )


def test_int16x8_computes_all_but_pixels_and_softmax_in_int16(tmp_path: Path) -> None:
    file = exported("plain", "tflite", "int16x8")
    left = {layer for layer, dtype in kinds(file).items() if dtype != "int16"}
    assert left == {skipped.layer for skipped in file.skipped} == {"sub", "softmax"}
    assert error("plain", file, tmp_path) < error("plain", exported("plain", "tflite"), tmp_path)


@pytest.mark.parametrize("layers", [("stem",), ("stem", "depthwise", "project", "pool", "logits")])
@pytest.mark.parametrize("place", ["float_layers", "int16_layers"])
def test_a_first_layer_that_is_not_int8_still_takes_pixels(layers: Any, place: str, tmp_path: Path) -> None:
    file = exported("plain", "tflite", quantization=Quantization(**{place: layers}))
    assert file.inputs[0].dtype == "uint8"
    assert {kinds(file)[layer] for layer in layers} == {"float32" if place == "float_layers" else "int16"}
    assert agreement("plain", file, tmp_path) >= 0.9


@both
@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_an_unknown_layer_is_refused_with_the_nearest_names(file_format: str, precision: str) -> None:
    with pytest.raises(ConfigError, match="no operator for the layer projct") as caught:
        exported("plain", file_format, precision, Quantization(float_layers=("projct",)))
    assert caught.value.fix.startswith("did you mean project")


@both
def test_a_fused_layer_stands_for_its_operator(file_format: str) -> None:
    whole, stem, after = (
        exported("plain", file_format, quantization=Quantization(float_layers=layers))
        for layers in ((), ("stem",), ("stem_relu",))
    )
    assert whole.files != stem.files
    assert stem.files == after.files


@both
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_float_layers_of_a_float_file_are_refused(file_format: str, precision: str) -> None:
    with pytest.raises(ConfigError, match="where all layers compute in float"):
        exported("plain", file_format, precision, Quantization(float_layers=("stem",)))


def test_openvino_refuses_int16_layers() -> None:
    with pytest.raises(ConfigError, match="no int16 activations"):
        exported("plain", "openvino", quantization=Quantization(int16_layers=("stem",)))


def test_int16_layers_of_a_file_without_static_int8_are_refused() -> None:
    with pytest.raises(ConfigError, match="int16_layers with int8-weights"):
        exported("plain", "tflite", "int8-weights", Quantization(int16_layers=("stem",)))


def hard_swish() -> Any:
    """A network with a hard-swish of Keras layers."""
    import tf_keras as keras

    keras.utils.set_random_seed(0)
    image = keras.Input((uneven.SIZE, uneven.SIZE, 3), name="image")
    x = keras.layers.Conv2D(8, 3, name="stem")(image)
    gate = keras.layers.ReLU(6.0)(keras.layers.Rescaling(1.0, 3.0)(x))
    x = keras.layers.Multiply(name="hard_swish")([x, keras.layers.Rescaling(1 / 6, name="sixth")(gate)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(uneven.CLASSES, name="logits")(x), name="swish")


@functools.cache
def hard_swish_file(
    precision: str, quantization: Quantization | None = None, *, file_format: str = "tflite"
) -> Exported:
    return (to_tflite if file_format == "tflite" else to_openvino)(
        hard_swish(),
        precision,
        preprocess=uneven.PREPROCESS,
        labels=uneven.LABELS,
        calibration=images()[0] if precision in ("int8", "int16x8") else None,
        quantization=quantization or Quantization(),
    )


def hard_swishes(file: Exported) -> int:
    return sum(operator.kind == "HARD_SWISH" for operator in Flatbuffer(file.files["model.tflite"]).operators)


def test_hard_swish_is_one_operator_in_float_and_a_sum_and_products_in_int8(tmp_path: Path) -> None:
    found = {name: hard_swishes(hard_swish_file(name)) for name in ("float32", "float16", "int8-dynamic", "int8")}
    assert found == {"float32": 1, "float16": 1, "int8-dynamic": 1, "int8": 0}
    assert [left.layer for left in hard_swish_file("int8").skipped] == ["softmax"]
    answered = [answers(hard_swish_file(name), tmp_path) for name in ("float32", "int8")]
    np.testing.assert_allclose(answered[1], answered[0], atol=0.02)


def test_hard_swish_can_have_int16_activations() -> None:
    raised = hard_swish_file("int8", Quantization(int16_layers=("hard_swish",)))
    operators = Flatbuffer(raised.files["model.tflite"]).operators
    found = {op.layer(("hard_swish", "sixth")): op.output.dtype for op in operators if op.kind not in CASTS}
    assert (found["hard_swish"], found["sixth"]) == ("int16", "int8")


def test_hard_swish_stands_for_the_convolution_before_it_in_openvino() -> None:
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    whole, stem, after = (
        hard_swish_file("int8", Quantization(float_layers=layers), file_format="openvino")
        for layers in ((), ("stem",), ("hard_swish",))
    )
    assert whole.skipped != stem.skipped == after.skipped


def test_a_layer_without_an_int16_form_is_refused() -> None:
    import tf_keras as keras

    def swish(x: Any) -> Any:
        return x * keras.activations.relu(x + 3.0, max_value=6.0) * (1.0 / 6.0)

    image = keras.Input((uneven.SIZE, uneven.SIZE, 3), name="image")
    x = keras.layers.Lambda(swish, name="coded")(keras.layers.Conv2D(8, 3, name="stem")(image))
    model = keras.Model(image, keras.layers.Dense(uneven.CLASSES)(keras.layers.GlobalAveragePooling2D()(x)))
    settings = {"preprocess": uneven.PREPROCESS, "labels": uneven.LABELS, "calibration": images()[0]}
    assert hard_swishes(to_tflite(model, "int8", **settings)) == 1
    with pytest.raises(ConfigError, match="no such form of hard_swish"):
        to_tflite(model, "int8", **settings, quantization=Quantization(int16_layers=("coded",)))


@both
def test_weights_alone_in_int8_make_the_file_small_and_leave_the_answers(file_format: str, tmp_path: Path) -> None:
    from tests.test_export import LABELS, PREPROCESS, tiny_net

    step, model = to_tflite if file_format == "tflite" else to_openvino, tiny_net()
    small, large = (step(model, p, preprocess=PREPROCESS, labels=LABELS) for p in ("int8-weights", "float32"))
    weights = "model.tflite" if file_format == "tflite" else "model.bin"
    assert len(small.files[weights]) < 0.55 * len(large.files[weights])
    assert uneven.agreement(answers(small, tmp_path), answers(large, tmp_path)) >= 0.98


def test_openvino_refuses_int8_weights_with_one_scale_a_kernel() -> None:
    with pytest.raises(ConfigError, match="one scale a channel"):
        exported("plain", "openvino", "int8-weights", Quantization(granularity="tensor"))


def test_bias_correction_brings_each_channels_mean_back() -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    content = to_tflite(network("plain"), "float32", preprocess=uneven.PREPROCESS, labels=uneven.LABELS)
    content = content.files["model.tflite"]
    graph = Flatbuffer(content)
    names = [operator.output.name for operator in graph.operators]
    logits = graph.kernels[-1]

    def run(content: bytes) -> NDArray[np.float64]:
        feed = lambda: (image[np.newaxis] for image in images()[0])  # noqa: E731
        found = measure(content, feed, names, quantization=Quantization(correct_bias=True))
        means.append(found.means)
        return found.means[logits.output]

    means: list[Any] = []
    true = run(content)
    # As coarse as 3 bits, so that the error is plain to see.
    reach = {logits.name: np.abs(logits.weights).max(keepdims=True) * 20}
    scale = reach[logits.name] / 127
    corrected = correct_biases(content, reach, means[0])

    def rounded(content: bytes) -> bytes:
        model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        operator = model.subgraphs[0].operators[logits.place]
        weights = (np.rint(logits.weights / scale) * scale).astype(np.float32)
        model.buffers[model.subgraphs[0].tensors[operator.inputs[1]].buffer].data = np.frombuffer(
            weights.tobytes(), "u1"
        )
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))

    before, after = (np.abs(run(rounded(file)) - true).max() for file in (content, corrected))
    assert before > 0.05
    assert after < 1e-4


@both_exact
def test_bias_correction_changes_the_file_and_keeps_the_agreement(file_format: str, tmp_path: Path) -> None:
    file = exported("plain", file_format, quantization=Quantization(correct_bias=True))
    assert file.files != exported("plain", file_format).files
    assert agreement("plain", file, tmp_path) >= 0.9


def test_a_channel_without_weights_keeps_its_bias(tmp_path: Path) -> None:
    import tf_keras as keras

    model = keras.models.clone_model(network("plain"))
    model.set_weights(network("plain").get_weights())
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[:, 3], bias[3] = 0.0, 4.0
    model.get_layer("logits").set_weights([kernel, bias])
    file = to_tflite(model, "int8", preprocess=uneven.PREPROCESS, labels=uneven.LABELS, calibration=images()[0])
    got, expected = answers(file, tmp_path)[:, 3], uneven.probabilities(model, images()[1])[:, 3]
    assert np.abs(got - expected).max() < 0.05


@both
@pytest.mark.parametrize(
    "quantization",
    [
        Quantization(method="percentile", correct_bias=True),
        Quantization(method="mse", granularity="tensor"),
        Quantization(float_layers=("depthwise",)),
    ],
)
def test_the_same_settings_give_the_same_bytes(file_format: str, quantization: Quantization) -> None:
    first = exported("plain", file_format, quantization=quantization)
    second = exported.__wrapped__("plain", file_format, quantization=quantization)
    digests = [[hashlib.sha256(content).hexdigest() for content in one.files.values()] for one in (first, second)]
    assert digests[0] == digests[1]


def test_openvino_knows_a_layer_by_its_kernel_where_branches_run_in_any_order() -> None:
    import tf_keras as keras

    from edgecv.export.ir import _convert

    image = keras.Input((uneven.SIZE, uneven.SIZE, 3), name="image")
    branches = []
    for number in range(4):
        x = image
        for depth in range(1 + number % 2):
            layer = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name=f"branch{number}_{depth}")
            x = keras.layers.BatchNormalization(gamma_initializer="random_normal")(layer(x))
        branches.append(keras.layers.GlobalAveragePooling2D(name=f"pool{number}")(x))
    x = keras.layers.Concatenate()(branches[::-1])
    model = keras.Model(image, keras.layers.Dense(uneven.CLASSES, name="logits")(x))
    graph, names = _convert(model, uneven.PREPROCESS)
    assert {layer.name for layer in model.layers if "branch" in layer.name} <= names
    for operator in graph.get_ordered_ops():
        if operator.get_type_name() == "Convolution":
            kernel = model.get_layer(operator.get_friendly_name()).get_weights()[0].transpose(3, 2, 0, 1).reshape(8, -1)
            found = np.asarray(operator.input_value(1).get_node().data).reshape(8, -1)
            alike = (
                np.abs((kernel * found).sum(axis=1)) / np.linalg.norm(kernel, axis=1) / np.linalg.norm(found, axis=1)
            )
            np.testing.assert_allclose(alike, 1.0, atol=1e-4)


@pytest.mark.parametrize("precision", ["int8", "int16x8", "int8-dynamic", "int8-weights"])
def test_older_runtimes_find_the_weights_inside_the_flatbuffer(precision: str) -> None:
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAs(exported("plain", "tflite", precision).files["model.tflite"], 0)
    assert not any(model.Buffers(index).Offset() for index in range(model.BuffersLength()))
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        assert code.DeprecatedBuiltinCode() == min(code.BuiltinCode(), 127)


@needs_vnni
@pytest.mark.parametrize("quantization", [Quantization(), Quantization(float_layers=RAISED)])
def test_openvino_runs_the_int8_tflite_file_as_litert_does(quantization: Quantization, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino", reason="the extra openvino is not installed")
    file = exported("plain", "tflite", quantization=quantization)
    path = tmp_path / "model.tflite"
    path.write_bytes(file.files[path.name])
    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = np.concatenate([compiled(image[np.newaxis])[0] for image in images()[1]])
    assert uneven.agreement(got, answers(file, tmp_path)) >= 0.95
