"""The photographs of a recipe, decoded once, and the means by which every stage does its steps."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import compress, data
from edgecv.artifact import digest_files
from edgecv.listener import Listener
from edgecv.recipe import Recipe
from edgecv.store import Done, Step, Store

__all__ = ["OUTPUTS", "Abandoned", "Photographs", "tools"]

OUTPUTS = "probabilities.npy"


class Abandoned(Exception):
    """Ends a thread whose work nobody waits for any more."""


class Photographs:
    """A recipe's photographs, split and decoded; each step is done once for equal inputs.

    Files for people to take away are copied into `out`.
    """

    def __init__(self, recipe: Recipe, *, out: Path, store: Store, listener: Listener | None = None) -> None:
        self.recipe, self.out, self.store, self.listener = recipe, out, store, listener or Listener()
        self.keys: list[str] = []
        self._here, self._abandoned = threading.RLock(), threading.Event()

    @functools.cached_property
    def index(self) -> data.Index:
        """The photographs, hashed anew in each run: a changed folder is a changed input."""
        index = data.index(self.recipe.data, cache=self.store.root)
        for warning in index.warnings:
            self.listener.note(warning)
        return index

    @functools.cached_property
    def loaded(self) -> Done:
        """The decoded photographs: `{split}_images.npy` and `{split}_labels.npy`."""
        index, preprocess = self.index, self.recipe.preprocess

        def work(folder: Path) -> Any:
            if index.licence:
                self.listener.note(index.licence)
            loaded = data.load(index, preprocess, progress=self._progress("decoding photographs"))
            for split, images in loaded.images.items():
                np.save(folder / f"{split}_images.npy", images, allow_pickle=False)
                np.save(folder / f"{split}_labels.npy", loaded.labels[split], allow_pickle=False)
            counts = {split: len(labels) for split, labels in loaded.labels.items()}
            return {"classes": index.classes, "counts": counts, "skipped": loaded.skipped}

        params = {
            "geometry": preprocess.model_dump(include={"size", "resize", "crop_fraction", "filter"}),
        }
        done = self.do(
            Step("data", params, (data.index_digest(index),), tools("numpy", "pillow", code=("data",))), work
        )
        for line in done.value["skipped"]:
            self.listener.note(f"skipped {line}")
        return done

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return tuple(self.loaded.value["classes"])

    def images(self, split: str) -> NDArray[np.uint8]:
        """Photographs of a split, uint8 `(n, size, size, 3)`, mapped from the store."""
        images: NDArray[np.uint8] = np.load(self.images_path(split), mmap_mode="r", allow_pickle=False)
        return images

    def labels(self, split: str) -> NDArray[np.int64]:
        """Labels of a split, int64 `(n,)`."""
        path = self.store.path(self.loaded.files[f"{split}_labels.npy"])
        return np.asarray(np.load(path, allow_pickle=False), np.int64)

    def images_path(self, split: str) -> Path:
        """Return the .npy file of a split's photographs."""
        return self.store.path(self.loaded.files[f"{split}_images.npy"])

    @functools.cached_property
    def calibration(self) -> NDArray[np.int64] | None:
        """Indices into the train split of the representative data set; None where no variant needs one.

        Raises:
            ConfigError: there are too few.
        """
        settings = self.recipe.calibration
        if not any({"int8", "int16x8", "qat"} & {*steps} for steps in self.recipe.variants.values()):
            return None
        chosen = data.stratified(self.labels("train"), settings.images, seed=settings.seed)
        if warning := compress.check_calibration(len(chosen), allow_few=settings.allow_few):
            self.listener.note(warning)
        return chosen

    def do(self, step: Step, work: Callable[[Path], Any], *, label: str = "", elsewhere: bool = False) -> Done:
        """Do a step, or reuse it, and tell the listener.

        `elsewhere`: another machine does the work, so that it goes on beside what is done here, one step at a time.
        """
        with contextlib.nullcontext() if elsewhere else self._here:
            if self._abandoned.is_set():
                raise Abandoned
            done = self.store.run(step, work)
        if done.key not in self.keys:  # what a run asks for twice was not reused from an earlier one
            self.keys.append(done.key)
            self.listener.ended(label or step.name, done.seconds, reused=done.reused)
        return done

    def abandon(self) -> None:
        """Have every thread that asks for another step end."""
        self._abandoned.set()

    def array(self, done: Done) -> NDArray[np.float32]:
        """Probabilities that a step left, float32 `(n, classes)`."""
        return np.asarray(np.load(self.store.path(done.files[OUTPUTS]), allow_pickle=False), np.float32)

    def _progress(self, text: str) -> Callable[[int, int], None]:
        return lambda done, total: self.listener.progress(done, total, text)


def tools(*packages: str, code: Sequence[str]) -> dict[str, str]:
    """What a step is made with: versions of packages, and the digest of edgecv's modules that do it."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    here = Path(__file__).parent
    paths = [path for name in code for path in (sorted((here / name).glob("*.py")) or [here / f"{name}.py"])]
    return {**found, "edgecv": digest_files(*paths)}
