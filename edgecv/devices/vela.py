"""Arm's compiler for Ethos-U: what runs on the NPU, and its estimates of time and memory."""

from __future__ import annotations

import csv
import importlib.metadata
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from edgecv.devices.compiled import Compiled, run_compiler, scratch, written
from edgecv.devices.device import ask
from edgecv.devices.local import Local
from edgecv.errors import DeviceError, MissingError
from edgecv.extras import install_command
from edgecv.target import Target

__all__ = ["compile_vela", "read_left", "read_summary", "vela_version"]

PACKAGE = "ethos-u-vela"
CONFIG = "Arm/vela.ini"  # in the package: configurations by the names that a target gives
MAIN = "import sys; from ethosu.vela.vela import main; sys.exit(main())"
KIB = 1024

COUNT = re.compile(r"^NPU operators = (\d+)", re.MULTILINE)
ON_CPU = re.compile(r"^ *CPU: .*? = (.*) \(outputs ", re.MULTILINE)
WARNING = re.compile(r"^Warning \(supported operators\) operator: \w+, ofm: '(.*)'\n *Reason: (.*)$", re.MULTILINE)


def vela_version() -> str:
    """Give the compiler's version.

    Raises:
        MissingError: it is not installed.
    """
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        what, fix = "Arm's compiler for Ethos-U is not installed", install_command("micro")
        raise MissingError(what, expected=f"the package {PACKAGE}", fix=fix) from error


def compile_vela(file: Path, digest: str, target: Target) -> Compiled:
    """Compile a file for the target's Ethos-U. The estimated latency is that of the NPU, without what is left.

    Raises:
        DeviceError: the compiler or TFLM refused the file, crashed or hung; or no operator runs on the NPU.
    """
    with scratch() as name:
        folder = Path(name)
        child = run_compiler([*_command(target), "--output-dir", name, str(file)], file, digest, target)
        left, found = read_left(child.stdout, _kinds(file, digest, target)), COUNT.search(child.stdout)
        if not found or not int(found[1]):
            kinds = ", ".join(sorted({kind for kind, _ in left})[:8])
            why = f"{len(left)} stay on the CPU: {kinds}"
            raise DeviceError(f"no operator runs on the {target.accelerator.title()} ({why})")
        latency_ms, sram_bytes = read_summary(written(folder, "*_summary_*.csv").read_text())
        return Compiled(written(folder, "*_vela.tflite").read_bytes(), left, latency_ms, sram_bytes)


def _kinds(file: Path, digest: str, target: Target) -> dict[str, str]:
    graph = ask(Local(target), (file,), do="graph", digests=(digest,))
    return {one["name"]: one["kind"] for one in graph["operators"]}


def _command(target: Target) -> list[str]:
    options = {
        "--config": CONFIG,
        "--accelerator-config": target.accelerator,
        "--system-config": target.npu.system_config,
        "--memory-mode": target.npu.memory_mode,
    }
    words = [word for option in options.items() for word in option]
    return [sys.executable, "-I", "-B", "-c", MAIN, "--show-cpu-operations", *words]


def read_left(said: str, kinds: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Read which operators stay on the CPU, and why, in the order of execution, from what the compiler says.

    `kinds`: what computes each tensor in the file. The compiler takes an operator for the activation fused into it.
    """
    reasons = dict(WARNING.findall(said))
    left = [(kinds.get(one, one), reasons.get(one, "the compiler gives no reason")) for one in ON_CPU.findall(said)]
    return tuple((kind, f"stays on the CPU: {reason}") for kind, reason in left)


def read_summary(text: str) -> tuple[float, int | None]:
    """Read (milliseconds, bytes of SRAM) from the compiler's summary, whose units are seconds and KiB.

    Where the feature maps lie in other memory, as with a Dedicated_Sram, there are no bytes: the SRAM is a cache, and
    of the other memory the summary gives weights and feature maps in one.

    Raises:
        DeviceError: it holds no such figures.
    """
    try:
        (row,) = csv.DictReader(text.splitlines())
        latency_ms, kib = 1000 * float(row["inference_time"]), float(row["sram_memory_used"])
        inside = row["feature_map_storage_area"] == "SRAM"
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError("the compiler's summary can't be read", got=f"{type(error).__name__}: {error}") from error
    if not (math.isfinite(latency_ms) and math.isfinite(kib) and latency_ms > 0 and kib >= 0):
        raise DeviceError("the compiler estimates nothing", got=f"{latency_ms:g} ms, {kib:g} KiB")
    return latency_ms, round(kib * KIB) if inside else None
