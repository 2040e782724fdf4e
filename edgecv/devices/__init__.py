"""Machines that run the worker: how to open one, and how to ask it about a model."""

from edgecv.devices.adb import Adb
from edgecv.devices.device import HERE, Device, Facts, Ran, ask
from edgecv.devices.local import Local
from edgecv.devices.micro import Compiling
from edgecv.devices.opened import elsewhere, open_device, reachable, warned
from edgecv.devices.operators import check_operators
from edgecv.devices.setup import setup_device
from edgecv.devices.ssh import Ssh

__all__ = [
    "HERE",
    "Adb",
    "Compiling",
    "Device",
    "Facts",
    "Local",
    "Ran",
    "Ssh",
    "ask",
    "check_operators",
    "elsewhere",
    "open_device",
    "reachable",
    "setup_device",
    "warned",
]
