"""Layer-by-layer comparison: its arithmetic, and files that were made to be wrong in one layer."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgecv.errors import DataError, DeviceError, ModelError, UsageError
from edgecv.explain import Quantised, explain, explain_file, layer_noise, layers, verdict, worst
from edgecv.explain.graph import Tensor, match
from edgecv.explain.network import Network
from edgecv.explain.noise import LIMIT_DB, Tally, snr_db
from edgecv.recipe import Preprocess
from edgecv.target import Target
from tests.common import needs_vnni

SIDE = 32
SETTINGS = {"preprocess": Preprocess(size=SIDE), "labels": tuple("abcde")}
FORMATS = {"tflite": "litert", "openvino": "openvino"}
INT8_FORMATS = ["tflite", pytest.param("openvino", marks=needs_vnni)]


# The arithmetic

numbers = st.integers(-800, 800).map(lambda hundredths: np.float32(hundredths / 100))
values = arrays.arrays(np.float32, (3, 2, 4), elements=numbers)


def one(file, reference=None, expected=None, quantised=None):
    file = np.asarray(file, np.float32)
    reference = file if reference is None else np.asarray(reference, np.float32)
    expected = reference if expected is None else np.asarray(expected, np.float32)
    ranges = {"x": quantised} if quantised else None
    return explain({"x": file}, {"x": reference}, {"x": expected}, quantised=ranges)[0]


@given(signal=st.floats(1e-6, 1e6), db=st.floats(-100, 100))
def test_the_ratio_is_that_of_powers_in_decibels(signal, db):
    assert snr_db(signal, signal / 10 ** (db / 10)) == pytest.approx(db, abs=1e-6)


@pytest.mark.parametrize(
    ("signal", "noise", "db"),
    [(1, 0, LIMIT_DB), (0, 0, LIMIT_DB), (0, 1, -LIMIT_DB), (1, math.inf, -LIMIT_DB), (1, math.nan, -LIMIT_DB)],
)
def test_no_noise_no_signal_and_no_number_have_a_figure_too(signal, noise, db):
    assert snr_db(signal, noise) == db


@given(reference=values, noise=values)
def test_noise_is_the_files_difference_from_the_reference(reference, noise):
    found = one(reference + noise, reference)
    difference = (reference + noise).astype(np.float64) - reference
    assert found.snr_db == pytest.approx(snr_db((reference.astype(float) ** 2).sum(), (difference**2).sum()), abs=1e-3)


@given(got=values, reference=values, expected=values)
def test_photographs_added_a_few_at_a_time_give_the_same_figures(got, reference, expected):
    whole, parts = (Tally(4, Quantised((-4.0,), (4.0,), 256)) for _ in range(2))
    whole.add(got, reference, expected)
    for row in range(3):
        parts.add(got[row : row + 1], reference[row : row + 1], expected[row : row + 1])
    left, right = (dataclasses.asdict(tally.result("x")) for tally in (whole, parts))
    assert left.pop("quantised") == right.pop("quantised")
    for key, value in left.items():
        assert value == right[key] or value == pytest.approx(right[key], abs=1e-4), key


@given(got=values, scale=st.sampled_from([0.25, 2.0, 16.0]), reference=values)
def test_the_unit_of_a_layer_does_not_matter(got, scale, reference):
    left, right = one(got, reference), one(scale * got, scale * reference)
    assert (left.snr_db, left.channel_snr_db) == pytest.approx((right.snr_db, right.channel_snr_db), abs=1e-4)


def test_noise_that_the_inputs_bring_is_told_from_a_layers_own():
    float_, expected = np.full((2, 1, 1), 10.0), np.full((2, 1, 1), 9.0)
    found = one(expected + 0.09, float_, expected)
    assert found.own_snr_db == pytest.approx(40, abs=0.01)
    assert found.inherited_snr_db == pytest.approx(20, abs=0.01)
    assert found.snr_db == pytest.approx(20 * math.log10(10 / 0.91), abs=0.01)


def test_one_loud_channel_does_not_hide_the_noise_of_the_others():
    reference = np.ones((2, 8, 5))
    reference[..., 0] = 1e4
    found = one(reference + 1.0, reference)
    assert found.own_snr_db > 70
    assert found.channel_snr_db == found.apart_db == pytest.approx(0.0)


def test_saturation_counts_an_end_only_where_the_float_network_goes_beyond_it():
    quantised = Quantised((0.0,), (2.55,), 256, -128)
    reference = np.array([0.0, 0.0, 1.0, 5.0]).reshape(1, 4, 1)
    found = one(np.clip(reference, 0, 2.55), reference, quantised=quantised)
    assert (found.saturation, found.beyond) == (0.25, 0.25)
    within = one(reference / 2, reference / 2, quantised=quantised)
    assert (within.saturation, within.beyond) == (0.0, 0.0)


@given(got=values)
def test_values_within_the_range_are_never_saturated(got):
    assert one(got, quantised=Quantised((-8.0,), (8.0,), 256)).saturation == 0


def test_a_range_for_each_channel_is_held_against_its_own_channel():
    quantised = Quantised((0.0, 0.0), (1.0, 10.0), 256)
    found = one(np.array([[[1.0, 5.0]]]), np.array([[[9.0, 5.0]]]), quantised=quantised)
    assert (found.saturation, found.beyond) == (0.5, 0.5)


def test_a_channel_that_never_changes_is_dead_on_the_side_where_it_does_not():
    reference = np.random.default_rng(0).random((3, 4, 3))
    file = reference.copy()
    file[..., 1] = 0.5
    reference[..., 2] = file[..., 2] = 0.0
    found = one(file, reference)
    assert (found.dead, found.dead_float, found.channels) == (2, 1, 3)


def test_values_that_are_no_numbers_are_all_noise_and_still_json():
    import json

    found = one(np.full((2, 2, 2), np.nan), np.ones((2, 2, 2)))
    assert found.apart_db == -LIMIT_DB
    json.loads(json.dumps(found.to_json(), allow_nan=False))


def test_layers_are_ranked_by_the_noise_that_they_add():
    found = [dataclasses.replace(one(np.ones((1, 1, 1))), layer=str(db), own_snr_db=db) for db in (30.0, 10.0, 20.0)]
    assert [layer.layer for layer in worst(found, 2)] == ["10.0", "20.0"]


def test_values_of_other_shapes_are_refused():
    with pytest.raises(UsageError, match="can't compare layer x"):
        one(np.ones((2, 3)), np.ones((2, 4)))


# Networks and files


@pytest.fixture(scope="module")
def photographs():
    """48 cuts of scikit-learn's two photographs, uint8 (48, 32, 32, 3)."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    images, random = load_sample_images().images, np.random.default_rng(0)
    cuts = []
    for number in range(48):
        side, image = int(random.integers(150, 400)), images[number % 2]
        top, left = (int(random.integers(0, size - side)) for size in image.shape[:2])
        cut = image[top : top + side, left : left + side]
        cuts.append(np.asarray(Image.fromarray(cut).resize((SIDE, SIDE))))
    return np.stack(cuts)


