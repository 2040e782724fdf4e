"""Facts about the machine that latencies depend on. No host name, no user name, no path is ever among them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "Disturbance",
    "cpu_flags",
    "cpu_name",
    "cpu_quota",
    "disturbances",
    "facts",
    "facts_of",
    "fingerprint",
    "runtime_versions",
    "same_machine",
    "warnings",
]

# As Linux spells them in /proc/cpuinfo (x86 "flags", ARM "Features"), and as people do.
_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "f16c": "f16c",
    "fma": "fma",
    "neon": "neon",
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
_RUNTIMES = (
    "numpy",
    "pillow",
    "tensorflow",
    "tf-keras",
    "ai-edge-litert",
    "openvino",
    "nncf",
    "onnxruntime",
    "tflite-micro",
    "ethos-u-vela",
    "litert-quantizer",
    "tensorflow-model-optimization",
)
# Latencies of machines that differ in one of these say nothing about each other.
_COMPARED = ("cpu", "arch", "cores_physical", "cores_logical", "cores_usable", "flags", "governor", "virtualization")
_ACCELERATED = ("accelerator", "accelerator_driver")  # where a model runs on a GPU or an NPU
_BUSY_SHARE = 0.25
_FREE_LIMIT_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Disturbance:
    """What may disturb a measurement at this moment.

    `busy_cores`: cores' worth of time that programs took in the last instant; `load`: the load average of the last
    minute; `free_bytes`: memory to be had without swapping; `battery_percent`: None on mains power and where there is
    no battery.
    """

    busy_cores: float
    load: float
    cores: int
    free_bytes: int
    governor: str | None = None
    battery_percent: float | None = None


def facts() -> dict[str, Any]:
    """Describe the machine in values that JSON can hold; what can't be read here is None.

    `cores_usable` counts what this process may use (affinity and container quota), with a fraction where the quota has
    one. `flags` lists those of the instruction sets that matter here.

    >>> facts()["cores_usable"] > 0
    True
    """
    cpuinfo = _text("/proc/cpuinfo")
    return {
        "os": _os_name(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "cpu": cpu_name(cpuinfo) or _cpu_name_elsewhere(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(),
        "cores_usable": _cores_usable(),
        "flags": cpu_flags(cpuinfo),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": _governor(),
        "virtualization": _virtualization(cpuinfo, here=True),
        "load_average": [round(load, 2) for load in psutil.getloadavg()],
    }


def facts_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Describe another machine as `facts` describes this one, from what the worker's "facts" tell of it.

    >>> facts_of({"arch": "aarch64", "cores": 4, "cores_allowed": 4})["cores_logical"]
    4
    """
    cpuinfo = str(told.get("cpuinfo", ""))
    cores = {(one, two) for one, two in zip(_all(cpuinfo, "physical id"), _all(cpuinfo, "core id"), strict=False)}
    names = shlex.split(str(told.get("os_release", "")))
    memory = (_field(str(told.get("meminfo", "")), "MemTotal").split() or ["0"])[0]
    return {
        "os": next((name.removeprefix("PRETTY_NAME=") for name in names if name.startswith("PRETTY_NAME=")), None),
        "kernel": told.get("kernel"),
        "arch": told.get("arch"),
        "python": told.get("python"),
        "cpu": cpu_name(cpuinfo) or str(told.get("board", "")).strip("\0") or None,
        "cores_physical": len(cores) or told.get("cores"),
        "cores_logical": told.get("cores"),
        "cores_usable": told.get("cores_allowed"),
        "flags": cpu_flags(cpuinfo),
        "memory_bytes": 1024 * int(memory) or None,
        "governor": str(told.get("governor", "")).strip() or None,
        "virtualization": _virtualization(cpuinfo),
        "load_average": [round(load, 2) for load in told.get("load", ())],
    }


def runtime_versions() -> dict[str, str]:
    """Versions of the installed packages that a model's bytes or speed depend on, without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _RUNTIMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def same_machine(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """List the differences between two `facts()` that make their latencies incomparable; empty: they may be compared.

    >>> same_machine({"cpu": "Cortex-A76", "arch": "aarch64"}, {"cpu": "Cortex-A72", "arch": "aarch64"})
    ['cpu: Cortex-A76 and Cortex-A72']
    """
    keys = (*_COMPARED, *_ACCELERATED)
    return [f"{key}: {_show(a.get(key))} and {_show(b.get(key))}" for key in keys if a.get(key) != b.get(key)]


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Digest what makes latencies comparable, 16 hexadecimal digits: `same_machine` is empty where it is equal."""
    values = [facts[key] for key in _COMPARED] + [facts[key] for key in _ACCELERATED if key in facts]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def warnings() -> list[str]:
    """Name what disturbs measuring at this moment, each with its figure and a next step.

    Watches the cores for 0.3 s: call it before the measurement starts, with no work of one's own under way.
    """
    cores = psutil.cpu_count() or 1
    return disturbances(
        Disturbance(
            busy_cores=psutil.cpu_percent(interval=0.3) / 100 * cores,
            load=psutil.getloadavg()[0],
            cores=cores,
            free_bytes=psutil.virtual_memory().available,
            governor=_governor(),
            battery_percent=_battery_percent(),
        )
    )


