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
from edgecv.devices.tried import FULL, unkept
from edgecv.errors import ConfigError, DeviceError, EnvError, MissingError
from edgecv.isolate import Child
from edgecv.target import Target

__all__ = ["packages_for", "setup_device"]

INSTALL_SECONDS = 1800.0
# There are no wheels of LiteRT for a 32-bit system; its predecessor's need numpy 1, and one of these Pythons.
OLD_PACKAGES = ("tflite-runtime==2.14.0", "numpy<2")
# Systems that a package has wheels for, as the index of Python packages lists them.
SYSTEMS = {
    "ai-edge-litert": "Python 3.9 or newer, 3.10 for a GPU, on Raspberry Pi OS 12, Ubuntu 22.04, JetPack 6 or newer",
    OLD_PACKAGES[0]: "Python 3.9 to 3.11 with glibc 2.34, as on Raspberry Pi OS 12",
}
NO_WHEEL = ("No matching distribution", "from versions: none")


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
    kept = shell.run(f"test -e {VENV}/pyvenv.cfg", timeout_seconds=INSTALL_SECONDS).returncode == 0
    made = shell.run(watched(f"python3 -m venv {VENV}"), timeout_seconds=INSTALL_SECONDS)
    if made.problem:
        if not kept:
            shell.run(f"rm -rf {VENV}", timeout_seconds=INSTALL_SECONDS)
        raise _unmade(name, made)
    yield f"{name}: installing {', '.join(packages)}"
    quoted = " ".join(f"'{one}'" for one in packages)
    command = f"{VENV}/bin/python3 -m pip install --quiet --disable-pip-version-check {quoted}"
    done = shell.run(watched(command), timeout_seconds=INSTALL_SECONDS)
    if done.problem:
        system = shell.run("python3 --version; getconf GNU_LIBC_VERSION", timeout_seconds=INSTALL_SECONDS).stdout
        raise _uninstalled(name, done, packages[0], command=command, system=", ".join(system.splitlines()))


def _uninstalled(name: str, done: Child, package: str, *, command: str, system: str) -> DeviceError:
    """Word why pip did not install a package: its system has no wheels, a disk is full, or there is no index."""
    if any(words in done.stderr for words in NO_WHEEL):
        what, fix = f"{name}: there is no {package} for its system", "take such a system for it"
        return DeviceError(what, got=system, expected=SYSTEMS.get(package, ""), fix=fix)
    if any(words in done.stderr for words in FULL):
        return unkept(f"{name}: {package} could not be installed", done, folder=f"~/{VENV}")
    fix = f"see that it reaches a package index, or type there: {command}"
    return DeviceError(f"{name}: {done.problem}", got=done.stderr.strip()[-500:], fix=fix)


def _unmade(name: str, made: Child) -> EnvError:
    """Word why there is no environment: for want of a Debian package, or of something else."""
    what, said = f"{name} can't make a Python environment", f"{made.stdout}\n{made.stderr}"
    if any(word in said for word in ("ensurepip", "No module named venv", "not found")):
        fix = f"type there: sudo apt install python3-venv; then again: edgecv setup-device {name}"
        return MissingError(what, got=said.strip()[-500:], fix=fix)
    return unkept(what, made, folder=f"~/{VENV}")
