"""Another processor, emulated here by qemu: what its programs compute is a fact, how fast is not."""

from __future__ import annotations

from edgecv import host
from edgecv.devices.device import Facts
from edgecv.devices.emulator import LEAST_QEMU, emulator
from edgecv.devices.local import Local
from edgecv.errors import DeviceError, MissingError
from edgecv.target import Target

__all__ = ["Emulated"]

FACTS_SECONDS = 120.0


class Emulated(Local):
    """Runs the worker on the processor `target.host`, "aarch64" or "armv7l"."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.emulator = emulator(target.host)

    def python(self) -> list[str]:
        """Give the command of the processor's Python."""
        return [*self.emulator.command(), "-B"]

    def _asked(self) -> Facts:
        """Start the processor's Python, and say what it is.

        Raises:
            MissingError: it is not set up here, or its qemu is too old.
            DeviceError: it does not run the worker.
        """
        name, version = self.target.name, self.emulator.version()
        fix = f"edgecv setup-device {name}"
        if version is None or int(version.partition(".")[0]) < LEAST_QEMU:
            got = f"qemu {version}" if version else ""
            raise MissingError(f"{name} is not set up", got=got, expected=f"qemu {LEAST_QEMU} or newer", fix=fix)
        ran = self.run({"do": "facts", "runtime": self.target.runtime}, timeout_seconds=FACTS_SECONDS)
        unusable = ran.answer.get("unusable")
        if unusable or not ran.answer.get("versions", {}).keys() - {"numpy"}:
            got = unusable or ran.answer.get("refused") or ran.child.stderr.strip()[-300:]
            raise DeviceError(f"{name} does not run the worker", got=got, fix=fix)
        told = {**ran.answer["machine"], "cpuinfo": ""}  # which is this machine's
        machine = {**host.facts_of(told), "cpu": f"{self.target.host}, {self.emulator.core}, emulated by qemu"}
        return Facts(machine, {**ran.answer["versions"], "qemu": version}, timing="emulated")
