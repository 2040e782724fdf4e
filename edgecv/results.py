"""What a run leaves in results.json, key for key (schema 1).

Shares are fractions in [0, 1]; `_pp` are percentage points; `_ms` milliseconds; `_bytes` bytes. A figure that was not
measured is null.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from edgecv.config import Config
from edgecv.errors import UsageError

__all__ = [
    "Accuracy",
    "ArtifactEntry",
    "Latency",
    "Memory",
    "Parity",
    "RecipeEntry",
    "Results",
    "Row",
    "SkippedEntry",
    "Speedup",
    "StepEntry",
    "Timing",
    "dump_results",
    "read_measurements",
    "read_results",
]

Interval = tuple[float, float]
# Where latencies are from: "measured" on the device by edgecv, or by "benchmark_model", Google's tool; or not the
# device's at all, and then nothing is ranked by them.
Timing = Literal["measured", "benchmark_model", "emulated", "estimated", "software-rendered"]


class ArtifactEntry(Config):
    """The file a row is about; `path` is relative to the run's folder, `sha256` over its files one after the other."""

    path: str
    sha256: str
    size_bytes: int
    gzip_bytes: int


class Accuracy(Config):
    """Accuracy on `n` test images, and the drop below the float Keras model on the same images.

    `top5` is null for fewer than 10 classes.
    """

    metric: str
    value: float
    n: int
    ci95: Interval
    drop_pp: float | None
    drop_ci95: Interval | None
    changed_predictions: int | None
    top5: float | None = None


class Parity(Config):
    """Outputs beside the float Keras model's: the largest difference of a probability, and the share of equal top-1.

    `max_abs`: None where an output was not a finite number: JSON has no other word for it.
    """

    reference: str
    max_abs: float | None
    top1_agreement: float

    @field_validator("max_abs", mode="before")
    @classmethod
    def _none_unless_finite(cls, value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value


class Latency(Config):
    """Milliseconds; a percentile is null where there are too few samples for 99 % confidence.

    An estimate is the same each time: it is `p50`, and the others are null.
    """

    init: float | None
    first: float | None
    p10: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    samples: int
    processes: int


class Speedup(Config):
    """Baseline latency over this row's: above 1 is faster. `answer`: faster, slower, or can't tell and why."""

    baseline: str
    ratio: float
    ci95: Interval | None
    answer: str


class Memory(Config):
    """Largest resident set of the process that ran the model; on a microcontroller, the arena and the flash it takes.

    `flash_bytes`: of what a compiler made of the file. `arena_bytes`: where the timing is "estimated", the SRAM that
    the compiler estimates for that; what the interpreter keeps comes on top.
    """

    peak_rss_bytes: int | None
    arena_bytes: int | None = None
    flash_bytes: int | None = None


class SkippedEntry(Config):
    """A layer that export left in float, or an operator that a compiler left to the CPU, and why."""

    layer: str
    reason: str

    @property
    def by_compiler(self) -> bool:
        """Whether it is a compiler's."""
        return "on the CPU: " in self.reason


class StepEntry(Config):
    """What one compression step did, before the export or in its repair.

    `accuracy`: on the validation split, before and after. `params`, `macs`: of the network that it left. `left`: what
    it did not touch, and why. `note`: what a remedy did to the file.
    """

    step: str
    seconds: float
    accuracy: tuple[float, float]
    params: int
    macs: int
    left: tuple[SkippedEntry, ...] = ()
    note: str = ""


class Row(Config):
    """One variant of one model on one target. `emulated`: by its `timing`, the latencies are not the device's."""

    model: str
    variant: str
    target: str
    runtime: str
    format: str
    precision: str
    executed_precision: str | None
    artifact: ArtifactEntry | None
    params: int | None
    macs: int | None
    accuracy: Accuracy | None
    parity: Parity | None
    latency_ms: Latency | None
    speedup: Speedup | None
    memory: Memory | None
    skipped: tuple[SkippedEntry, ...]
    steps: tuple[StepEntry, ...] = ()
    emulated: bool
    timing: Timing = "measured"
    status: str


class RecipeEntry(Config):
    """Which recipe, by its name and the digest of its values; and of the photographs, their labels and splits."""

    name: str
    sha256: str
    photographs_sha256: str = ""


class Results(Config):
    """The whole file. `host`: the machine that edgecv ran on. `devices`: by target, those that it reached from it."""

    model_config = ConfigDict(populate_by_name=True)

    schema_version: Literal[1] = Field(1, alias="schema")
    edgecv: str
    recipe: RecipeEntry
    host: dict[str, Any]
    devices: dict[str, dict[str, Any]] = Field(default_factory=dict)
    rows: tuple[Row, ...]


def dump_results(results: Results) -> str:
    """Write `results` as JSON text, keys in the schema's order."""
    return results.model_dump_json(by_alias=True, indent=1) + "\n"


def read_results(path: Path) -> Results:
    """Read a results.json.

    Raises:
        UsageError: it can't be read, or does not follow schema 1.
    """
    try:
        return Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"can't read {path}", got=error.strerror or str(error), fix="run `edgecv run` first"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{path} is not a results file of schema 1",
            got=": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"]))),
            fix="re-make it with `edgecv run`",
        ) from error


def read_measurements(path: Path) -> dict[str, Any]:
    """Read the measurements.json beside a results.json: `rows` of raw samples, `command` and `max_drop_pp`.

    Raises:
        UsageError: it can't be read, or lacks one of them.
    """
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict) and {"rows", "command", "max_drop_pp"} <= found.keys():
            return found
        problem = "keys are missing"
    except (OSError, ValueError) as error:
        problem = str(error)
    raise UsageError(f"can't read {path}", got=problem, fix="re-make it with `edgecv run`")
