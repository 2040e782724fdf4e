"""Machines that run the worker: how to open one, and how to ask it about a model."""

from edgecv.devices.device import Device, Facts, Ran, ask
from edgecv.devices.local import Local
from edgecv.devices.opened import open_device

__all__ = ["Device", "Facts", "Local", "Ran", "ask", "open_device"]
