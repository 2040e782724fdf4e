"""A bundle as an app finds it, made by hand: a small model, real photographs, and what training's decoder gives."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edgecv.data.decode import decode
from edgecv.recipe import Preprocess

LABELS = ("harbour", "tulip", "Größe")
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def sample_photographs() -> tuple[Path, Path]:
    """Two photographs of 640 x 427 that scikit-learn ships."""
    sklearn = pytest.importorskip("sklearn", reason="scikit-learn ships the photographs")
    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    return folder / "china.jpg", folder / "flower.jpg"


def write_photographs(folder: Path) -> list[Path]:
    """Photographs of each kind that an app may meet.

    A JPEG, a PNG, a JPEG turned by its EXIF, a grey JPEG, a PNG that is partly transparent, and a tall one; one that is
    turned by its EXIF and names a gamma that training ignores, one of 16-bit grey, a palette partly transparent.
    """
    china, flower = sample_photographs()
    folder.mkdir(parents=True)
    shutil.copy(china, folder / "0.jpg")
    with Image.open(flower) as image:
        image.resize((401, 300)).save(folder / "1.png")
        exif = image.getexif()
        exif[0x0112] = 6
        image.crop((0, 0, 300, 400)).save(folder / "2.jpg", exif=exif, quality=90)
        image.convert("L").save(folder / "3.jpg")
        fading = image.resize((200, 120))
        fading.putalpha(Image.linear_gradient("L").resize(fading.size))
        fading.save(folder / "4.png")
        image.crop((200, 0, 350, 427)).save(folder / "5.png")
        small = Image.fromarray(np.asarray(image.resize((200, 120))))  # as `image`, but for its colour profile
        gamma = PngInfo()
        gamma.add(b"gAMA", (100_000).to_bytes(4, "big"))
        small.save(folder / "6.png", pnginfo=gamma, exif=exif)
        Image.fromarray(np.asarray(small.convert("L"), np.uint16) * 257).save(folder / "7.png")
        small.quantize(64).save(folder / "8.png", transparency=bytes(range(0, 256, 4)))
    return sorted(folder.iterdir())


def write_bundle(
    folder: Path, model: Sequence[Path], run: Run, preprocess: Preprocess, *, dtype: str = "uint8"
) -> Path:
    """Write a bundle of `model`: `run` gives its probabilities for pixels, which it takes as `dtype`."""
    for path in model:
        shutil.copy(path, folder / f"model{path.suffix}")
    images, outputs = [], np.zeros(0)
    for path in write_photographs(folder / "golden"):
        pixels = decode(path, preprocess)
        outputs = run(pixels)
        (path.parent / f"{path.stem}.input.bin").write_bytes(pixels.astype(dtype).tobytes())
        label = LABELS[int(outputs.argmax())]
        given = [float(value) for value in outputs]
        images.append({"image": path.name, "input": f"{path.stem}.input.bin", "outputs": given, "label": label})
    tensor = {"name": "image", "shape": [1, preprocess.size, preprocess.size, 3], "dtype": dtype}
    spec: dict[str, Any] = {**preprocess.model_dump(), "color": "RGB", "input": tensor}
    output = {"name": "probabilities", "shape": [1, len(LABELS)], "dtype": "float32"}
    write_json(folder / "preprocess.json", {**spec, "output": output, "normalised_by": "model"})
    golden = {"preprocess": spec, "labels": LABELS, "images": images, "tolerance": 0.02, "pixel_tolerance": 3.0}
    write_json(folder / "golden" / "golden.json", golden)
    believe(folder)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
    return folder


def believe(bundle: Path) -> None:
    """Let golden.json name the model's files as they are now: what else a self-test sees is then seen alone."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.glob("model.*")}
    golden = bundle / "golden" / "golden.json"
    write_json(golden, {**json.loads(golden.read_text(encoding="utf-8")), "files": files})


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
