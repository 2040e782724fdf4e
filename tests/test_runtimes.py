import contextlib
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from edgecv import worker
from edgecv.devices import Local, ask
from edgecv.errors import DeviceError, MissingError, ModelError
from edgecv.runtimes import RUNTIMES, model_files, require, runtime_for
from edgecv.target import Measure, Target
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
FILES = {"litert": "tiny.tflite", "openvino": "tiny.xml"}


def device(runtime, **measure):
    return Local(Target(name="here", runtime=runtime, measure=Measure(seconds=0.1, warmup_seconds=0.05, **measure)))


@pytest.fixture
def onnx(tmp_path):
    """A small .onnx file made elsewhere: one matrix product on float32 `(batch, 4)`."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [weight],
    )
    path = tmp_path / "product.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("runtime", FILES)
def test_a_model_is_described_by_its_own_runtime(runtime):
    answer = ask(device(runtime), model_files(DATA / FILES[runtime]), do="describe")
    assert [answer[side][0]["shape"] for side in ("inputs", "outputs")] == [[1, 16, 16, 3], [1, 3]]
    assert [answer[side][0]["dtype"] for side in ("inputs", "outputs")] == ["uint8", "float32"]
    assert answer["executed_precision"] == "float32"


def test_an_int8_file_is_seen_to_run_in_int8():
    assert ask(device("litert"), (DATA / "tiny-int8.tflite",), do="describe")["executed_precision"] == "int8"


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
@pytest.mark.parametrize(("name", "precision"), [("tiny-int16x8", "int16x8"), ("tiny-integers", "int8")])
def test_what_a_layer_computes_in_is_read_from_its_activation_and_its_weight(runtime, name, precision):
    if runtime == "tflm":
        pytest.importorskip("tflite_micro", reason="needs the extra micro")
    # Not by a job: it would run the file, which begins with an operator that TFLM does not have for uint8.
    code = (
        "import sys\nfrom edgecv import worker\n"
        "model = worker.RUNTIMES[sys.argv[1]](sys.argv[2], {'do': 'describe', 'threads': 1})\n"
        "print(*set(model.executed()))"
    )
    argv = [sys.executable, "-c", code, runtime, str(DATA / f"{name}.tflite")]
    child = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout.split() == [precision]


@pytest.mark.parametrize(
    ("types", "precision"),
    [
        (["float32", "float32"], "float32"),
        (["float32", "int8"], "int8-dynamic"),
        (["int16", "int8", "int64"], "int16x8"),
        (["int8", "int4"], "int8"),
    ],
)
def test_operands_of_two_types_have_a_name(types, precision):
    assert worker.computed_in("CONV_2D", types) == precision
    assert worker.computed_in("TRANSPOSE_CONV", ["int32", types[1], types[0]]) == precision


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_integers_are_stored_as_the_probabilities_that_they_stand_for(runtime, images, tmp_path):
    require(runtime)
    files = (DATA / "tiny-integers.tflite",)
    answer = ask(device(runtime), files, do="predict", images=images, outputs=tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    assert (answer["outputs"][0]["dtype"], found.dtype) == ("int8", np.float32)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=2 / 256)
    assert (found * 256 == np.rint(found * 256)).all()


def test_onnx_runtimes_profile_is_not_written_to_the_current_folder(onnx, tmp_path, monkeypatch):
    (folder := tmp_path / "gone").mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()  # nothing can be written to it
    assert ask(device("onnxruntime"), (onnx,), do="describe")["executed_precision"] == "float32"


def test_an_onnx_file_is_run_by_onnx_runtime_and_by_openvino(onnx):
    for runtime in ("onnxruntime", "openvino"):
        answer = ask(device(runtime), (onnx,), do="bench")
        assert answer["inputs"][0]["shape"] == [1, 4]
        assert len(answer["latencies_ms"]) > 10
    assert ask(device("onnxruntime"), (onnx,), do="describe")["executed_precision"] == "float32"


def test_litert_and_openvino_give_the_same_probabilities(images, tmp_path):
    outputs = []
    for runtime, name in FILES.items():
        outputs.append(tmp_path / f"{runtime}.npy")
        ask(device(runtime), model_files(DATA / name), do="predict", images=images, outputs=outputs[-1])
    first, second = (np.load(path) for path in outputs)
    assert first.shape == (20, 3)
    np.testing.assert_allclose(first.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("runtime", FILES)
def test_a_bench_times_load_first_and_steady_invocations(runtime):
    answer = ask(device(runtime), model_files(DATA / FILES[runtime]), do="bench")
    assert answer["init_ms"] > answer["first_ms"] > 0
    assert 0 < min(answer["latencies_ms"]) < 10
    assert 1e7 < answer["peak_rss_bytes"] < 1e9


def test_the_peak_memory_is_the_workers_not_the_parents():
    ballast = np.ones(60_000_000)
    answer = ask(device("litert"), (DATA / "tiny.tflite",), do="bench")
    assert answer["peak_rss_bytes"] < ballast.nbytes / 2


def test_a_bit_flip_is_refused_before_a_runtime_loads_it(tiny, tmp_path):
    from edgecv.artifact import digest_files

    path = tmp_path / "flipped.tflite"
    content = bytearray(tiny.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DeviceError) as caught:
        ask(device("litert"), (path,), do="describe", digests=(digest_files(tiny),))
    assert "not the file it was" in caught.value.got


@pytest.mark.parametrize("runtime", FILES)
@pytest.mark.parametrize("content", [b"", b"not a model", bytes(4096)])
def test_a_file_that_is_no_model_is_an_error_that_names_it(runtime, content, tmp_path):
    path = tmp_path / FILES[runtime]
    path.write_bytes(content)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(DeviceError, match=path.name):
        ask(device(runtime), model_files(path), do="describe")


def test_a_damaged_model_takes_down_only_the_child(tiny, tmp_path):
    rng = np.random.default_rng(0)
    answered = []
    for number in range(12):
        content = bytearray(tiny.read_bytes())
        for place in rng.integers(0, len(content), 20):
            content[place] = rng.integers(256)
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(content)
        with contextlib.suppress(DeviceError):
            answered.append(ask(device("litert", timeout_seconds=20.0), (path,), do="describe"))
    assert len(answered) < 12
    assert all(answer["inputs"] for answer in answered)


def test_a_model_that_is_too_slow_is_said_to_hang(tiny):
    with pytest.raises(DeviceError, match=r"hung: no answer in 0\.01 s"):
        ask(device("litert", timeout_seconds=0.01), (tiny,), do="bench")


def test_a_model_that_needs_too_much_memory_takes_down_only_the_child(tiny):
    with pytest.raises(DeviceError):
        ask(device("openvino", memory_bytes=20_000_000), (tiny,), do="bench")


def test_no_runtime_leaves_anything_in_the_users_home(onnx, tmp_path, monkeypatch):
    """Two of the three would send usage data, and keep an id for it, if they were not stopped."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("CI", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    ask(device("onnxruntime"), (onnx,), do="describe")
    for runtime, name in FILES.items():
        ask(device(runtime), model_files(DATA / name), do="describe")
    assert list(home.iterdir()) == []


