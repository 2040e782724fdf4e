"""Microcontrollers and NPUs, which are not reached: kernels here compute what they would, and compilers estimate."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecv.artifact import digest_files
from edgecv.devices import compiled
from edgecv.devices.compiled import Compiled, Compiler
from edgecv.devices.device import Facts, Ran
from edgecv.devices.edgetpu import compile_edgetpu, edgetpu_version
from edgecv.devices.local import Local
from edgecv.devices.vela import compile_vela, vela_version
from edgecv.errors import MissingError
from edgecv.target import Target

__all__ = ["Compiling", "EdgeTpu", "EthosU", "Micro", "reference"]

# How long it takes here says nothing of there.
UNTIMED: dict[str, Any] = {"init_ms": None, "first_ms": None, "latencies_ms": [], "peak_rss_bytes": None}


class Micro(Local):
    """A microcontroller: TFLM's reference kernels give its outputs and its arena. It has no latency."""

    kernels = "TFLM's reference kernels"

    def _asked(self) -> Facts:
        facts = super()._asked()
        machine = {**facts.machine, "cpu": f"{self.kernels}, on {facts.machine['cpu']}"}
        return replace(facts, machine=machine, code=digest_files(*self.code()))

    def code(self) -> tuple[Path, ...]:
        """List the modules that make a file's figures of what the worker answers."""
        return (Path(__file__),)

    def run(self, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Run the worker in a child process; of a bench, give what the file costs there."""
        if job["do"] != "bench":
            return super().run(job, timeout_seconds=timeout_seconds)
        ran = super().run({**job, "do": "describe"}, timeout_seconds=timeout_seconds)
        if ran.child.problem or "inputs" not in ran.answer:
            return ran
        return replace(ran, answer={**ran.answer, **UNTIMED, **self.cost(job)})

    def cost(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Give what is known of a file's cost beyond the arena: nothing."""
        return {}


class Compiling(Micro):
    """An accelerator with a compiler of its own."""

    compiler: Compiler

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._compiled: dict[str, Compiled] = {}

    def _asked(self) -> Facts:
        facts, versions = super()._asked(), {}
        with contextlib.suppress(MissingError):
            versions[self.compiler.name] = self.compiler.version()
        return replace(facts, versions={**facts.versions, **versions})

    def code(self) -> tuple[Path, ...]:
        """Add those that read what the compiler says."""
        return (*super().code(), Path(compiled.__file__), Path(inspect.getfile(self.compiler.compile)))

    def made(self, file: Path, digest: str) -> Compiled:
        """Compile a file, once for the same bytes.

        Raises:
            MissingError: the compiler is not installed.
            DeviceError: it refused the file, or leaves all of it to the CPU.
        """
        if digest not in self._compiled:
            self._compiled[digest] = self.compiler.compile(file, digest, self.target)
        return self._compiled[digest]

    def cost(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Give the compiler's estimates, the size of its file, and what it leaves to the CPU."""
        file, digest = job["files"][0]
        made = self.made(Path(file), digest)
        times = [] if made.latency_ms is None else [made.latency_ms]
        sizes = {"arena_bytes": made.sram_bytes, "flash_bytes": len(made.content)}
        return {"latencies_ms": times, **sizes, "left": made.left}


class EthosU(Compiling):
    """An Ethos-U: its compiler's estimates, and the outputs of the kernels that Arm tests it against.

    Source: Arm, README of ethos-u-vela: "tested by comparing the bit exact numerical behaviour of the Ethos-U
    optimised operators against that of the corresponding TensorFlow Lite reference kernels".
    """

    compiler = Compiler("ethos-u-vela", "_vela.tflite", vela_version, compile_vela)

    def _asked(self) -> Facts:
        self.compiler.version()  # without it there are no figures
        return replace(super()._asked(), timing="estimated")

    def run(self, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Compile the file first: one that the NPU runs nothing of is not this device's."""
        if job["do"] in ("describe", "predict"):
            file, digest = job["files"][0]
            self.made(Path(file), digest)
        return super().run(job, timeout_seconds=timeout_seconds)


class EdgeTpu(Compiling):
    """Coral's Edge TPU: LiteRT's kernels give the file's outputs; without its compiler there is no more."""

    compiler = Compiler("edgetpu_compiler", "_edgetpu.tflite", edgetpu_version, compile_edgetpu)
    kernels = "LiteRT's kernels"


def reference(target: Target) -> Micro:
    """Give the device of a target's accelerator."""
    if target.accelerator == "cpu":
        return Micro(target)
    return EdgeTpu(target) if target.accelerator == "edgetpu" else EthosU(target)
