"""The apps of a bundle: code for the runtime of its target."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgecv.artifact import digest_files
from edgecv.bundle.about import About
from edgecv.bundle.c_source import GoldenFrame, c_source, golden_frame
from edgecv.bundle.golden import predicted
from edgecv.bundle.web import web_app
from edgecv.devices import Compiling, Device, ask
from edgecv.store import write_atomically

__all__ = ["write_apps"]

HERE = Path(__file__).parent / "app"
BUILT = shutil.ignore_patterns("__pycache__", "build")
# Folders of app/, by the runtime that their code is for.
APPS = {"litert": ("python", "android"), "openvino": ("python", "cpp"), "tflm": ("c",)}


def write_apps(about: About, device: Device, to: Path) -> None:
    """Copy the apps that a target's runtime has into the bundle `to`, whose golden photographs are there.

    Beside the model: what an accelerator's compiler makes of it.

    Raises:
        MissingError: the target is a browser, and LiteRT.js was not fetched.
        DeviceError: the device can't be reached, or refused the model.
    """
    for language in APPS.get(about.row.runtime, ()):
        shutil.copytree(HERE / language, to / "app" / language, ignore=BUILT)
    if about.row.runtime == "tflm":
        _write_c(about, device, to)
    if isinstance(device, Compiling):
        (model,) = about.files
        made = device.made(model, digest_files(model))
        write_atomically(to / f"{model.stem}{device.compiler.suffix}", made.content)
    if device.target.transport == "browser":
        web_app(to)


def _write_c(about: About, device: Device, to: Path) -> None:
    """Write the model as C."""
    (model,), preprocess = about.files, about.recipe.preprocess
    frame, pixels = golden_frame(to / "golden" / "0.png", preprocess)
    outputs, _ = predicted(device, about.files, pixels[None])
    texts = c_source(
        model.read_bytes(),
        labels=about.index.classes,
        preprocess=preprocess,
        operators=[one["kind"] for one in ask(device, about.files, do="graph")["operators"]],
        golden=GoldenFrame(frame, pixels, outputs[0], about.tolerance),
        # Not the row's: for an Ethos-U that is what the compiled model takes.
        arena_bytes=ask(device, about.files, do="describe")["arena_bytes"],
    )
    for name, text in texts.items():
        (to / "app" / "c" / name).write_text(text, encoding="utf-8")
