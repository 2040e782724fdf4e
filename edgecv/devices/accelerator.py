"""Which GPU or NPU a target's models run on, or what is to be plugged in or installed to have one."""

from __future__ import annotations

import dataclasses

from edgecv.devices.device import Facts, Ran
from edgecv.errors import DeviceError, MissingError
from edgecv.target import Target

__all__ = ["accelerated"]

# Its file, /dev/dri/renderD* or /dev/accel/accel*, is open to who sits at the machine, but not to who logs in by ssh.
RENDER = "; where it is there, let the user open it: sudo usermod -aG render $USER, then log in again"
NEEDS = {
    ("litert", "gpu"): "plug in a GPU, and install its Vulkan driver; for Debian: "
    "sudo apt install libvulkan1 mesa-vulkan-drivers (AMD, Intel), or libvulkan1 nvidia-driver (NVIDIA)",
    ("openvino", "gpu"): "plug in an Intel GPU, and install its OpenCL driver; for Debian: "
    "sudo apt install intel-opencl-icd",
    ("openvino", "npu"): "use a machine with an Intel Core Ultra processor and Linux 6.6 or newer, and install Intel's "
    "NPU driver, the packages intel-fw-npu, intel-driver-compiler-npu and intel-level-zero-npu, and the Level Zero "
    "loader, libze1 (level-zero where Intel packs it)",
}
ASKED = ("gpu", "npu")  # the others are told by their compilers and tools


def accelerated(target: Target, facts: Facts, ran: Ran) -> Facts:
    """Add to a machine's facts the adapter that the runtime takes there, as the worker told it in `ran`.

    Raises:
        MissingError: there is none; the error says what it takes.
        DeviceError: the worker gave no answer, as where a driver crashes.
    """
    if target.accelerator not in ASKED:
        return facts
    if "adapters" not in ran.answer:
        got = ran.child.stderr.strip()[-300:] or str(ran.answer.get("refused", ran.child.problem))
        raise DeviceError(f"{target.name}: asking for its {target.accelerator.upper()} failed", got=got)
    if not ran.answer["adapters"]:
        what = f"{target.name}: {target.runtime} finds no {target.accelerator.upper()}"
        raise MissingError(what, fix=NEEDS[target.runtime, target.accelerator] + RENDER)
    first = ran.answer["adapters"][0]
    machine = {**facts.machine, "accelerator": first["name"], "accelerator_driver": first["driver"]}
    return dataclasses.replace(facts, machine=machine, timing="software-rendered" if first["software"] else "measured")