def little(*, odd=None, other="relu6"):
    """A stem, three blocks, one with a sum, and a head; the activation of the layer `odd` is `other`."""
    from edgecv.nets.layers import Blocks, keras

    tf_keras = keras()
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers

    class Odd(Blocks):
        def activate(self, x, name, act):
            if name == odd:
                return x if other is None else super().activate(x, name, other)
            return super().activate(x, name, act)

    blocks = Odd(layers, 0.9)
    image = tf_keras.Input((SIDE, SIDE, 3), name="image")
    x = blocks.conv(image, "stem", channels=16, kernel=3, stride=2)
    x = blocks.bottleneck(x, "block0", channels=16, expand=1, kernel=3, stride=1)
    x = blocks.bottleneck(x, "block1", channels=24, expand=4, kernel=3, stride=2)
    x = blocks.bottleneck(x, "block2", channels=24, expand=4, kernel=3, stride=1)
    x = layers.GlobalAveragePooling2D(name="pool")(blocks.conv(x, "head", channels=64))
    return tf_keras.Model(image, layers.Dense(5, name="logits")(layers.Dropout(0.2, name="dropout")(x)), name="little")


@pytest.fixture(scope="module")
def sound(photographs):
    """The network with random weights, and batch norms that use the range of their activations."""
    import tf_keras

    from edgecv.train.forward import reestimate_batch_norm

    model, random = little(), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.gamma.assign(random.uniform(1, 3, layer.gamma.shape))
            layer.beta.assign(random.normal(0.5, 0.5, layer.beta.shape))
    reestimate_batch_norm(model, photographs, SETTINGS["preprocess"])
    return model


def like(sound, **changes):
    model = little(**changes)
    model.set_weights(sound.get_weights())
    return model


def with_other_activation(sound):
    return like(sound, odd="block1_expand", other="relu"), sound


def without_activation(sound):
    return like(sound, odd="block1_expand", other=None), sound


def with_a_dead_layer(sound):
    model = like(sound)
    kernel = model.get_layer("block1_depthwise_conv").depthwise_kernel
    kernel.assign(np.zeros_like(kernel))
    return model, sound


