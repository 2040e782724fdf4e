"""Train by steps of the store: frozen features, head, each epoch; a killed training goes on where it was."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.store import Done, Step

__all__ = ["Epochs"]

STATE = "state.safetensors"
Do = Callable[[Step, Callable[[Path], Any]], Done]
Progress = Callable[[int, int, str], None]


class Epochs:
    """One training, as a chain of steps. The trainer is only made when a step has to be done.

    `make_trainer` returns a fresh `train.Trainer`. `params`, `inputs` and `tools` are what the training depends on;
    `prefix` begins the names of the steps.
    """

    def __init__(
        self,
        make_trainer: Callable[[], Any],
        *,
        do: Do,
        progress: Progress,
        params: Mapping[str, Any],
        inputs: tuple[str, ...],
        tools: Mapping[str, str],
        prefix: str = "",
    ) -> None:
        self._make, self._do, self._progress = make_trainer, do, progress
        self._params, self._inputs, self._tools, self._prefix = params, inputs, tools, prefix
        self._trainer: Any = None
        self._at: Done | None = None

    def run(
        self,
        epochs: int,
        *,
        head: bool,
        train: NDArray[np.uint8],
        val: NDArray[np.uint8],
        path: Callable[[str], Path],
    ) -> tuple[Any, list[Any]]:
        """Do what is left of the training; return the trainer with its last state, and the report of each step.

        `head`: whether the head is trained first. `train`, `val`: uint8 images `(n, size, size, 3)`. `path` finds an
        object of the store by its digest.
        """
        if head:
            features = self._step("features", self._inputs, lambda folder: self._features(folder, train, val))
            last = self._step("head", (features.digest,), lambda folder: self._head(folder, features, path))
        else:
            last = self._step("start", self._inputs, self._start)
        reports = [last.value] if head else []
        for epoch in range(epochs):
            before = last
            last = self._step(
                f"epoch-{epoch + 1}",
                (before.digest,),
                functools.partial(self._epoch, epoch=epoch, before=before, path=path),
            )
            reports.append(last.value)
        return self._trainer_at(last, path), reports

    def _step(self, name: str, inputs: tuple[str, ...], work: Callable[[Path], Any]) -> Done:
        done = self._do(Step(self._prefix + name, self._params, inputs, self._tools), work)
        if not done.reused and name != "features":
            self._at = done
        return done

    def _start(self, folder: Path) -> None:
        self._made()
        self._keep(folder)

    def _features(self, folder: Path, train: NDArray[np.uint8], val: NDArray[np.uint8]) -> None:
        for name, images in (("train", train), ("val", val)):
            self._progress(0, 1, f"features of {len(images)} {name} photographs")
            np.save(folder / f"{name}.npy", self._made().features(images), allow_pickle=False)

    def _head(self, folder: Path, features: Done, path: Callable[[str], Path]) -> Any:
        arrays = [np.load(path(features.files[f"{name}.npy"]), allow_pickle=False) for name in ("train", "val")]
        report = self._made().fit_head(*arrays, progress=self._progress)
        return self._save(folder, report)

    def _epoch(self, folder: Path, *, epoch: int, before: Done, path: Callable[[str], Path]) -> Any:
        report = self._trainer_at(before, path).run_epoch(epoch, progress=self._progress)
        return self._save(folder, report)

    def _save(self, folder: Path, report: Any) -> Any:
        self._keep(folder)
        return dataclasses.asdict(report)

    def _keep(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {name: np.asarray(array, order="C") for name, array in self._trainer.state().items()}
        save_file(arrays, folder / STATE)

    def _made(self) -> Any:
        if self._trainer is None:
            self._trainer = self._make()
        return self._trainer

    def _trainer_at(self, done: Done, path: Callable[[str], Path]) -> Any:
        """Return the trainer in the state that a step left, restoring it unless it is there already."""
        from safetensors.numpy import load_file

        trainer = self._made()
        if self._at is not done:
            trainer.restore(load_file(path(done.files[STATE])))
            self._at = done
        return trainer
