"""Why a version answers otherwise than the float network: its layers, its classes, and the photographs themselves."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import data, runtimes
from edgecv.answers import answers
from edgecv.devices import Device
from edgecv.errors import EdgecvError
from edgecv.explain import NOTES, layer_noise, shown_by, verdict, worst
from edgecv.photographs import tools
from edgecv.rows import Entry
from edgecv.stages import Stages
from edgecv.store import Step
from edgecv.target import Target
from edgecv.verify import top_k

__all__ = ["causes", "thumbnail"]

# Precisions in which activations are rounded to ranges that were fixed before.
ROUNDED = {"int8", "int16x8"}
# Photographs that layers are compared on, layers kept of each version, and photographs shown of each.
IMAGES, LAYERS, SHOWN = 16, 10, 12
SIDE, QUALITY = 64, 75

Floats = NDArray[np.float32]


def causes(stages: Stages, entries: Sequence[tuple[Device, Entry]]) -> dict[str, Any]:
    """Gather for measurements.json what the page shows of each version that was verified.

    `classes`: names, photographs and hits by class, of the float network and of each version. `layers`: of each int8
    version, the verdict and the worst layers, as `LayerNoise.to_json` has them. `changed`: of each version, how many
    photographs it answers otherwise than the float network, and some of them as small JPEGs.
    """
    judged = [(device, entry) for device, entry in entries if entry.artifact and entry.verdict]
    labels, reference = stages.labels("test"), stages.reference
    count = len(stages.classes)
    found: dict[str, Any] = {
        "classes": {
            "names": stages.classes,
            "photographs": np.bincount(labels, minlength=count).tolist(),
            "float": _hits(reference, labels, count),
            "versions": [],
        },
        "layers": [],
        "changed": [],
    }
    for device, entry in judged:
        who = {"variant": entry.variant, "target": device.target.name}
        got = _answers(stages, device, entry)
        found["classes"]["versions"].append({**who, "hits": _hits(got, labels, count)})
        found["changed"].append({**who, **_changed(stages, got)})
        if entry.precision in ROUNDED:
            found["layers"].append({**who, **_layers(stages, device.target, entry)})
    return found


def thumbnail(image: NDArray[np.uint8]) -> str:
    """Write a photograph, uint8 `(height, width, 3)`, as a data URI of a JPEG of 64x64."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).resize((SIDE, SIDE)).save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _answers(stages: Stages, device: Device, entry: Entry) -> Floats:
    """Give the probabilities that the version was judged by, from the store."""
    assert entry.artifact is not None
    label = f"{entry.variant} verified on {device.target.name}"
    return answers(stages, device, entry.artifact, entry.files(stages.out), label=label)[0]


def _hits(probabilities: Floats, labels: NDArray[np.int64], count: int) -> list[int]:
    """Count the photographs of each class that are answered right."""
    found: list[int] = np.bincount(labels[top_k(probabilities, labels, 1)], minlength=count).tolist()
    return found


def _changed(stages: Stages, got: Floats) -> dict[str, Any]:
    """Choose photographs with another answer: those that were right first, the surest of the float network first."""
    labels, reference = stages.labels("test"), stages.reference
    before, after = reference.argmax(axis=1), got.argmax(axis=1)
    places = np.flatnonzero(before != after)
    places = places[np.lexsort((-reference[places].max(axis=1), before[places] != labels[places]))]
    names, images = stages.classes, stages.images("test")
    shown = [
        {
            "image": thumbnail(np.asarray(images[place])),
            "label": names[labels[place]],
            "float": names[before[place]],
            "version": names[after[place]],
        }
        for place in places[:SHOWN]
    ]
    return {"count": len(places), "shown": shown}


def _layers(stages: Stages, target: Target, entry: Entry) -> Mapping[str, Any]:
    """Compare the version's layers with the float network that it was made from, once for equal files."""
    artifact, steps = entry.artifact, entry.network.steps
    assert artifact is not None
    files = entry.files(stages.out)
    runtime = shown_by(files[0], target).runtime
    digests = tuple(digest for _, digest in artifact.files)
    network = stages.shaped(steps).files["model.safetensors"]

    def work(_: Any) -> Any:
        label = f"{entry.variant} on {target.name}: its layers"
        stages.listener.progress(0, 1, label)
        chosen = data.stratified(stages.labels("test"), IMAGES, seed=0)
        layers = layer_noise(
            files,
            stages.plain(steps),
            np.asarray(stages.images("test")[chosen]),
            preprocess=stages.recipe.preprocess,
            target=target,
            digests=digests,
        )
        return {"verdict": verdict(layers), "layers": [one.to_json() for one in worst(layers, LAYERS)]}

    params = {"runtime": runtime, "images": IMAGES, "layers": LAYERS}
    inputs = (*digests, network, stages.loaded.files["test_images.npy"])
    package = runtimes.RUNTIMES[runtime].package
    step = Step("explain", params, inputs, tools(package, "tensorflow", "numpy", code=("explain", "worker")))
    try:
        found = stages.do(step, work, label=f"{entry.variant} explained on {target.name}").value
    except EdgecvError as error:
        found = {"verdict": f"can't tell: {error.what}" + (f": {error.got}" if error.got else ""), "layers": []}
    return {**found, "note": NOTES[runtime]}