def disturbances(now: Disturbance) -> list[str]:
    """Turn a machine's state into warnings, each with its figure, the limit and a next step.

    The load average is told but not judged: for a minute after a training it is high on an idle machine.
    """
    found = []
    if now.busy_cores > (limit := _BUSY_SHARE * now.cores):
        found.append(
            f"other programs keep {now.busy_cores:.1f} of {now.cores} cores busy "
            f"(limit {limit:.1f}; load average {now.load:.1f}): close them"
        )
    if now.governor == "powersave":
        found.append("the frequency governor is powersave: sudo cpupower frequency-set --governor performance")
    if now.free_bytes < _FREE_LIMIT_BYTES:
        free, least = now.free_bytes / 1e9, _FREE_LIMIT_BYTES / 1e9
        found.append(f"free memory is {free:.2f} GB (limit {least:.0f} GB): close other programs")
    if now.battery_percent is not None:
        found.append(f"the machine runs on its battery ({now.battery_percent:.0f} %): plug it in")
    return found


def cpu_flags(cpuinfo: str) -> list[str]:
    """List the instruction sets that model speed depends on, sorted, from the text of /proc/cpuinfo."""
    words = {word for key in ("flags", "Features") for word in _field(cpuinfo, key).split()}
    return sorted({_FLAGS[word] for word in words & _FLAGS.keys()})


def cpu_name(cpuinfo: str) -> str | None:
    """Name the processor from the text of /proc/cpuinfo: x86 by its model name, ARM by its board and core number."""
    if name := _field(cpuinfo, "model name"):
        return " ".join(name.split())
    board, part = _field(cpuinfo, "Model"), _field(cpuinfo, "CPU part")
    core = f"ARM {_field(cpuinfo, 'CPU implementer')} part {part}" if part else ""
    return ", ".join(filter(None, (board, core))) or None


def cpu_quota(cgroups: str, root: Path) -> float | None:
    """Find how many cores' worth of time a container may take; None without a limit.

    `cgroups`: the text of /proc/self/cgroup. `root`: where the control groups are mounted. Both versions are read, and
    the tightest limit from the process's own group up to the root holds.
    """
    quotas: list[float] = []
    for line in cgroups.splitlines():
        _, controllers, own = line.split(":", 2)  # version 1 names its controllers, version 2 none
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        for group in (own, *map(str, Path(own).parents)):
            quotas += _group_quota(base / group.lstrip("/"))
    return min(quotas, default=None)


def _group_quota(folder: Path) -> list[float]:
    """Cores that one control group grants: none or one figure ("max" and -1 mean no limit)."""
    pair = _text(folder / "cpu.max").split() or [
        _text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
    ]
    return [int(pair[0]) / int(pair[1])] if all(part.isdigit() for part in pair) else []


def _cores_usable() -> float:
    # macOS has no affinity.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(_text("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return allowed if quota is None else min(allowed, round(quota, 2))


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _cpu_name_elsewhere() -> str | None:
    """Name the processor where there is no /proc/cpuinfo."""
    if platform.system() != "Darwin":
        return platform.processor() or None
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _virtualization(cpuinfo: str, *, here: bool = False) -> str | None:
    """Say "container", which is seen `here` alone, "virtual machine", or both; None where nothing hints at either."""
    container = here and any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))
    virtual = "hypervisor" in _field(cpuinfo, "flags").split()
    kinds = ["container"] * container + ["virtual machine"] * virtual
    return " in a ".join(kinds) or None


def _governor() -> str | None:
    return _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None


def _battery_percent() -> float | None:
    # Absent from psutil on systems that it can't ask.
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if battery is None or battery.power_plugged is not False else float(battery.percent)


def _field(cpuinfo: str, key: str) -> str:
    """Value of the first `key : value` line of /proc/cpuinfo, "" where there is none."""
    return next(_all(cpuinfo, key), "")


def _all(cpuinfo: str, key: str) -> Iterator[str]:
    """Values of all `key : value` lines of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            yield value.strip()


def _text(path: str | Path) -> str:
    """Text of a file of the kernel's, "" where it is absent or may not be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _show(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
