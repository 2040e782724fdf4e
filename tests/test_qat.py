from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("tensorflow_model_optimization", reason="the extra train is not installed")
pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")

import tensorflow as tf
import tf_keras

from benchmarks.rounding import APART, steps_apart
from edgecv import nets
from edgecv.compress.folds import fold
from edgecv.compress.kernels import kernel_of
from edgecv.compress.parts import parts_of
from edgecv.compress.qat import layer_outputs, quantize_aware, set_ranges, strip_ranges
from edgecv.devices import Local, ask
from edgecv.errors import ConfigError, DataError, ModelError
from edgecv.export import to_openvino_trained
from edgecv.export.flatbuffer import Flatbuffer
from edgecv.export.trained import matched, to_tflite_trained
from edgecv.keras_file import load_model, save_model
from edgecv.metadata import read_metadata
from edgecv.nets.layers import Blocks
from edgecv.recipe import Preprocess
from edgecv.target import Target
from edgecv.train.forward import predict, reestimate_batch_norm
from tests.common import needs_vnni
from tests.uneven import run_tflite

layers = tf_keras.layers
SIZE = 32
PREPROCESS = Preprocess(size=SIZE)
LABELS = [str(digit) for digit in range(10)]
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def digits() -> tuple[Images, NDArray[np.int64]]:
    """Handwritten digits of scikit-learn, uint8 `(1797, 32, 32, 3)`, in an order drawn once."""
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn's digits")
    data = datasets.load_digits()
    resized = [
        np.asarray(Image.fromarray((image * 15.9375).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for image in data.images
    ]
    order = np.random.default_rng(0).permutation(len(resized))
    return np.stack(resized)[order][..., np.newaxis].repeat(3, axis=-1), data.target[order]


def normalised(images: Images) -> NDArray[np.float32]:
    return ((images.astype(np.float32) - PREPROCESS.mean) / PREPROCESS.scale).astype(np.float32)


def every_kind() -> Any:
    """A network with each activation, squeeze-excite of both kinds, a sum, a concatenation and all poolings."""
    tf_keras.utils.set_random_seed(1)
    blocks = Blocks(layers, 0.9)
    image = layers.Input((SIZE, SIZE, 3), name="image")
    stem = blocks.conv(image, "stem", channels=16, kernel=3, stride=2, act="hard_swish")
    x = blocks.depthwise(stem, "one_depthwise", act="swish")
    x = blocks.squeeze(x, "one_se", channels=8, act="relu", gate="hard_sigmoid")
    x = blocks.conv(x, "one_project", channels=16, act=None)
    x = added = layers.Add(name="one_add")([stem, x])
    x = blocks.conv(x, "two", channels=24, kernel=3, stride=2, act="relu6")
    x = blocks.squeeze(x, "two_se", channels=8, act="swish", gate="sigmoid")
    side = layers.Conv2D(16, 1, activation="relu", name="side")(layers.AveragePooling2D(name="average")(added))
    x = layers.Concatenate(name="both")([x, side])
    x = layers.MaxPooling2D(name="largest")(x)
    x = layers.SeparableConv2D(32, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return tf_keras.Model(image, layers.Dense(10, name="logits")(x), name="kinds")


def fit(model: Any, images: Images, labels: NDArray[np.int64], *, steps: int, rate: float) -> None:
    """Train as the package's loops do: a traced step that calls the model with `training=True`."""
    optimizer = tf_keras.optimizers.Adam(rate)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function  # type: ignore[untyped-decorator,unused-ignore]
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    random = np.random.default_rng(0)
    for _ in range(steps):
        batch = random.choice(len(images), 64, replace=False)
        step(normalised(images[batch]), labels[batch])


@pytest.fixture(scope="module")
def base(digits: tuple[Images, NDArray[np.int64]]) -> Any:
    model = every_kind()
    fit(model, digits[0][:1200], digits[1][:1200], steps=120, rate=3e-3)
    reestimate_batch_norm(model, digits[0][:1024], PREPROCESS)
    return model


@pytest.fixture(scope="module")
def trained(base: Any, digits: tuple[Images, NDArray[np.int64]]) -> Any:
    """The network after quantization-aware training, for which the kernels' first ranges are too wide at the end."""
    model, left = quantize_aware(base)
    assert left == ()
    set_ranges(model, digits[0][:320], PREPROCESS)
    fit(model, digits[0][:1200], digits[1][:1200], steps=30, rate=1e-3)
    return model


@pytest.fixture(scope="module")
def content(trained: Any) -> bytes:
    return to_tflite_trained(trained, preprocess=PREPROCESS, labels=LABELS).files["model.tflite"]


def test_the_copy_keeps_names_weights_and_contract(base: Any) -> None:
    model, _ = quantize_aware(base)
    assert {layer.name for layer in base.layers} <= {layer.name for layer in model.layers}
    assert (model.input_shape, model.output_shape) == (base.input_shape, base.output_shape)
    for layer in base.layers:
        if kernel_of(layer) is not None:
            np.testing.assert_array_equal(kernel_of(model.get_layer(layer.name)), kernel_of(layer))


def test_training_reaches_all_variables_of_the_plain_network(base: Any, trained: Any) -> None:
    assert len(trained.trainable_variables) == len(base.trainable_variables)
    before = {variable.name: variable.numpy() for variable in base.trainable_variables}
    same = [v.name for v in trained.trainable_variables if np.array_equal(before.get(v.name, 0), v)]
    assert same == []


def test_batch_norm_keeps_its_statistics_in_training(base: Any, trained: Any) -> None:
    moving = {weight.name: weight.numpy() for weight in base.weights if "moving" in weight.name}
    kept = {weight.name: weight.numpy() for weight in trained.weights if "moving" in weight.name}
    assert moving.keys() == kept.keys()
    assert all(np.array_equal(moving[name], kept[name]) for name in moving)


def test_the_plain_network_and_the_arrays_give_the_trained_one_back(base: Any, trained: Any, tmp_path: Path) -> None:
    save_model(strip_ranges(trained, base), tmp_path / "model.safetensors")
    again, _ = quantize_aware(load_model(tmp_path / "model.safetensors"))
    again.set_weights(trained.get_weights())
    image = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(image), trained(image))


def test_first_ranges_are_the_same_each_time_and_those_of_the_data(
    base: Any, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    first, second = quantize_aware(base)[0], quantize_aware(base)[0]
    for model in (first, second):
        set_ranges(model, digits[0][:40], PREPROCESS)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    plain = predict(base, digits[0][1200:], PREPROCESS).argmax(axis=1)
    assert (predict(first, digits[0][1200:], PREPROCESS).argmax(axis=1) == plain).mean() >= 0.97


def test_calibration_images_of_another_size_are_refused(base: Any) -> None:
    with pytest.raises(DataError, match="calibration images"):
        set_ranges(quantize_aware(base)[0], np.zeros((2, 16, 16, 3), np.uint8), PREPROCESS)


def test_top_1_of_the_file_is_that_of_the_keras_network(
    trained: Any, content: bytes, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    images, labels = digits[0][1200:], digits[1][1200:]
    keras, tflite = predict(trained, images, PREPROCESS), run_tflite(content, images)
    right = [(found.argmax(axis=1) == labels).mean() for found in (keras, tflite)]
    assert right[0] > 0.9
    assert abs(right[0] - right[1]) <= 0.01
    assert (keras.argmax(axis=1) == tflite.argmax(axis=1)).mean() >= 0.985


def test_each_layer_alone_is_within_a_step_of_the_files(
    trained: Any, content: bytes, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    apart = steps_apart(content, trained, digits[0][1200:1204], PREPROCESS)
    assert list(apart) == list(layer_outputs(trained))
    assert {name: steps for name, steps in apart.items() if steps > APART} == {}


def test_a_wrong_range_is_named_as_the_first_layer_apart(
    trained: Any, content: bytes, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    variable = next(w for w in trained.get_layer("one_project_bn").weights if "output_max" in w.name)
    right = variable.numpy()
    try:
        variable.assign(right / 2)
        apart = steps_apart(content, trained, digits[0][1200:1204], PREPROCESS)
    finally:
        variable.assign(right)
    assert [name for name, steps in apart.items() if steps > APART] == ["one_project_bn"]


def test_all_of_the_file_but_the_softmax_is_int8(content: bytes) -> None:
    operators = [(operator.kind, operator.output.dtype) for operator in Flatbuffer(content).operators]
    assert operators[0] == ("QUANTIZE", "int8")
    assert operators[-2:] == [("DEQUANTIZE", "float32"), ("SOFTMAX", "float32")]
    assert {dtype for _, dtype in operators[:-2]} == {"int8"}
    kinds = {kind for kind, _ in operators[1:-2]}
    assert not {"HARD_SWISH", "QUANTIZE"} & kinds
    assert {"ADD", "CONCATENATION", "DEPTHWISE_CONV_2D", "LOGISTIC", "MEAN", "MUL"} <= kinds


def test_kernels_in_the_file_are_those_of_training_folded_with_batch_norm(trained: Any, content: bytes) -> None:
    """To the bit: round(kernel / (largest of its channel / 127)), with the sign of batch norm's scale."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    stored = {x["name"]: x["index"] for x in interpreter.get_tensor_details()}
    operators = {operator.output.name: operator for operator in Flatbuffer(content).operators}
    tensors = matched(Flatbuffer(content), trained)
    for name, last in (("stem", "stem_bn"), ("one_depthwise", "one_depthwise_bn"), ("two", "two_relu")):
        layer = trained.get_layer(f"{name}_conv")
        kernel = next(w for w in layer.weights if "kernel" in w.name).numpy()
        kernel = kernel.reshape(-1, kernel.shape[-1] * (kernel.shape[-2] if "depthwise" in name else 1))
        gamma = next(w for w in trained.get_layer(f"{name}_bn").weights if "gamma" in w.name).numpy()
        expected = np.round(kernel / (np.abs(kernel).max(axis=0) / 127)) * np.sign(gamma)
        got = interpreter.get_tensor(stored[operators[tensors[last]].inputs[1].name])
        got = got.reshape(-1, got.shape[-1]) if "depthwise" in name else got.reshape(got.shape[0], -1).T
        order = kernel.shape
        np.testing.assert_array_equal(got.reshape(order), expected.reshape(order))


def test_zeros_of_a_kernel_stay_zero_in_the_file(base: Any, digits: tuple[Images, NDArray[np.int64]]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    model, _ = quantize_aware(base)
    set_ranges(model, digits[0][:64], PREPROCESS)
    kernel = kernel_of(model.get_layer("two_conv"))
    mask = np.random.default_rng(0).random(kernel.shape) < 0.5
    kernel.assign(kernel * mask)
    content = to_tflite_trained(model, preprocess=PREPROCESS, labels=LABELS).files["model.tflite"]
    operators = {operator.output.name: operator for operator in Flatbuffer(content).operators}
    name = operators[matched(Flatbuffer(content), model)["two_relu"]].inputs[1].name
    interpreter = Interpreter(model_content=content)
    index = next(detail["index"] for detail in interpreter.get_tensor_details() if detail["name"] == name)
    assert (interpreter.get_tensor(index).transpose(1, 2, 3, 0)[~mask] == 0).all()


def test_the_normalisation_is_the_scale_of_uint8_pixels(content: bytes) -> None:
    graph = Flatbuffer(content)
    assert (graph.inputs[0].dtype, graph.outputs[0].dtype) == ("uint8", "float32")
    assert graph.input_quantization == (1 / 128, 127)


def test_the_same_network_gives_the_same_bytes_with_labels_in_them(
    trained: Any, content: bytes, tmp_path: Path
) -> None:
    again = to_tflite_trained(trained, preprocess=PREPROCESS, labels=LABELS)
    assert again.files["model.tflite"] == content
    assert [skipped.layer for skipped in again.skipped] == ["softmax"]
    (tmp_path / "model.tflite").write_bytes(content)
    values = read_metadata(tmp_path / "model.tflite")
    assert values is not None
    assert (values["precision"], values["labels"]) == ("int8", LABELS)


@pytest.fixture(scope="module")
def ir(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The network's .xml and .bin."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    folder = tmp_path_factory.mktemp("ir")
    exported = to_openvino_trained(trained, preprocess=PREPROCESS, labels=LABELS)
    assert exported.files == to_openvino_trained(trained, preprocess=PREPROCESS, labels=LABELS).files
    assert [(spec.name, spec.dtype) for spec in exported.inputs + exported.outputs] == [
        *(("image", "uint8"), ("probabilities", "float32")),
    ]
    assert [skipped.layer for skipped in exported.skipped] == ["softmax"]
    for name, content in exported.files.items():
        (folder / name).write_bytes(content)
    return folder / "model.xml", folder / "model.bin"


@needs_vnni
def test_openvino_runs_every_convolution_in_int8_and_gives_the_networks_answers(
    trained: Any, ir: tuple[Path, ...], digits: tuple[Images, NDArray[np.int64]], tmp_path: Path
) -> None:
    images, labels = digits[0][1200:], digits[1][1200:]
    np.save(tmp_path / "images.npy", images)
    target = Target(name="here", runtime="openvino", threads=1, precision="float32")
    found = tmp_path / "found.npy"
    answer = ask(Local(target), ir, do="predict", images=tmp_path / "images.npy", outputs=found)
    assert answer["executed_precision"] == "int8"
    got, expected = np.load(found), predict(trained, images, PREPROCESS)
    right = [(one.argmax(axis=1) == labels).mean() for one in (got, expected)]
    # It fuses operators, and leaves out a rounding between them: images on the edge of two classes may fall otherwise.
    assert abs(right[0] - right[1]) <= 0.015
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.98
    assert np.abs(got - expected).mean() < 0.003


def test_an_ir_with_trained_ranges_names_its_layers_and_carries_its_labels(trained: Any, ir: tuple[Path, ...]) -> None:
    values = read_metadata(ir[0])
    assert values is not None
    assert (values["precision"], values["labels"]) == ("int8", LABELS)
    text = ir[0].read_text()
    kernels = [layer.name for layer in trained.layers if kernel_of(layer) is not None]
    assert [name for name in kernels if f'name="{name}"' not in text] == []


def test_a_mean_that_is_no_pixel_value_is_refused(trained: Any) -> None:
    with pytest.raises(ConfigError, match="zero point"):
        to_tflite_trained(trained, preprocess=Preprocess(size=SIZE, mean=-20.0, scale=300.0), labels=LABELS)


def small(*middle: Any) -> Any:
    image = x = layers.Input((8, 8, 3), name="image")
    for layer in middle:
        x = layer(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(image, layers.Dense(2, name="logits")(x))


def test_a_layer_with_weights_and_no_int8_form_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="slope") as error:
        quantize_aware(small(layers.Conv2D(4, 3), layers.PReLU(name="slope")))
    assert "PReLU" in (error.value.got or "")


def test_code_in_a_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="doubled"):
        quantize_aware(small(layers.Lambda(lambda x: 2 * x, name="doubled")))


def test_a_layer_called_twice_is_refused() -> None:
    conv = layers.Conv2D(3, 3, padding="same", name="again")
    with pytest.raises(ModelError, match="again"):
        quantize_aware(small(conv, conv))


def test_a_batch_norm_behind_a_sum_is_refused() -> None:
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Add()([layers.Conv2D(4, 1)(image), layers.Conv2D(4, 1)(image)])
    x = layers.GlobalAveragePooling2D(name="pool")(layers.BatchNormalization(name="norm")(x))
    with pytest.raises(ModelError, match="norm can't be folded"):
        quantize_aware(tf_keras.Model(image, layers.Dense(2, name="logits")(x)))


def test_an_activation_without_an_int8_form_is_left_in_float_and_said_to_be() -> None:
    model, left = quantize_aware(small(layers.Conv2D(4, 3, name="conv"), layers.ELU(name="elu")))
    assert [skipped.layer for skipped in left] == ["elu"]
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    preprocess = Preprocess.model_construct(**{**PREPROCESS.model_dump(), "size": 8})
    set_ranges(model, images, preprocess)
    exported = to_tflite_trained(model, preprocess=preprocess, labels=("a", "b"))
    assert [skipped.layer for skipped in exported.skipped] == ["elu", "softmax"]
    answers = run_tflite(exported.files["model.tflite"], images)
    np.testing.assert_allclose(answers, predict(model, images, preprocess), atol=0.02)


def test_a_nested_network_is_flattened() -> None:
    inner_image = layers.Input((6, 6, 4))
    inner = tf_keras.Model(inner_image, layers.ReLU(name="inner_relu")(layers.Conv2D(5, 1, name="inner")(inner_image)))
    base = small(layers.Conv2D(4, 3, name="conv"), inner)
    model, _ = quantize_aware(base)
    assert "inner_relu" in layer_outputs(model)
    again = strip_ranges(model, base)
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(image), base(image))


def conv(x: Any, channels: int, stride: int = 1, **settings: Any) -> Any:
    x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False, **settings)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def residual(x: Any) -> Any:
    x = conv(x, 16, 2)
    y = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(conv(x, 16)))
    return layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y, conv(x, 16)])))


def dense(x: Any) -> Any:
    x = layers.Flatten()(conv(layers.AveragePooling2D(2)(x), 8, 2))
    return layers.ReLU()(layers.BatchNormalization()(layers.Dense(16)(x)))


def inception(x: Any) -> Any:
    x = conv(x, 8, 2)
    branches = [conv(x, 8), layers.MaxPooling2D(3, 1, padding="same")(x), conv(conv(x, 4), 8), x]
    return layers.GlobalAveragePooling2D()(layers.Concatenate()(branches))


def squeezed(x: Any) -> Any:
    x = conv(layers.Rescaling(0.5, 0.25)(x), 8, 2, dilation_rate=1)
    y = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(x))
    y = layers.Reshape((1, 1, 8))(layers.Dense(8, activation="sigmoid")(y))
    return layers.Flatten()(layers.Activation("tanh")(conv(layers.Multiply()([x, y]), 8, 4)))


@pytest.mark.parametrize("features", [residual, dense, inception, squeezed])
def test_a_users_network_of_plain_layers_gives_the_same_from_the_file(
    features: Any, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((SIZE, SIZE, 3), name="image")
    base = tf_keras.Model(image, layers.Dense(10, name="logits")(features(image)), name=features.__name__)
    reestimate_batch_norm(base, digits[0][:128], PREPROCESS)
    model, left = quantize_aware(base)
    set_ranges(model, digits[0][:128], PREPROCESS)
    exported = to_tflite_trained(model, preprocess=PREPROCESS, labels=LABELS)
    assert (left, [skipped.layer for skipped in exported.skipped]) == ((), ["softmax"])
    answers = run_tflite(exported.files["model.tflite"], digits[0][:64])
    np.testing.assert_allclose(answers, predict(model, digits[0][:64], PREPROCESS), atol=0.02)
    assert np.abs(answers - predict(base, digits[0][:64], PREPROCESS)).max() < 0.1


@pytest.mark.parametrize("net", nets.names())
def test_every_network_is_rounded_to_the_end_with_nothing_left_in_float(net: str) -> None:
    parts = parts_of(nets.build(net, size=32, classes=3))
    folds = fold(parts)
    assert folds.float == folds.same == {}
    assert {"pool", "logits"} <= folds.rounded
    operators = {"mobilenet_v3_small": 142, "efficientnet_b0": 233, "mobilenet_v2": 64, "separable_cnn": 17}
    assert len(folds.rounded) == operators.get(net, len(folds.rounded))
