"""Install what runs models on a device: a board's packages, an emulated processor, LiteRT.js, a phone's tool."""

from __future__ import annotations

from collections.abc import Iterator

from edgecv import runtimes
from edgecv.devices.browser import Browser
from edgecv.devices.device import Device, Facts
from edgecv.devices.emulated import Emulated
from edgecv.devices.emulator import install_emulator
from edgecv.devices.litert_js import install_litert_js
from edgecv.devices.opened import open_device
from edgecv.devices.ssh import VENV, Ssh, watched
from edgecv.devices.tool import download_tool
from edgecv.errors import ConfigError, DeviceError, MissingError
from edgecv.target import Target

__all__ = ["packages_for", "setup_device"]

INSTALL_SECONDS = 1800.0
# There are no wheels of LiteRT for a 32-bit system; its predecessor's need numpy 1, and one of these Pythons.
OLD_PACKAGES, OLD_PYTHON = ("tflite-runtime==2.14.0", "numpy<2"), "Python 3.9 to 3.11"


def setup_device(target: Target) -> Iterator[str]:
    """Install what `target` lacks, and say what is done, line by line; what is there already stays.

    Raises:
        ConfigError: the target is this machine.
        ReachError: it can't be reached.
        MissingError: it lacks what only its administrator can install; the error holds the command.
        DeviceError: an installation failed.
    """
    if target.transport in ("local", "reference"):
        fix = runtimes.RUNTIMES[target.runtime].install
        raise ConfigError(f"{target.name} is this machine", expected="a target that is not", fix=fix)
    with open_device(target) as device:
        facts = _facts(device)
        if facts is None:
            yield from _lacking(device)
    if facts is None:
        with open_device(target) as device:  # the first one keeps why it was not there
            facts = device.facts()
    python = {"Python": facts.machine["python"]} if facts.machine["python"] else {}
    versions = ", ".join(f"{name} {version}" for name, version in {**python, **facts.versions}.items())
    yield f"{target.name} is ready: {facts.machine['cpu']}, {versions}"


def packages_for(target: Target, *, bits: str) -> tuple[str, ...]:
    """List what a board's environment takes; `bits` of its system's words, "32" or "64".

    >>> packages_for(Target(name="board", runtime="litert"), bits="64")
    ('ai-edge-litert', 'numpy')
    """
    if target.runtime == "litert" and bits == "32":
        return OLD_PACKAGES
    return runtimes.RUNTIMES[target.runtime].package, "numpy"


def _facts(device: Device) -> Facts | None:
    """Ask a device what it is; None where it lacks something, or says itself that setting it up mends it."""
    try:
        return device.facts()
    except MissingError:
        return None
    except DeviceError as error:
        if error.fix != f"edgecv setup-device {device.target.name}":
            raise
        return None


def _lacking(device: Device) -> Iterator[str]:
    if isinstance(device, Ssh):
        yield from _installed(device)
    elif isinstance(device, Emulated):
        yield from install_emulator(device.emulator)
    elif isinstance(device, Browser):
        yield from install_litert_js()
    elif download_tool(device.target):
        yield f"benchmark_model, from {device.target.benchmark_model.source}"


def _installed(device: Ssh) -> Iterator[str]:
    name, shell = device.target.name, device.shell
    # Not uname: a 32-bit system may run on a 64-bit kernel.
    bits = shell.run("getconf LONG_BIT", timeout_seconds=INSTALL_SECONDS).stdout.strip()
    packages = packages_for(device.target, bits=bits)
    yield f"{name}: making ~/{VENV}"
    made = shell.run(watched(f"python3 -m venv {VENV}"), timeout_seconds=INSTALL_SECONDS)
    if made.problem:
        shell.run(f"rm -rf {VENV}", timeout_seconds=INSTALL_SECONDS)
        fix = f"type there: sudo apt install python3-venv; then again: edgecv setup-device {name}"
        raise MissingError(f"{name} can't make a Python environment", got=(made.stderr or made.stdout).strip(), fix=fix)
    yield f"{name}: installing {', '.join(packages)}"
    quoted = " ".join(f"'{one}'" for one in packages)
    command = f"{VENV}/bin/python3 -m pip install --quiet --disable-pip-version-check {quoted}"
    done = shell.run(watched(command), timeout_seconds=INSTALL_SECONDS)
    if done.problem:
        python = f" and has {OLD_PYTHON}" if packages == OLD_PACKAGES else ""
        fix = f"see that it reaches a package index{python}, or type there: {command}"
        raise DeviceError(f"{name}: {done.problem}", got=done.stderr.strip()[-500:], fix=fix)
