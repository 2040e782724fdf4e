"""Which device a target's transport takes, and whether it is there now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edgecv.devices.adb import Adb
from edgecv.devices.browser import Browser
from edgecv.devices.device import Device
from edgecv.devices.emulated import Emulated
from edgecv.devices.local import Local
from edgecv.devices.micro import Compiling, reference
from edgecv.devices.ssh import Ssh
from edgecv.errors import EnvError, UsageError
from edgecv.target import Target

__all__ = ["elsewhere", "open_device", "reachable", "warned"]

TRANSPORTS: dict[str, Callable[[Target], Device]] = {
    "local": Local,
    "ssh": Ssh,
    "emulated": Emulated,
    "browser": Browser,
    "adb": Adb,
    "reference": reference,
}


@contextlib.contextmanager
def open_device(target: Target) -> Iterator[Device]:
    """Give the device of a target while the block runs. It is reached at its first use, not before."""
    device = TRANSPORTS[target.transport](target)
    try:
        yield device
    finally:
        device.release()


def elsewhere(devices: Iterable[Device]) -> dict[str, dict[str, Any]]:
    """Describe the devices that are more than this machine's CPU and were reached: `host.facts` and `runtimes`."""
    found = {}
    for device in devices:
        if (device.target.transport, device.target.accelerator) != ("local", "cpu"):
            with contextlib.suppress(EnvError):
                facts = device.facts()
                found[device.target.name] = {**facts.machine, "runtimes": dict(facts.versions)}
    return found


def warned(devices: Iterable[Device]) -> list[str]:
    """List what disturbed measuring on the devices that were reached."""
    found: list[str] = []
    for device in devices:
        with contextlib.suppress(EnvError):
            found += device.facts().warnings
    return list(dict.fromkeys(found))


def reachable(target: Target) -> str:
    """Reach a target's device and say "ready" and by what, or the status that its rows would have."""
    try:
        with open_device(target) as device:
            facts = device.facts()
            if isinstance(device, Compiling):
                device.compiler.version()
    except (EnvError, UsageError) as error:
        return " ".join(error.status.split())
    names = [f"{name} {version}" for name, version in facts.versions.items() if name != "numpy"]
    return f"ready ({', '.join([*names, *filter(None, [facts.machine.get('accelerator')])])})"
