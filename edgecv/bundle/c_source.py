"""A model as C: what a microcontroller's program links, written beside the code of app/c."""

from __future__ import annotations

import hashlib
import re
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecv.data.decode import decode
from edgecv.errors import ModelError
from edgecv.recipe import Preprocess

__all__ = ["GoldenFrame", "c_source", "golden_frame"]

# A golden photograph becomes a frame of a small camera, QVGA: as C, a whole one would be many megabytes.
FRAME_SIZE = (320, 240)
# TFLM's methods are named as the schema's operators, in camel case, but for these.
METHODS = {"BATCH_MATMUL": "BatchMatMul", "CUMSUM": "CumSum", "PADV2": "PadV2"}
NOTICE = "/* Written by edgecv: don't edit. */\n"


@dataclass(frozen=True)
class GoldenFrame:
    """A camera's frame, what training's decoder makes of it, and what the model gives for that.

    `frame`: uint8 `(height, width, 3)`, RGB. `pixels`: uint8 `(size, size, 3)`. `outputs`: float32 `(classes,)`, from
    the runtime that the board has. `tolerance`: of each output. `pixel_tolerance`: mean, of 255.
    """

    frame: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    outputs: NDArray[np.float32]
    tolerance: float = 0.02
    pixel_tolerance: float = 3.0


