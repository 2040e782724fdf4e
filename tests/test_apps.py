"""The apps of a bundle: built with warnings as errors, and run on a bundle that is then spoilt in each way."""

from __future__ import annotations

import ctypes
import fnmatch
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgecv.bundle.c_source import GoldenFrame, c_source, golden_frame
from edgecv.data.decode import decode
from edgecv.errors import ModelError
from edgecv.recipe import Preprocess
from tests.app_bundles import LABELS, believe, sample_photographs, write_bundle, write_json, write_photographs
from tests.conftest import ROOT

APPS = ROOT / "edgecv" / "bundle" / "app"
BUILT_FROM = ("cmake", "g++", "pkg-config")
needs_cmake = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in BUILT_FROM)
    or subprocess.run(["pkg-config", "--exists", "libcrypto", "libturbojpeg", "libpng"]).returncode != 0
    or not Path("/usr/include/nlohmann/json.hpp").is_file(),
    reason="needs cmake, g++, the apps' libraries and nlohmann-json3-dev: tests/install-debian.sh",
)

# Shrunk a lot, a little and not at all; both filters, both ways to a square.
WAYS = (
    Preprocess(size=64, crop_fraction=0.875),
    Preprocess(size=64, crop_fraction=0.875, filter="bicubic"),
    Preprocess(size=160, resize="stretch", filter="bicubic"),
    Preprocess(size=448),
)
PHOTOGRAPHS = 9  # of write_bundle


def named(preprocess: Preprocess) -> str:
    return f"{preprocess.resize}-{preprocess.filter}-{preprocess.size}"


def command(*words: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **settings)


def built(*words: object, **settings: Any) -> None:
    made = command(*words, **settings)
    assert made.returncode == 0, made.stdout + made.stderr


def spoilt(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / "bundle"))


def changed(path: Path, **values: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **values})


# Python.


def python_pixels(folder: Path, preprocess: Preprocess) -> Callable[[Path], NDArray[np.uint8]]:
    """`pixels` of app.py in a bundle that says `preprocess`."""
    (folder / "app").mkdir()
    shutil.copytree(APPS / "python", folder / "app" / "python")
    (folder / "labels.txt").touch()
    write_json(folder / "preprocess.json", {**preprocess.model_dump(), "input": {"dtype": "uint8"}})
    pixels = runpy.run_path(str(folder / "app" / "python" / "app.py"))["pixels"]
    return lambda path: pixels(path)[0]


@pytest.mark.parametrize("preprocess", WAYS, ids=named)
def test_python_pixels_are_trainings(preprocess: Preprocess, tmp_path: Path) -> None:
    pixels, deep = python_pixels(tmp_path, preprocess), tmp_path / "16-bit.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 2**16, (300, 500), np.uint16)).save(deep)
    for path in (deep, *write_photographs(tmp_path / "photographs")):
        np.testing.assert_array_equal(pixels(path), decode(path, preprocess), err_msg=path.name)


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
    flags = ("-DCMAKE_CXX_FLAGS=-Werror -O1", "-DCMAKE_BUILD_TYPE=None")  # optimised, it is compiled half as fast
    settings = (f"-DOpenVINO_DIR={utils.get_cmake_path()}", *flags)
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
    assert len(re.findall(r"ok +\d\.\w+: probabilities differ by at most", ran.stdout)) == PHOTOGRAPHS


@needs_cmake
def test_cpp_feeds_a_model_that_takes_floats(cpp: Path, tmp_path: Path) -> None:
    ran = command(cpp, openvino_bundle(tmp_path, Preprocess(size=32), dtype="float32"), "--self-test")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_cmake
@pytest.mark.parametrize("preprocess", WAYS, ids=named)
def test_cpp_pixels_are_trainings(cpp: Path, preprocess: Preprocess, tmp_path: Path) -> None:
    ran = command(cpp, openvino_bundle(tmp_path, preprocess), "--self-test")
    largest = [float(value) for value in re.findall(r"largest difference of a pixel (\S+)", ran.stdout)]
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(largest) == PHOTOGRAPHS
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


