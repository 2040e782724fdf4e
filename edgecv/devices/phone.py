"""What a device that adb reaches tells of itself: Android by its properties, any Linux by its kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgecv import host

__all__ = ["HEAT", "TELL", "abis", "heat", "machine", "parts"]

PART = "@@ "  # begins the line before each answer
COOLING = "/sys/class/thermal/cooling_device*"


def _answer(name: str, command: str) -> str:
    return f"echo; echo '{PART}{name}'; {{ {command}; }} 2>/dev/null"


# Shell commands: everything that is asked once, and what is asked after each measurement.
HEAT = "; ".join(
    (
        _answer("thermal", "dumpsys thermalservice | grep -m 1 'Thermal Status'"),
        _answer("cooling", f"grep -H '[1-9]' $(grep -l cpufreq {COOLING}/type | sed 's/type$/cur_state/') </dev/null"),
    )
)
TELL = "; ".join(
    (
        _answer("arch", "uname -m"),
        _answer("kernel", "uname -r"),
        _answer("cores", "nproc --all || nproc"),
        _answer("load", "cat /proc/loadavg"),
        _answer("cpuinfo", "cat /proc/cpuinfo"),
        _answer("meminfo", "cat /proc/meminfo"),
        _answer("governor", "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        _answer("board", "cat /proc/device-tree/model"),
        _answer("model", "getprop ro.product.model"),
        _answer("soc", "getprop ro.soc.model"),
        _answer("android", "getprop ro.build.version.release"),
        _answer("abis", "getprop ro.product.cpu.abilist"),
        HEAT,
    )
)
COUNT = re.compile(r"\d{1,9}", re.ASCII)
MEMORY = re.compile(r"^MemTotal:\s+\d{1,15} kB$", re.ASCII | re.MULTILINE)
# Android's PowerManager.THERMAL_STATUS_*.
STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def parts(said: str) -> dict[str, str]:
    """Split what `TELL` or `HEAT` printed into answers by name; what stands before them is "".

    >>> parts("log\\n\\n@@ arch\\naarch64\\n")
    {'': 'log', 'arch': 'aarch64'}
    """
    found: dict[str, list[str]] = {"": []}
    lines = found[""]
    for line in said.splitlines():
        if line.startswith(PART):
            lines = found.setdefault(line.removeprefix(PART).strip(), [])
        else:
            lines.append(line)
    return {name: "\n".join(lines).strip("\n\0 ") for name, lines in found.items()}


def machine(told: Mapping[str, str]) -> dict[str, Any]:
    """Describe a device as `host.facts` describes this machine; its serial is not among it."""
    cores = int(told["cores"]) if COUNT.fullmatch(told.get("cores", "")) else None
    load = [float(word) for word in told.get("load", "").split()[:3] if COUNT.fullmatch(word.replace(".", "", 1))]
    memory = "".join(MEMORY.findall(told.get("meminfo", ""))[:1])
    facts = host.facts_of({**told, "meminfo": memory, "cores": cores, "cores_allowed": cores, "load": load})
    names = ", ".join(filter(None, (told.get("model"), told.get("soc"))))
    system = f"Android {told['android']}" if told.get("android") else "Linux"
    return {**facts, "os": system, "cpu": names or facts["cpu"]}


def abis(told: Mapping[str, str]) -> set[str]:
    """Name the processors whose programs run on a device: Android's list, and the kernel's word."""
    return {*filter(None, told.get("abis", "").split(",")), told.get("arch", "")}


def heat(told: Mapping[str, str]) -> str | None:
    """Say that a device is slowed down by its heat, by what `HEAT` printed; None where nothing tells of it."""
    number = told.get("thermal", "").rpartition(":")[2].strip()
    if COUNT.fullmatch(number) and 0 < int(number) < len(STATUSES):
        return f"its thermal status is {number} ({STATUSES[int(number)]}; 0 is none): let it cool, out of its case"
    if slowed := told.get("cooling", "").count("\n") + bool(told.get("cooling")):
        return f"its heat holds {slowed} of its processors' clocks down: let it cool"
    return None