def test_images_of_another_size_are_refused(tiny, tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(DeviceError) as caught:
        ask(device("litert"), (tiny,), do="predict", images=path, outputs=tmp_path / "out.npy")
    assert "takes uint8 [1, 16, 16, 3]" in caught.value.got


@pytest.mark.parametrize("runtime", FILES)
def test_the_inside_of_a_model_is_listed_in_the_order_of_execution(runtime):
    operators = ask(device(runtime), model_files(DATA / FILES[runtime]), do="graph")["operators"]
    places = {one["id"]: place for place, one in enumerate(operators)}
    assert all(places.get(source, -1) < places[one["id"]] for one in operators for source in one["inputs"])
    convolution = next(one for one in operators if one["kind"] in ("CONV_2D", "Convolution"))
    assert math.prod(convolution["shape"]) == 8 * 8 * 8
    assert "conv" in convolution["name"]


def test_the_range_of_a_rounded_tensor_is_listed():
    operators = ask(device("litert"), (DATA / "tiny-int8.tflite",), do="graph")["operators"]
    one = next(one for one in operators if one["kind"] == "CONV_2D")
    assert (one["dtype"], one["levels"]) == ("int8", 256)
    assert one["high"][0] - one["low"][0] == pytest.approx(255 * one["scale"])
    assert one["low"] == [(-128 - one["zero_point"]) * one["scale"]]


@pytest.mark.parametrize("runtime", FILES)
def test_what_stands_inside_leads_to_the_models_own_output(runtime, images, tmp_path):
    files = model_files(DATA / FILES[runtime])
    operators = ask(device(runtime), files, do="graph")["operators"]
    logits = next(one["inputs"][0] for one in operators if one["kind"].lower() == "softmax")
    ask(device(runtime), files, do="trace", images=images, outputs=tmp_path, tensors=(logits,), outputs_bytes=10_000)
    found = np.load(tmp_path / f"{logits}.npy")
    ask(device(runtime), files, do="predict", images=images, outputs=tmp_path / "out.npy")
    assert found.shape == (20, 3)
    shares = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, np.load(tmp_path / "out.npy"), atol=1e-5)


