"""Google's benchmark_model: the shell commands that have it run a model on a device, and what it writes.

Flags as in `tflite/tools/benchmark/benchmark_model.cc` and `benchmark_tflite_model.cc` of LiteRT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import DeviceError
from edgecv.worker import dequantized

__all__ = ["Call", "Outputs", "delegate", "lacking"]

# The tool would fall back to the CPU in silence; and LiteRT's own choice for that, XNNPACK, comes before the others.
ALL_OF_IT = ("--require_full_delegation=true", "--use_xnnpack=false")
# Which processor is to run a graph.
DELEGATES = {
    "cpu": ("--use_xnnpack=true",),
    "gpu": ("--use_gpu=true", *ALL_OF_IT),
    "nnapi": ("--use_nnapi=true", *ALL_OF_IT),
}
ONCE = ("--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0")
# The kernel keeps a process's peak, so few looks will do; but the tool sleeps out the last interval before it prints.
PEAK = ("--report_peak_memory_footprint=true", "--memory_footprint_check_interval_ms=200")
NEEDED = (
    *("graph", "num_threads", "num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs"),
    *("report_peak_memory_footprint", "memory_footprint_check_interval_ms"),
    *("input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath"),
)
FLAG = re.compile(r"--(\w+)=", re.ASCII)


@dataclass(frozen=True)
class Call:
    """The tool's path, a model's and `delegate`'s flags; and an array's, uint8 `shape` (n, height, width, 3), to feed.

    Noise is fed where there is no array. Files named without a folder lie in that of the use.
    """

    tool: str
    model: str
    flags: tuple[str, ...]
    images: str = ""
    shape: tuple[int, ...] = ()

    def once(self) -> str:
        """Write the command that runs the model once."""
        return self._process("0", *ONCE)

    def timed(self, *, seconds: float, warmup_seconds: float, most_seconds: float) -> str:
        """Write the command that measures in one process."""
        runs = ("--num_runs=1", f"--min_secs={seconds:g}", f"--max_secs={most_seconds:g}")
        return self._process("0", *runs, "--warmup_runs=1", f"--warmup_min_secs={warmup_seconds:g}", *PEAK)

    def answered(self, begin: int, end: int, place: str) -> str:
        """Write the command that runs images `begin` to `end`, a process each, and has all outputs in `place`.

        It prints what the last process wrote.
        """
        one = f"rm -f answer; {self._process('$i', *ONCE, '--output_filepath=answer', replaces=False)} >log 2>&1"
        failed = "{ code=$?; cat log >&2; exit $code; }"
        kept = f"cat answer >>{place} || exit"
        all_ = f"i={begin}; while [ $i -lt {end} ]; do {one} || {failed}; {kept}; i=$((i+1)); done"
        return f"rm -f {place}; {all_}; cat log"

    def _process(self, image: str, *flags: str, replaces: bool = True) -> str:
        """Write the command of one process; it `replaces` the shell, so that it ends when that is killed."""
        command = " ".join((self.tool, f"--graph={self.model}", *self.flags, *flags))
        if replaces:
            command = f"exec {command}"
        if not self.images:
            return command
        sizes = ",".join(map(str, (1, *self.shape[1:])))
        # The tool warns where the file names its input otherwise; there is only one.
        feed = f"--input_layer=image --input_layer_shape={sizes} --input_layer_value_files=image:image"
        cut = f"dd if={self.images} of=image bs={math.prod(self.shape[1:])} skip={image} count=1 2>/dev/null"
        return f"{cut} && {command} {feed}"


@dataclass(frozen=True)
class Outputs:
    """What the tool writes for `count` images: all outputs of one, as `tensors` describes them, then the next's."""

    count: int
    tensors: Sequence[Mapping[str, Any]]

    @property
    def size_bytes(self) -> int:
        """How large they are, one file of all images."""
        return self.count * sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [np.dtype(one["dtype"]).itemsize * math.prod(one["shape"]) for one in self.tensors]

    def read(self, content: bytes) -> NDArray[np.float32]:
        """Give the first output for each image, float32 `(n, ...)`."""
        sizes = self._sizes
        if len(content) != self.size_bytes:
            got, expected = f"{len(content)} bytes", f"{self.size_bytes}"
            raise DeviceError("benchmark_model wrote other outputs than the file has", got=got, expected=expected)
        first = np.frombuffer(content, np.uint8).reshape(self.count, -1)[:, : sizes[0]]
        spec = dict(self.tensors[0])
        values = np.ascontiguousarray(first).view(spec["dtype"]).reshape(self.count, *spec["shape"][1:])
        return np.asarray(dequantized(values, spec), np.float32)


def delegate(accelerator: str, *, precision: str, threads: int) -> tuple[str, ...]:
    """Give the flags for the processor that is to run a graph."""
    exact = ("--gpu_precision_loss_allowed=false",) if (accelerator, precision) == ("gpu", "float32") else ()
    return (f"--num_threads={threads}", *DELEGATES[accelerator], *exact)


def lacking(usage: str, flags: Iterable[str]) -> list[str]:
    """List what edgecv needs of the tool, and what `flags` name, that its `--help` does not."""
    needed = {*NEEDED, *(name for flag in flags for name in FLAG.findall(flag))}
    return sorted(needed - set(FLAG.findall(usage)))