def one_bit_of_the_model(bundle: Path) -> None:
    weights = np.fromfile(bundle / "model.bin", np.uint8)
    weights[-1] ^= 1
    weights.tofile(bundle / "model.bin")


def other_weights(bundle: Path) -> None:
    weights = np.fromfile(bundle / "model.bin", np.uint8)
    weights[-300:] = 60
    weights.tofile(bundle / "model.bin")
    believe(bundle)


def other_mean(bundle: Path) -> None:
    changed(bundle / "preprocess.json", mean=0.0)


def other_crop(bundle: Path) -> None:
    """Of both files: the pixels alone tell."""
    spec = json.loads((bundle / "golden" / "golden.json").read_text())["preprocess"]
    changed(bundle / "golden" / "golden.json", preprocess={**spec, "crop_fraction": 0.5})
    changed(bundle / "preprocess.json", crop_fraction=0.5)


def no_photographs(bundle: Path) -> None:
    changed(bundle / "golden" / "golden.json", images=[])


def no_digests(bundle: Path) -> None:
    changed(bundle / "golden" / "golden.json", files={})


def other_photograph(bundle: Path) -> None:
    shutil.copy(bundle / "golden" / "0.jpg", bundle / "golden" / "2.jpg")


SPOILT = {
    other_labels: "labels.txt: names and order",
    too_few_labels: "labels.txt: names and order",
    one_bit_of_the_model: "model.bin: its bytes are those that were verified",
    other_weights: "probabilities differ",
    other_mean: "preprocess.json: mean is 127.0",
    other_crop: "pixels differ on average",
    other_photograph: "2.jpg: pixels differ on average",
    no_photographs: "golden.json has images",
    no_digests: "golden.json has files",
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


@needs_cmake
def test_cpp_does_not_load_a_model_of_other_bytes(cpp: Path, ir_bundle: Path, tmp_path: Path) -> None:
    bundle = spoilt(ir_bundle, tmp_path)
    (bundle / "model.xml").write_text("no model")
    ran = command(cpp, bundle, "--self-test")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "FAIL  model.xml: its bytes are those that were verified\nself-test FAILED" in ran.stdout


NO_IMAGES = (b"", b"GIF89a----", b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n----")


@needs_cmake
@pytest.mark.parametrize("content", NO_IMAGES, ids=("empty", "gif", "only-exif", "cut-png"))
def test_cpp_refuses_what_is_no_image(content: bytes, cpp: Path, ir_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jpg").write_bytes(content)
    ran = command(cpp, ir_bundle, tmp_path / "none.jpg")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"classify: {tmp_path / 'none.jpg'}: ")


@needs_cmake
def test_cpp_answers_for_the_images_after_one_that_it_can_not_read(cpp: Path, ir_bundle: Path, tmp_path: Path) -> None:
    image = ir_bundle / "golden" / "0.jpg"
    ran = command(cpp, ir_bundle, tmp_path / "none.jpg", image)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1), ran.stderr
    assert str(tmp_path / "none.jpg") in ran.stderr
    assert ran.stdout.startswith(f"{image}: ")


# C, LiteRT on this computer, and a Cortex-M7.

ARM = ("arm-none-eabi-gcc", "qemu-system-arm", "make")
needs_gcc = pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("make")), reason="needs gcc and make")
needs_arm = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ARM),
    reason="needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm: tests/install-debian.sh",
)
TINY = ROOT / "tests" / "data" / "tiny-int8.tflite"
TINY_PREPROCESS = Preprocess(size=16)
OPERATORS = ("QUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX", "DEQUANTIZE")


def tiny_outputs(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="the extra litert is not installed")
    interpreter = litert.Interpreter(str(TINY), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0], np.float32)


def written(preprocess: Preprocess = TINY_PREPROCESS) -> dict[str, str]:
    """The C files of a photograph and the small model; of another size than the model's, they are not run."""
    frame, pixels = golden_frame(sample_photographs()[1], preprocess)
    runs = preprocess.size == TINY_PREPROCESS.size
    outputs = tiny_outputs(pixels) if runs else np.array([0.2, 0.5, 0.3], np.float32)
    golden = GoldenFrame(frame, pixels, outputs)
    return c_source(
        TINY.read_bytes(), labels=LABELS, preprocess=preprocess, operators=OPERATORS, golden=golden, arena_bytes=8192
    )