def golden_frame(photograph: Path, preprocess: Preprocess) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Reduce a bundle's golden photograph to at most 320 x 240; return that, and what training's decoder makes of it.

    `photograph`: an upright RGB file, as a bundle's are.

    Raises:
        DataError: it can't be decoded.
    """
    decode(photograph, preprocess)  # refuses what can't be opened below
    with Image.open(photograph) as image, tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        frame = image.convert("RGB")
        frame.thumbnail(FRAME_SIZE if image.width >= image.height else FRAME_SIZE[::-1])
        frame.save(path := Path(folder) / "frame.png")
        return np.asarray(frame), decode(path, preprocess)


def c_source(
    model: bytes,
    *,
    labels: Sequence[str],
    preprocess: Preprocess,
    operators: Iterable[str],
    golden: GoldenFrame,
    arena_bytes: int,
) -> dict[str, str]:
    """Write a .tflite file, its labels and its golden frame as C: a text for each file's name.

    `operators`: names of the schema, "CONV_2D", each as often as it occurs. `arena_bytes`: what TFLM was seen to need
    with its reference kernels.

    Raises:
        ModelError: the labels are not as many as the outputs.
    """
    if len(labels) != golden.outputs.size:
        raise ModelError("the labels don't fit the model", got=f"{len(labels)} labels, {golden.outputs.size} outputs")
    names = sorted(set(operators))
    size = preprocess.size
    return {
        "model.h": _model_h(model, classes=len(labels), size=size, arena_bytes=arena_bytes),
        "model.c": _model_c(model, labels, preprocess),
        "operators.h": _operators_h(names),
        "golden.h": _golden_h(model, labels, golden),
        "golden.c": _golden_c(golden, preprocess),
    }


def _header(name: str, body: str) -> str:
    guard = f"{name.upper()}_H"
    return (
        f"{NOTICE}#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n"
        f'#include "fit.h"\n\n#ifdef __cplusplus\nextern "C" {{\n#endif\n\n{body}\n'
        f"#ifdef __cplusplus\n}}\n#endif\n#endif\n"
    )


def _model_h(model: bytes, *, classes: int, size: int, arena_bytes: int) -> str:
    return _header(
        "model",
        f"/* SHA-256 {hashlib.sha256(model).hexdigest()} */\n"
        f"#define MODEL_BYTES {len(model)}\n"
        f"extern const unsigned char model[MODEL_BYTES]; /* a .tflite file, aligned to 16 bytes */\n\n"
        f"/* The input: uint8, MODEL_SIZE x MODEL_SIZE, RGB, 0 to 255. The output: float, MODEL_CLASSES. */\n"
        f"#define MODEL_SIZE {size}\n#define MODEL_INPUT_BYTES (MODEL_SIZE * MODEL_SIZE * 3)\n"
        f"#define MODEL_CLASSES {classes}\n"
        f"extern const char *const model_labels[MODEL_CLASSES];\n"
        f"extern const struct preprocess model_preprocess;\n\n"
        f"/* Memory for tensors, as measured by TensorFlow Lite Micro's reference kernels.\n"
        f" * CMSIS-NN takes scratch on top: raise it there by -DMODEL_ARENA_BYTES=... */\n"
        f"#ifndef MODEL_ARENA_BYTES\n#define MODEL_ARENA_BYTES {arena_bytes}\n#endif\n",
    )


def _model_c(model: bytes, labels: Sequence[str], preprocess: Preprocess) -> str:
    return (
        f'{NOTICE}#include "model.h"\n\n#include <stdalign.h>\n\n'
        f"const char *const model_labels[MODEL_CLASSES] = {{\n"
        + "".join(f"    {_literal(label)},\n" for label in labels)
        + f"}};\n\nconst struct preprocess model_preprocess = {_preprocess(preprocess)};\n\n"
        f"alignas(16) const unsigned char model[MODEL_BYTES] = {{\n{_numbers(model)}}};\n"
    )


def _operators_h(names: Sequence[str]) -> str:
    """Write what TFLM links of its kernels, no more."""
    calls = "".join(f"    resolver.Add{_method(name)}();\n" for name in names)
    return (
        f"{NOTICE}#ifndef OPERATORS_H\n#define OPERATORS_H\n\n#define MODEL_OPERATORS {len(names)}\n\n"
        f"// The kernels of TensorFlow Lite Micro that the model needs.\n"
        f"template <typename Resolver>\nvoid add_operators(Resolver& resolver) {{\n{calls}}}\n\n#endif\n"
    )


def _golden_h(model: bytes, labels: Sequence[str], golden: GoldenFrame) -> str:
    height, width, _ = golden.frame.shape
    lines = "".join(f"{label}\n" for label in labels).encode()
    return _header(
        "golden",
        f'#include "model.h"\n\n'
        f"#define GOLDEN_MODEL_CRC32 0x{zlib.crc32(model):08X}u\n"
        f"#define GOLDEN_LABELS_CRC32 0x{zlib.crc32(lines):08X}u /* each with a line end */\n"
        f"#define GOLDEN_LABEL {_literal(labels[int(golden.outputs.argmax())])}\n"
        f"#define GOLDEN_TOLERANCE {float(golden.tolerance)!r}\n"
        f"#define GOLDEN_PIXEL_TOLERANCE {float(golden.pixel_tolerance)!r}\n"
        f"#define GOLDEN_WIDTH {width}\n#define GOLDEN_HEIGHT {height}\n\n"
        f"extern const struct preprocess golden_preprocess;\n"
        f"extern const uint8_t golden_frame[GOLDEN_WIDTH * GOLDEN_HEIGHT * 3]; /* what a camera gives */\n"
        f"extern const uint8_t golden_input[MODEL_INPUT_BYTES];                /* what training makes of it */\n"
        f"extern const float golden_outputs[MODEL_CLASSES];                    /* what the model gives for that */\n",
    )


def _golden_c(golden: GoldenFrame, preprocess: Preprocess) -> str:
    outputs = ", ".join(f"{float(value):.9e}f" for value in golden.outputs)
    return (
        f'{NOTICE}#include "golden.h"\n\n'
        f"const struct preprocess golden_preprocess = {_preprocess(preprocess)};\n\n"
        f"const float golden_outputs[MODEL_CLASSES] = {{{outputs}}};\n\n"
        f"const uint8_t golden_input[MODEL_INPUT_BYTES] = {{\n{_numbers(golden.pixels.tobytes())}}};\n\n"
        f"const uint8_t golden_frame[GOLDEN_WIDTH * GOLDEN_HEIGHT * 3] = {{\n{_numbers(golden.frame.tobytes())}}};\n"
    )


def _preprocess(preprocess: Preprocess) -> str:
    values: dict[str, Any] = {
        "size": preprocess.size,
        "crop": str(preprocess.resize == "crop").lower(),
        "crop_fraction": repr(preprocess.crop_fraction),
        "bicubic": str(preprocess.filter == "bicubic").lower(),
        "mean": repr(preprocess.mean),
        "scale": repr(preprocess.scale),
    }
    return "{\n" + "".join(f"    .{name} = {value},\n" for name, value in values.items()) + "}"


def _method(name: str) -> str:
    """Name the method of TFLM's resolver that adds an operator: "CONV_2D" is added by AddConv2D."""
    words = (word if word[0].isdigit() else word.capitalize() for word in name.split("_"))
    return METHODS.get(name) or "".join(words)


def _literal(text: str) -> str:
    """Write a string for C: UTF-8, all but letters, digits and plain signs as octal."""
    safe = re.compile(rb"[A-Za-z0-9 _.,:;!#$&'()*+/<=>@^|~\[\]{}-]")
    return '"' + "".join(chr(byte) if safe.match(bytes([byte])) else f"\\{byte:03o}" for byte in text.encode()) + '"'


def _numbers(content: bytes) -> str:
    lines = (content[i : i + 24] for i in range(0, len(content), 24))
    return "".join(f"    {','.join(map(str, line))},\n" for line in lines)
