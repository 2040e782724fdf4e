"""What a bundle's documents tell of: the version, what it was made of, and what was found out about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv import data
from edgecv.artifact import digest_files
from edgecv.bundle.drift import Drift
from edgecv.recipe import Recipe
from edgecv.results import Results, Row
from edgecv.runtimes import RUNTIMES

__all__ = ["IMAGENET_LICENCE", "UNKNOWN", "About", "hits_by_class", "source_name"]

UNKNOWN = "unknown"  # as Hugging Face calls a licence that nobody told
IMAGENET_LICENCE = "Apache-2.0"  # of the packages that hold its weights, and of those that Keras Applications fetches


@dataclass(frozen=True)
class About:
    """One version on one target. `hits`: of each class, photographs answered right and all, where a run counted them.

    `accelerator`: as the target has it. `licence`: an SPDX id, or `UNKNOWN`. `files`: the model's, in the bundle.
    `spec`: as preprocess.json has it. `drift`: None where it was not measured.
    """

    row: Row
    accelerator: str
    results: Results
    recipe: Recipe
    index: data.Index
    licence: str
    files: tuple[Path, ...]
    spec: Mapping[str, Any]
    tolerance: float
    count: int
    hits: tuple[tuple[str, int, int], ...]
    drift: tuple[Drift, ...] | None

    @property
    def name(self) -> str:
        """Which version, in words that a file name may hold."""
        return f"{self.row.model}-{self.row.variant}-{self.row.target}"

    @property
    def from_imagenet(self) -> bool:
        """Tell whether training began with ImageNet weights."""
        return self.recipe.model.weights == "imagenet"

    @property
    def digest(self) -> str:
        """SHA-256 of the model's files, one after the other."""
        return digest_files(*self.files)

    @property
    def machine(self) -> Mapping[str, Any]:
        """The facts of the machine that the version ran on."""
        own = self.results.devices.get(self.row.target)
        return self.results.host if own is None else own

    @property
    def software(self) -> Mapping[str, str]:
        """Versions of what ran the version, by package: on another device all that it tells."""
        noted: Mapping[str, str] = self.machine.get("runtimes", {})
        if self.row.target in self.results.devices:
            return noted
        return {name: noted[name] for name in (RUNTIMES[self.row.runtime].package, "numpy") if name in noted}

    @property
    def warnings(self) -> list[str]:
        """What disturbed measuring the version: a run's warnings of the device, of itself, and of the run's machine.

        Those name nobody; where another processor ran the version they are not of it.
        """
        if self.row.latency_ms is None or self.row.timing == "estimated":
            return []
        rows, found = self.results.rows, self.results.host.get("warnings", ())
        named = {f"{row.variant} on {row.target}: " for row in rows} | {f"{row.target}: " for row in rows}
        own = (f"{self.row.variant} on {self.row.target}: ", f"{self.row.target}: ")
        here = self.machine.get("cpu") == self.results.host.get("cpu")
        others = tuple(named.difference(own)) if here else ("",)
        return [warning for warning in found if warning.startswith(own) or not warning.startswith(others)]


def source_name(source: str) -> str:
    """Name where photographs are from, without the path on the machine that read them.

    >>> source_name("/data/photos"), source_name("elpv")
    ('photos', 'elpv')
    """
    return source if source.startswith("tfds:") else Path(source).name


def hits_by_class(measurements: Path, row: Row) -> tuple[tuple[str, int, int], ...]:
    """Read of a run's measurements.json how many photographs of each class the version has right; empty without."""
    try:
        found = json.loads(measurements.read_bytes()).get("classes", {})
        versions: Sequence[Mapping[str, Any]] = found.get("versions", [])
    except (OSError, ValueError, AttributeError):
        return ()
    for one in versions:
        if (one["variant"], one["target"]) == (row.variant, row.target):
            return tuple(zip(found["names"], one["hits"], found["photographs"], strict=True))
    return ()