def with_an_exploding_channel(sound):
    """Both networks have it, and what reads it takes it back: float files are as good as before."""
    model = like(sound)
    norm, reader = model.get_layer("block1_project_bn"), model.get_layer("block2_expand_conv").kernel
    for weight in (norm.gamma, norm.beta):
        weight.assign(np.where(np.arange(24) == 3, 1000, 1) * weight.numpy())
    reader.assign(np.where(np.arange(24) == 3, 0.001, 1)[:, None] * reader.numpy())
    return model, model


def written(model, format, folder, *, precision, images):
    from edgecv import export

    make = {"tflite": export.to_tflite, "openvino": export.to_openvino}[format]
    exported = make(model, precision, **SETTINGS, calibration=images if precision == "int8" else None)
    for name, content in exported.files.items():
        (folder / name).write_bytes(content)
    return tuple(folder / name for name in exported.files)


def compared(files, model, images):
    runtime = "litert" if files[0].suffix == ".tflite" else "openvino"
    target = Target(name="here", runtime=runtime)
    return layer_noise(files, model, images, preprocess=SETTINGS["preprocess"], target=target)


@pytest.fixture(scope="module")
def int8(sound, photographs, tmp_path_factory):
    """The sound network's int8 files by format."""
    folder = tmp_path_factory.mktemp("int8")
    return {one: written(sound, one, folder, precision="int8", images=photographs) for one in FORMATS}


@pytest.mark.parametrize("format", INT8_FORMATS)
@pytest.mark.parametrize(
    ("broken", "layer"),
    [
        (with_other_activation, "block1_expand_relu"),
        (without_activation, "block1_expand_relu"),
        (with_a_dead_layer, "block1_depthwise_relu"),
        (with_an_exploding_channel, "block1_project_bn"),
    ],
)
def test_the_layer_that_was_broken_is_named(format, broken, layer, sound, photographs, tmp_path):
    model, reference = broken(sound)
    files = written(model, format, tmp_path, precision="int8", images=photographs)
    found = compared(files, reference, photographs)
    assert verdict(found).startswith(f"{layer} is the first layer apart: ")


@pytest.mark.parametrize("format", INT8_FORMATS)
def test_no_layer_of_a_sound_file_stands_apart(format, int8, sound, photographs):
    found = compared(int8[format], sound, photographs)
    assert verdict(found).startswith("no layer stands apart: ")
    assert min(layer.own_snr_db for layer in found) > 20
    assert all(layer.quantised for layer in found if layer.layer != "logits")


def test_the_causes_of_a_dead_layer_and_of_another_activation_are_said(sound, photographs, tmp_path):
    model, _ = with_a_dead_layer(sound)
    files = written(model, "tflite", tmp_path, precision="float32", images=photographs)
    assert "64 of 64 channels dead (0 in the float network)" in verdict(compared(files, sound, photographs))
    said = verdict(compared(files, model, photographs))
    assert said.startswith("block1_depthwise_relu is dead in the float network already: ")
    files = written(with_other_activation(sound)[0], "tflite", tmp_path, precision="float32", images=photographs)
    assert "beyond the float layer's range" in verdict(compared(files, sound, photographs))


def test_clipping_by_a_range_that_is_too_narrow_is_counted(sound, photographs, tmp_path):
    dark = photographs // 8
    files = written(sound, "openvino", tmp_path, precision="int8", images=dark)
    assert max(layer.beyond for layer in compared(files, sound, photographs)) > 0.01


def test_what_does_not_fit_on_the_disk_at_once_is_run_by_several_processes(int8, sound, photographs, monkeypatch):
    whole = compared(int8["tflite"], sound, photographs[:6])
    sizes = []
    traced = layers._traces
    monkeypatch.setattr(layers, "MOST_BYTES", 1_000_000)

    def counted(*arguments):
        for part, stored in traced(*arguments):
            sizes.append(len(part))
            yield part, stored

    monkeypatch.setattr(layers, "_traces", counted)
    parts = compared(int8["tflite"], sound, photographs[:6])
    assert len(sizes) > 1
    assert sum(sizes) == 6
    assert [one.snr_db for one in parts] == pytest.approx([one.snr_db for one in whole], abs=1e-3)


def test_a_tflite_file_for_openvino_is_shown_by_litert_which_keeps_its_names(int8, sound, photographs):
    settings = {"preprocess": SETTINGS["preprocess"], "target": Target(name="here", runtime="openvino")}
    found = layer_noise(int8["tflite"], sound, photographs[:4], **settings)
    assert found == compared(int8["tflite"], sound, photographs[:4])


