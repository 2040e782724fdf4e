"""Which device a target's transport takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from edgecv.devices.device import Device
from edgecv.devices.local import Local
from edgecv.target import Target

__all__ = ["open_device"]

TRANSPORTS: dict[str, Callable[[Target], Device]] = {"local": Local}


@contextlib.contextmanager
def open_device(target: Target) -> Iterator[Device]:
    """Give the device of a target while the block runs. It is reached at its first use, not before."""
    device = TRANSPORTS[target.transport](target)
    try:
        yield device
    finally:
        device.release()
