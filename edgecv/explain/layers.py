"""Run a file and the float network on the same photographs, and compare them layer by layer."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import digest_files
from edgecv.devices import Local, ask
from edgecv.errors import DataError, ModelError
from edgecv.explain.graph import Match, match, read_graph
from edgecv.explain.network import Network
from edgecv.explain.noise import LayerNoise, Tally
from edgecv.quiet import load_tensorflow
from edgecv.recipe import Preprocess
from edgecv.target import Target

__all__ = ["NOTES", "layer_noise", "shown_by"]

# What the tensors of one process may take on the disk; more photographs are run by more processes.
MOST_BYTES = 400_000_000
# One pass of the float network over this many images holds all their activations.
BATCH = 8

# How what a runtime holds inside is come by, and what that does not show.
NOTES = {
    "litert": "values inside are those of LiteRT's built-in kernels; what runs the file, XNNPACK say, hides its own",
    "openvino": "values inside are those of the graph with an output for each layer, which OpenVINO may fuse otherwise",
}

Images = NDArray[np.uint8]


def shown_by(file: Path, target: Target) -> Target:
    """Choose the target that shows what a file holds inside: OpenVINO drops the names in a .tflite file, LiteRT not."""
    return target.model_copy(update={"runtime": "litert"}) if file.suffix == ".tflite" else target


def layer_noise(
    files: Sequence[Path],
    model: Any,
    images: Images,
    *,
    preprocess: Preprocess,
    target: Target,
    digests: tuple[str, ...] | None = None,
) -> tuple[LayerNoise, ...]:
    """Compare each layer that a file and a float Keras network share, in the network's order.

    `files`: a .tflite file, or an IR's .xml and .bin, made of `model`, which gives logits. `images`: uint8
    `(n, size, size, 3)`, 2 at least; memory and disk do not grow with n. `target`: the runtime that opens the file, in
    a process on this machine (see `shown_by`). `digests`: SHA-256s that the files must have.

    Raises:
        ModelError: the file is not a version of `model`.
        DataError: the images are not what the network takes.
        DeviceError: the runtime refused the file, crashed or hung.
    """
    _check(images, preprocess)
    target = shown_by(files[0], target)
    load_tensorflow()
    sums = digests or tuple(digest_files(file) for file in files)
    asked = functools.partial(ask, Local(target), tuple(files), digests=sums)
    operators = asked(do="graph")["operators"]
    network = Network(model)
    found = match(read_graph(operators), network, channels_first=target.runtime == "openvino")
    _check_match(found, network, model.name, files[0])
    tallies = {one.layer: Tally(one.shape[-1], one.tensor.quantised) for one in found}
    for part, stored in _traces(images, found, asked):
        for begin in range(0, len(part), BATCH):
            rows = slice(begin, begin + BATCH)
            got = {one.layer: one.values(np.asarray(stored[one.tensor.id][rows])) for one in found}
            reference, expected = network.run(part[rows], got, preprocess)
            for layer, tally in tallies.items():
                tally.add(got[layer], reference[layer], expected[layer])
    return tuple(tally.result(layer, network.unit(layer)) for layer, tally in tallies.items())


def _traces(
    images: Images, found: Sequence[Match], asked: Callable[..., dict[str, Any]]
) -> Iterator[tuple[Images, dict[int, NDArray[Any]]]]:
    """Run as many photographs as the disk may hold the tensors of, and give what was stored, until all are run."""
    ids = tuple(sorted({one.tensor.id for one in found}))
    size = 4 * sum(int(np.prod(one.shape)) for one in found)
    count = max(1, MOST_BYTES // size)
    for begin in range(0, len(images), count):
        part = np.ascontiguousarray(images[begin : begin + count])
        with tempfile.TemporaryDirectory(prefix="edgecv-") as name:
            folder = Path(name)
            np.save(folder / "images.npy", part, allow_pickle=False)
            asked(
                do="trace",
                images=folder / "images.npy",
                outputs=folder,
                tensors=ids,
                outputs_bytes=max(MOST_BYTES, size),
            )
            yield part, {one: np.load(folder / f"{one}.npy", mmap_mode="r", allow_pickle=False) for one in ids}


def _check(images: Images, preprocess: Preprocess) -> None:
    side = preprocess.size
    if images.dtype != np.uint8 or images.shape[1:] != (side, side, 3) or len(images) < 2:
        raise DataError(
            "these are not photographs to compare a network on",
            got=f"{images.dtype} {images.shape}",
            expected=f"uint8 (n, {side}, {side}, 3), n of 2 or more",
        )


def _check_match(found: Sequence[Match], network: Network, name: str, file: Path) -> None:
    """Refuse a file in which fewer than half of the network's layers with weights are found."""
    matched = len({network.unit(one.layer)[0] for one in found} & set(network.weighted))
    if 2 * matched < len(network.weighted) or not found:
        raise ModelError(
            f"{file.name} is not a version of the network {name}",
            got=f"{matched} of its {len(network.weighted)} layers with weights, by name and shape",
            expected="a file that edgecv built of this very network",
            fix="give the model.safetensors that it was built of with --against",
        )