def test_an_int8_tensor_is_stored_as_the_file_has_it(images, tmp_path):
    files = (DATA / "tiny-int8.tflite",)
    operators = ask(device("litert"), files, do="graph")["operators"]
    first = next(one["id"] for one in operators if one["kind"] == "CONV_2D")
    ask(device("litert"), files, do="trace", images=images, outputs=tmp_path, tensors=(first,), outputs_bytes=10**6)
    found = np.load(tmp_path / f"{first}.npy")
    assert (found.dtype, found.shape) == (np.int8, (20, 8, 8, 8))
    assert len(np.unique(found)) > 20


def test_tensors_over_the_limit_of_the_disk_are_refused(tiny, images, tmp_path):
    operators = ask(device("litert"), (tiny,), do="graph")["operators"]
    ids = tuple(one["id"] for one in operators[:2])
    with pytest.raises(DeviceError) as caught:
        ask(device("litert"), (tiny,), do="trace", images=images, outputs=tmp_path, tensors=ids, outputs_bytes=1000)
    assert "over the 1000 allowed" in caught.value.got
    assert list(tmp_path.glob("[0-9]*.npy")) == []


def test_a_runtime_that_is_not_installed_is_an_error_with_the_command(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", _nothing_installed)
    with pytest.raises(MissingError) as caught:
        require("litert")
    assert caught.value.fix == 'python -m pip install "ai-edge-litert>=2.3"'


def _nothing_installed(name):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model.pkl", "model.pt", "model", "model.txt"])
def test_kinds_that_can_carry_code_or_are_not_run_are_refused(name, tmp_path):
    with pytest.raises(ModelError, match="is not run"):
        runtime_for(tmp_path / name)


def test_an_ir_without_its_weights_is_refused(tmp_path):
    shutil.copy(DATA / "tiny.xml", tmp_path)
    with pytest.raises(ModelError, match=r"tiny\.bin"):
        model_files(tmp_path / "tiny.xml")


def test_every_extra_that_a_runtime_names_exists():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {runtime.extra for runtime in RUNTIMES.values()} <= set(extras)


@pytest.mark.parametrize(("do", "key"), [("describe", "outputs"), ("bench", "latencies_ms"), ("graph", "operators")])
def test_an_answer_without_what_was_asked_for_is_refused(do, key):
    class Forgetful(Local):
        def run(self, job, **limits):
            ran = super().run(job, **limits)
            return replace(ran, answer={name: value for name, value in ran.answer.items() if name != key})

    with pytest.raises(DeviceError, match=f"here answered what can.t be read: {key}"):
        ask(Forgetful(device("litert").target), (DATA / "tiny.tflite",), do=do)