def c_app(folder: Path, preprocess: Preprocess = TINY_PREPROCESS) -> Path:
    shutil.copytree(APPS / "c", folder, dirs_exist_ok=True)
    for name, text in written(preprocess).items():
        (folder / name).write_text(text)
    return folder


def made(folder: Path, target: str) -> None:
    built("make", "-C", folder, target, f"PYTHON={sys.executable}", "WARNINGS=-Wall -Wextra -Werror")


def self_tested(folder: Path) -> subprocess.CompletedProcess[str]:
    made(folder, "host")
    return command(folder / "build" / "classify", "--self-test")


@pytest.fixture(scope="module")
def c_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C app on this computer, by the LiteRT of the wheel."""
    folder = c_app(tmp_path_factory.mktemp("c"))
    made(folder, "host")
    return folder


@needs_gcc
def test_c_is_not_built_without_a_runtime(tmp_path: Path) -> None:
    ran = command("make", "-C", c_app(tmp_path), "host", "PYTHON=false")
    assert "false has no ai-edge-litert: pip install ai-edge-litert" in ran.stderr
    assert "undefined reference" not in ran.stderr


@needs_gcc
def test_c_passes_its_self_test(c_host: Path) -> None:
    ran = command(c_host / "build" / "classify", "--self-test")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mean difference 0, largest 0, of 255" in ran.stdout
    assert "the way from the frame gives" in ran.stdout


@needs_gcc
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_c_classifies_a_frame_in_colour_or_grey(mode: str, c_host: Path, tmp_path: Path) -> None:
    with Image.open(sample_photographs()[0]) as image:
        image.convert(mode).save(frame := tmp_path / "frame.ppm")
    ran = command(c_host / "build" / "classify", frame)
    expected = tiny_outputs(decode(frame, TINY_PREPROCESS))
    lines = [line.split() for line in ran.stdout.splitlines()[1:]]
    assert re.match(r"\S+: \d+\.\d+ ms\n", ran.stdout), ran.stdout + ran.stderr
    assert [name for _, name in lines] == [LABELS[i] for i in np.argsort(expected)[::-1]]
    assert [float(share) for share, _ in lines] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)


@needs_gcc
@pytest.mark.parametrize(
    "content",
    [b"", b"P6 2 2 65535\n" + bytes(24), b"P6 0 3 255\n", b"P6 9 9 255\n" + bytes(9), b"P6 99999 99999 255\n"],
)
def test_c_refuses_what_is_no_frame(content: bytes, c_host: Path, tmp_path: Path) -> None:
    (tmp_path / "frame.ppm").write_bytes(content)
    ran = command(c_host / "build" / "classify", tmp_path / "frame.ppm")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"classify: {tmp_path / 'frame.ppm'}: not a binary PPM or PGM" in ran.stderr


@needs_gcc
def test_c_says_why_a_frame_can_not_be_opened(c_host: Path, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.ppm", "No such file or directory"), (tmp_path, "Is a directory")):
        ran = command(c_host / "build" / "classify", path)
        assert (ran.returncode, ran.stderr.splitlines()[-1]) == (1, f"classify: {path}: {why}")


@needs_gcc
def test_c_reads_a_frame_whose_head_has_comments(c_host: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8).tobytes()
    answers = []
    for head in (b"P6 30 20 255\n", b"P6\n# a camera's\n#\n30 20\n# 7 levels\n255\n"):
        (tmp_path / "frame.ppm").write_bytes(head + pixels)
        ran = command(c_host / "build" / "classify", tmp_path / "frame.ppm")
        assert ran.returncode == 0, ran.stderr
        answers.append(ran.stdout.splitlines()[1:])
    assert answers[0] == answers[1]


SPOILT_C = {
    ("model.c", r"(?s)(.*)\n    (\d+),", r"\1\n    7,"): "model: its bytes",
    ("model.c", r'    "harbour",\n    "tulip",', '    "tulip",\n    "harbour",'): "labels: names and order",
    ("model.c", r"\.mean = 127.0", ".mean = 0.0"): "preprocessing: size, crop, filter, mean and scale",
    ("model.c", r"\.crop_fraction = 1.0", ".crop_fraction = 0.5"): "pixels are training's",
    ("golden.c", r"(golden_outputs.*\{)[^,]*,", r"\1 0.9f,"): "probabilities are those",
    ("golden.c", r"golden_outputs(.*)\{.*\}", r"golden_outputs\1{0.0f, 0.0f, 0.0f / 0.0f}"): "probabilities are",
}


@needs_gcc
@pytest.mark.parametrize("change", SPOILT_C, ids=lambda change: SPOILT_C[change].replace(" ", "-"))
def test_c_fails_its_self_test_where_this_is_changed(
    change: tuple[str, str, str], c_host: Path, tmp_path: Path
) -> None:
    name, pattern, replacement = change
    folder = Path(shutil.copytree(c_host, tmp_path / "c", ignore=shutil.ignore_patterns("build")))
    text, count = re.subn(pattern, replacement, (folder / name).read_text(), count=1)
    assert count == 1
    (folder / name).write_text(text)
    ran = self_tested(folder)
    assert ran.returncode == 1
    assert f"FAIL  {SPOILT_C[change]}" in ran.stdout, ran.stdout


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """fit.c as a library."""
    library = tmp_path_factory.mktemp("fit") / "fit.so"
    built(
        "gcc", "-shared", "-fPIC", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", APPS / "c" / "fit.c", "-o", library
    )
    return ctypes.CDLL(str(library))


class Frame(ctypes.Structure):
    _fields_ = (("pixels", ctypes.c_char_p), *((name, ctypes.c_int) for name in ("width", "height", "channels")))


class CPreprocess(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_int),
        ("crop", ctypes.c_bool),
        ("crop_fraction", ctypes.c_double),
        ("bicubic", ctypes.c_bool),
        ("mean", ctypes.c_double),
        ("scale", ctypes.c_double),
    )


def fit_words(width: int, height: int, size: int) -> int:
    """FIT_WORDS of fit.h."""
    return 4 * max(width, size) + 3 * size + max(3 * size, width) + 4 * max(height, size) // size + 4


def fitted(library: ctypes.CDLL, pixels: NDArray[np.uint8], way: Preprocess, words: int) -> NDArray[np.uint8] | None:
    """What fit.c makes of a frame with so much memory; what lies after that must stay as it is."""
    height, width, channels = pixels.shape
    frame = Frame(pixels.tobytes(), width, height, channels)
    settings = (way.size, way.resize == "crop", way.crop_fraction, way.filter == "bicubic", way.mean, way.scale)
    result, work = np.zeros((way.size, way.size, 3), np.uint8), np.full(words + 64, 0x5A5A5A5A, np.int32)
    places = (ctypes.c_void_p(result.ctypes.data), ctypes.c_void_p(work.ctypes.data), ctypes.c_size_t(words))
    done = library.fit(ctypes.byref(frame), ctypes.byref(CPreprocess(*settings)), *places)
    assert (work[words:] == 0x5A5A5A5A).all()
    return result if done & 1 else None


@needs_gcc
def test_c_fits_a_frame_of_any_size_in_the_memory_it_asks_for(fit: ctypes.CDLL, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        height, width = (int(side) for side in np.exp(random.uniform(0.0, np.log(700.0), 2)))
        kind: dict[str, Any] = {
            "resize": random.choice(["crop", "stretch"]),
            "filter": random.choice(["bilinear", "bicubic"]),
        }
        way = Preprocess(size=int(random.integers(16, 200)), crop_fraction=float(random.uniform(0.1, 1.0)), **kind)
        pixels = random.integers(0, 256, (height, width, int(random.choice([1, 3]))), dtype=np.uint8)
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(tmp_path / "frame.png")
        words = fit_words(width, height, way.size)
        np.testing.assert_array_equal(fitted(fit, pixels, way, words), decode(tmp_path / "frame.png", way))
        assert fitted(fit, pixels, way, words - 1) is None


def cortex_m7(folder: Path) -> subprocess.CompletedProcess[str]:
    made(folder, "cortex-m7")
    return command("make", "-s", "-C", folder, "run-cortex-m7")


@needs_arm
@pytest.mark.parametrize("preprocess", WAYS, ids=named)
def test_pixels_of_a_cortex_m7_are_trainings(preprocess: Preprocess, tmp_path: Path) -> None:
    ran = cortex_m7(c_app(tmp_path, preprocess))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mean difference 0, largest 0, of 255" in ran.stdout


@needs_arm
def test_a_cortex_m7_sees_a_changed_model_and_other_labels(tmp_path: Path) -> None:
    folder = c_app(tmp_path)
    text = (folder / "model.c").read_text().replace('"harbour"', '"port"')
    (folder / "model.c").write_text(re.sub(r"\n    (\d+),", "\n    7,", text, count=1))
    ran = cortex_m7(folder)
    assert ran.returncode != 0
    assert "FAIL  model: its bytes" in ran.stdout
    assert "FAIL  labels: names and order" in ran.stdout


@needs_arm
def test_a_cortex_m7_counts_the_same_instructions_each_time(tmp_path: Path) -> None:
    folder = c_app(tmp_path)
    first, again = (re.findall(r"fit takes (\d+) instructions", cortex_m7(folder).stdout) for _ in range(2))
    assert len(first) == 1
    assert first == again


LOOPS = r"""
#include <stdio.h>
#include "self_test.h"

