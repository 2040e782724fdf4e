"""The apps of a bundle: built with warnings as errors, and run on a bundle that is then spoilt in each way."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecv.recipe import Preprocess
from tests.app_bundles import LABELS, write_bundle, write_json
from tests.conftest import ROOT

APPS = ROOT / "edgecv" / "bundle" / "app"
BUILT_FROM = ("cmake", "g++", "pkg-config")
needs_cmake = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in BUILT_FROM)
    or subprocess.run(["pkg-config", "--exists", "libturbojpeg", "libpng"]).returncode != 0
    or not Path("/usr/include/nlohmann/json.hpp").is_file(),
    reason="needs cmake, g++, libturbojpeg0-dev, libpng-dev and nlohmann-json3-dev: tests/install-debian.sh",
)


def command(*words: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **settings)


def built(*words: object, **settings: Any) -> None:
    made = command(*words, **settings)
    assert made.returncode == 0, made.stdout + made.stderr


def spoilt(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / "bundle"))


def changed(path: Path, **values: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **values})


# C++, OpenVINO.


def glances(size: int, dtype: str) -> Any:
    """An OpenVINO model that averages a photograph to 4 x 4 colours, and weighs these for each label."""
    import openvino as ov
    from openvino import opset13 as op

    random, step = np.random.default_rng(5), size // 4
    image = op.parameter([1, size, size, 3], np.dtype(dtype), name="image")
    mean, scale = (op.constant(np.array(value, np.float32)) for value in (127.0, 128.0))
    scaled = op.divide(op.subtract(op.convert(image, "f32"), mean), scale)
    cells = op.reduce_mean(op.reshape(scaled, [1, 4, step, 4, step, 3], False), np.array([2, 4]))
    weights = random.normal(0.0, 1.0, (48, len(LABELS))).astype(np.float32)
    logits = op.matmul(op.reshape(cells, [1, 48], False), op.constant(weights), False, False)
    return ov.Model([op.softmax(logits, 1)], [image], "glances")


def openvino_bundle(folder: Path, preprocess: Preprocess, *, dtype: str = "uint8") -> Path:
    import openvino as ov

    made = glances(preprocess.size, dtype)
    ov.save_model(made, folder / "made.xml", compress_to_fp16=False)
    compiled = ov.Core().compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array(compiled(pixels[None].astype(dtype))[0][0], np.float32)

    (folder / "bundle").mkdir()
    return write_bundle(folder / "bundle", (folder / "made.xml", folder / "made.bin"), run, preprocess, dtype=dtype)


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ app, compiled against the openvino wheel."""
    utils = pytest.importorskip("openvino.utils", reason="the extra openvino is not installed")
    folder = tmp_path_factory.mktemp("cpp")
    settings = (f"-DOpenVINO_DIR={utils.get_cmake_path()}", "-DCMAKE_CXX_FLAGS=-Werror")
    built("cmake", "-S", APPS / "cpp", "-B", folder, *settings)
    built("cmake", "--build", folder, "--parallel", "2")
    return folder / "classify"


@pytest.fixture(scope="module")
def ir_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openvino_bundle(tmp_path_factory.mktemp("ir"), Preprocess(size=64, crop_fraction=0.875))


@needs_cmake
def test_cpp_passes_its_self_test(cpp: Path, ir_bundle: Path) -> None:
    ran = command(cpp, ir_bundle, "--self-test")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(re.findall(r"ok +\d\.\w+: probabilities differ by at most", ran.stdout)) == 5


@needs_cmake
def test_cpp_feeds_a_model_that_takes_floats(cpp: Path, tmp_path: Path) -> None:
    ran = command(cpp, openvino_bundle(tmp_path, Preprocess(size=32), dtype="float32"), "--self-test")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_cmake
@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(size=64, crop_fraction=0.875),
        Preprocess(size=64, crop_fraction=0.875, filter="bicubic"),
        Preprocess(size=160, resize="stretch", filter="bicubic"),
        Preprocess(size=448),
    ],
    ids=lambda spec: f"{spec.resize}-{spec.filter}-{spec.size}",
)
def test_cpp_pixels_are_trainings(cpp: Path, preprocess: Preprocess, tmp_path: Path) -> None:
    ran = command(cpp, openvino_bundle(tmp_path, preprocess), "--self-test")
    largest = [float(value) for value in re.findall(r"largest difference of a pixel (\S+)", ran.stdout)]
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(largest) == 5
    assert max(largest) <= 1.0


@needs_cmake
def test_cpp_prints_the_best_labels_and_the_time(cpp: Path, ir_bundle: Path) -> None:
    image = ir_bundle / "golden" / "0.jpg"
    ran = command(cpp, ir_bundle, image)
    golden = json.loads((ir_bundle / "golden" / "golden.json").read_text())["images"][0]
    first, *lines = ran.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(image))}: \d+\.\d+ ms", first)
    assert [line.split()[1] for line in lines] == [LABELS[i] for i in np.argsort(golden["outputs"])[::-1]]
    assert float(lines[0].split()[0]) == pytest.approx(max(golden["outputs"]), abs=1e-3)


def other_labels(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("".join(f"{label}\n" for label in reversed(LABELS)), encoding="utf-8")


def too_few_labels(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS[:-1]), encoding="utf-8")


def other_weights(bundle: Path) -> None:
    weights = np.fromfile(bundle / "model.bin", np.uint8)
    weights[-300:] = 60
    weights.tofile(bundle / "model.bin")


def other_mean(bundle: Path) -> None:
    changed(bundle / "preprocess.json", mean=0.0)


def other_crop(bundle: Path) -> None:
    """Of both files: the pixels alone tell."""
    spec = json.loads((bundle / "golden" / "golden.json").read_text())["preprocess"]
    changed(bundle / "golden" / "golden.json", preprocess={**spec, "crop_fraction": 0.5})
    changed(bundle / "preprocess.json", crop_fraction=0.5)


def other_photograph(bundle: Path) -> None:
    shutil.copy(bundle / "golden" / "0.jpg", bundle / "golden" / "2.jpg")


SPOILT = {
    other_labels: "labels.txt names the golden answer",
    too_few_labels: "labels.txt has a line for each of the outputs",
    other_weights: "probabilities differ",
    other_mean: "preprocess.json: mean is 127.0",
    other_crop: "pixels differ on average",
    other_photograph: "2.jpg: pixels differ on average",
}


@needs_cmake
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_cpp_fails_its_self_test_on_a_bundle_that(
    spoil: Callable[[Path], None], cpp: Path, ir_bundle: Path, tmp_path: Path
) -> None:
    bundle = spoilt(ir_bundle, tmp_path)
    spoil(bundle)
    ran = command(cpp, bundle, "--self-test")
    assert ran.returncode == 1, ran.stdout
    assert re.search(f"FAIL .*{re.escape(SPOILT[spoil])}", ran.stdout), ran.stdout


NO_IMAGES = (b"", b"GIF89a----", b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n----")


@needs_cmake
@pytest.mark.parametrize("content", NO_IMAGES, ids=("empty", "gif", "only-exif", "cut-png"))
def test_cpp_refuses_what_is_no_image(content: bytes, cpp: Path, ir_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jpg").write_bytes(content)
    ran = command(cpp, ir_bundle, tmp_path / "none.jpg")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"classify: {tmp_path / 'none.jpg'}: ")