NETS = ("separable_cnn", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("net", NETS)
def test_every_layer_of_every_network_is_found_and_is_the_same_in_float(net, format, photographs, tmp_path):
    from edgecv import nets
    from edgecv.nets.layers import keras

    keras().utils.set_random_seed(0)
    model = nets.build(net, size=SIDE, classes=5)
    files = written(model, format, tmp_path, precision="float32", images=photographs)
    found = compared(files, model, photographs[:2])
    shown = {part for layer in found for part in layer.parts}
    assert set(Network(model).weighted) <= shown
    assert min(layer.own_snr_db for layer in found) > 80


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_another_network_is_refused(format, int8, photographs):
    from edgecv import nets

    for other in (nets.build("separable_cnn", size=SIDE, classes=5), nets.build("mobilenet_v2", size=SIDE, classes=5)):
        with pytest.raises(ModelError, match="is not a version of the network"):
            compared(int8[format], other, photographs)


def test_photographs_of_another_size_are_refused(int8, sound):
    with pytest.raises(DataError, match="not photographs to compare"):
        compared(int8["tflite"], sound, np.zeros((4, 16, 16, 3), np.uint8))


def test_a_file_that_has_changed_is_refused_before_a_runtime_loads_it(int8, sound, photographs):
    target = Target(name="here", runtime="litert")
    with pytest.raises(DeviceError) as caught:
        layer_noise(int8["tflite"], sound, photographs, **{
            "preprocess": SETTINGS["preprocess"], "target": target, "digests": ("0" * 64,)
        })  # fmt: skip
    assert "not the file it was" in caught.value.got


def tensor(number, name, *inputs, kind="CONV_2D", shape=(1, 16, 16, 16)):
    return Tensor(number, kind, name, shape, inputs)


def test_names_of_quantization_aware_training_and_of_fused_layers_are_read(sound):
    names = {
        "net/quant_stem_relu/Relu6;net/quant_stem_bn/FusedBatchNormV3;net/quant_stem_conv/Conv2D1": "stem_relu",
        "little/quant_stem_conv/Conv2D": "stem_relu",
        "little/stem_bn/batchnorm/add_1": "stem_relu",
        "tfl.quantize": None,
    }
    for name, layer in names.items():
        found = match([tensor(1, name)], Network(sound), channels_first=False)
        assert [one.layer for one in found] == ([layer] if layer else []), name


def test_an_activation_with_an_operator_of_its_own_is_not_counted_to_the_layer_before_it(sound):
    chain = [tensor(1, "little/stem_bn/FusedBatchNormV3"), tensor(2, "little/stem_relu/Relu6", 1, kind="RELU6")]
    found = match(chain, Network(sound), channels_first=False)
    assert [(one.layer, one.tensor.id) for one in found] == [("stem_bn", 1), ("stem_relu", 2)]


def test_a_layer_is_not_given_to_a_tensor_of_another_shape(sound):
    wrong = tensor(1, "little/stem_relu/Relu6", shape=(1, 8, 8, 16))
    assert match([wrong], Network(sound), channels_first=False) == ()


# A file that lies somewhere


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory):
    """Photographs of two classes as PNGs."""
    from PIL import Image

    root = tmp_path_factory.mktemp("photographs")
    for number, image in enumerate(photographs[:12]):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return root


@pytest.fixture(scope="module")
def against(sound, tmp_path_factory):
    from edgecv import keras_file

    path = tmp_path_factory.mktemp("keras") / "model.safetensors"
    keras_file.save_model(sound, path)
    return path


@pytest.mark.parametrize("format", INT8_FORMATS)
def test_a_file_is_explained_with_the_preprocessing_that_it_carries(format, int8, against, folder):
    found = explain_file(int8[format][0], against, source=str(folder), images=8)
    assert (found.images, found.missing) == (8, ())
    assert "no layer stands apart" in found.verdict


def test_a_file_without_metadata_is_refused(int8, against, folder, tmp_path):
    path = tmp_path / "bare.tflite"
    path.write_bytes(int8["tflite"][0].read_bytes()[:2000])
    with pytest.raises(ModelError, match="does not say how photographs are prepared"):
        explain_file(path, against, source=str(folder))


def test_a_damaged_file_is_the_child_processs_problem_alone(int8, against, folder, tmp_path):
    content = bytearray(int8["tflite"][0].read_bytes())
    content[:64] = bytes(64)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"damaged\.tflite"):
        explain_file(path, against, source=str(folder))