static unsigned counted(unsigned loops) {
    const uint64_t begin = instructions();
    __asm__ volatile("1: subs %0, #1\n bne 1b" : "+r"(loops));
    return (unsigned)(instructions() - begin);
}

int main(void) {
    printf("%u %u\n", counted(100000), counted(200000));
    return 0;
}
"""


@needs_arm
def test_a_cortex_m7_counts_each_instruction_of_a_loop_of_two(tmp_path: Path) -> None:
    folder = c_app(tmp_path)
    (folder / "checks.c").write_text(LOOPS)
    counts = [int(count) for count in cortex_m7(folder).stdout.split()]
    assert counts == pytest.approx([200_000, 400_000], abs=80)


@pytest.mark.skipif("TFLM_LIB" not in os.environ, reason="needs TFLM: set TFLM and TFLM_LIB as for app/c/Makefile")
def test_c_passes_its_self_test_by_tflm(tmp_path: Path) -> None:
    folder = c_app(tmp_path)
    made(folder, "tflm")
    ran = command(folder / "build" / "classify-tflm")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "of 8192 bytes used" in ran.stdout


def source(labels: tuple[str, ...] = LABELS, operators: tuple[str, ...] = ()) -> dict[str, str]:
    """The C files of no model."""
    golden = GoldenFrame(np.zeros((1, 1, 3), np.uint8), np.zeros((16, 16, 3), np.uint8), np.ones(3, np.float32))
    preprocess = TINY_PREPROCESS
    return c_source(b"", labels=labels, preprocess=preprocess, operators=operators, golden=golden, arena_bytes=1)


def test_operators_are_named_as_tflm_names_them() -> None:
    names = ("CONV_2D", "CONV_2D", "HARD_SWISH", "RELU6", "BATCH_MATMUL", "SPACE_TO_BATCH_ND", "L2_NORMALIZATION")
    given = source(operators=names)["operators.h"]
    methods = ["BatchMatMul", "Conv2D", "HardSwish", "L2Normalization", "Relu6", "SpaceToBatchNd"]
    assert re.findall(r"resolver\.Add(\w+)\(\);", given) == methods
    assert "#define MODEL_OPERATORS 6" in given


def test_labels_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(ModelError, match="the labels don't fit"):
        source(labels=LABELS[:2])


@needs_gcc
def test_a_build_may_give_the_c_app_a_larger_arena(tmp_path: Path) -> None:
    (tmp_path / "model.h").write_text(source()["model.h"])
    (tmp_path / "arena.c").write_text('#include "model.h"\n_Static_assert(MODEL_ARENA_BYTES == ASKED, "arena");\n')
    build = ("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", APPS / "c", tmp_path / "arena.c")
    built(*build, "-DASKED=1")
    built(*build, "-DASKED=65536", "-DMODEL_ARENA_BYTES=65536")


@needs_gcc
def test_a_label_may_hold_anything_that_a_line_may(tmp_path: Path) -> None:
    labels = ('say "x"', "a\\b ??/ %s", "Größe/* 7*/")
    literals = "".join(re.findall(r'^    ".*",$', source(labels)["model.c"], re.MULTILINE))
    (tmp_path / "labels.c").write_text(
        f"#include <stdio.h>\nint main(void) {{ const char *a[] = {{{literals}}};"
        " for (int i = 0; i < 3; ++i) puts(a[i]); return 0; }\n"
    )
    built("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", tmp_path / "labels.c", "-o", tmp_path / "labels")
    assert command(tmp_path / "labels").stdout.splitlines() == list(labels)


# Android: what its files agree on, and Kotlin, on a JVM.

ANDROID = APPS / "android"
FIT = ANDROID / "app" / "src" / "main" / "kotlin" / "edgecv" / "classify" / "Fit.kt"
VERSIONS = {
    "Android Gradle plugin": ("build.gradle.kts", r'"com\.android\.application"\) version "([\d.]+)"'),
    "Gradle": ("gradle/wrapper/gradle-wrapper.properties", r"/gradle-([\d.]+)-bin\.zip"),
    "Kotlin": ("build.gradle.kts", r'"org\.jetbrains\.kotlin:kotlin-gradle-plugin:([\d.]+)"'),
    "LiteRT": ("app/build.gradle.kts", r'"com\.google\.ai\.edge\.litert:litert:([\d.]+)"'),
    "Android SDK": ("app/build.gradle.kts", r"compileSdk = (\d+)"),
}


@pytest.mark.parametrize("tool", VERSIONS)
def test_the_android_readme_names_the_versions_that_the_app_is_built_by(tool: str) -> None:
    path, pattern = VERSIONS[tool]
    version = re.search(pattern, (ANDROID / path).read_text())
    assert version is not None
    assert f"{tool} {version[1]}" in " ".join((ANDROID / "README.md").read_text().split())


def test_android_asks_for_each_part_of_a_bundle_that_it_copies() -> None:
    script = (ANDROID / "app" / "build.gradle.kts").read_text()

    def quoted(call: str) -> list[str]:
        return re.findall(r'"([^"]+)"', " ".join(re.findall(rf"{call}\((.*?)\)", script)))

    assert (copied := quoted("include"))
    assert [part for part in copied if not fnmatch.filter(quoted("listOf"), part)] == []


@pytest.mark.skipif(not shutil.which("kotlinc"), reason="needs kotlinc, such as npm's kotlin-compiler")
def test_kotlin_pixels_are_trainings(tmp_path: Path) -> None:
    sources = (FIT, ROOT / "tests" / "data" / "Pixels.kt")
    built("kotlinc", "-Werror", *sources, "-include-runtime", "-d", tmp_path / "pixels.jar")
    jobs, expected = [], {}
    for name, box in (("wide", (0, 0, 640, 427)), ("tall", (200, 0, 350, 427))):
        with Image.open(sample_photographs()[1]) as image:
            image.crop(box).save(png := tmp_path / f"{name}.png")
        for way in WAYS:
            out = tmp_path / f"{name}-{named(way)}.bin"
            jobs += [png, out, way.size, way.resize, way.crop_fraction, way.filter]
            expected[out] = decode(png, way)
    built("java", "-cp", tmp_path / "pixels.jar", "PixelsKt", *jobs)
    for out, pixels in expected.items():
        given = np.fromfile(out, np.uint8).reshape(pixels.shape).astype(int)
        assert np.abs(given - pixels).max() <= 1, out.name
