"""Explain a file that lies somewhere: with the preprocessing that travels in it, and photographs from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgecv import data, keras_file
from edgecv.errors import ModelError
from edgecv.explain.layers import NOTES, layer_noise
from edgecv.explain.network import Network
from edgecv.explain.noise import LayerNoise, verdict
from edgecv.metadata import read_metadata
from edgecv.quiet import load_tensorflow
from edgecv.recipe import Data, Preprocess
from edgecv.runtimes import model_files, require, runtime_for
from edgecv.store import default_root
from edgecv.target import Target

__all__ = ["Explanation", "explain_file"]


@dataclass(frozen=True)
class Explanation:
    """A file's layers in the network's order; `missing`: layers with weights that the file does not show."""

    layers: tuple[LayerNoise, ...]
    verdict: str
    missing: tuple[str, ...]
    images: int
    note: str


def explain_file(path: Path, against: Path, *, source: Data | str, images: int = 32) -> Explanation:
    """Compare a .tflite or .xml file that edgecv built with the float Keras network, layer by layer.

    `against`: the model.safetensors. `source`: photographs of which `images` of the test split are taken, the same
    share of each class; all of them count as test where it is a folder, a CSV or a name alone.

    Raises:
        ModelError: the file is not one that edgecv built, or not of this network.
        DataError: there are no photographs.
        DeviceError: the runtime refused the file, crashed or hung.
    """
    runtime = runtime_for(path)
    files = model_files(path)
    preprocess = _preprocess(path, read_metadata(path))
    require(runtime)
    load_tensorflow()
    model = keras_file.load_model(against)
    photographs = _photographs(source, preprocess, images)
    target = Target(name="this-machine", runtime=runtime)
    layers = layer_noise(files, model, photographs, preprocess=preprocess, target=target)
    shown = {part for one in layers for part in one.parts}
    missing = tuple(name for name in Network(model).weighted if name not in shown)
    return Explanation(layers, verdict(layers), missing, len(photographs), NOTES[runtime])


def _preprocess(path: Path, metadata: dict[str, Any] | None) -> Preprocess:
    """Read what the file says of its input."""
    try:
        values = dict((metadata or {})["preprocess"])
        values.pop("color", None)
        return Preprocess.model_validate(values)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ModelError(
            f"{path} does not say how photographs are prepared for it",
            got="no metadata of edgecv's" if metadata is None else "no valid preprocess in its metadata",
            expected="a .tflite or .xml file that edgecv built",
            fix="build it with `edgecv export`",
        ) from error


def _photographs(source: Data | str, preprocess: Preprocess, count: int) -> NDArray[np.uint8]:
    """Decode photographs of the test split, the same share of each class."""
    cache = default_root()
    index = data.index(source, cache=cache) if isinstance(source, Data) else data.all_test(source, cache=cache)
    samples = [one for one in index.samples if one.split == "test"]
    chosen = data.stratified(np.array([one.label for one in samples]), count, seed=0)
    kept = replace(index, samples=tuple(samples[place] for place in chosen))
    return data.load(kept, preprocess).images["test"]
