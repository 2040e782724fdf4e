"""Which of the devices that adb sees is meant, and what to do where it is not ready."""

from __future__ import annotations

import re

from edgecv.errors import ConfigError, ReachError
from edgecv.isolate import Child, run_child

__all__ = ["attached", "checked", "refusal"]

ANSWER_SECONDS = 30.0  # the first command starts adb's server
# Of USB, an address and port, an emulator's, a paired one's as "adb-R58 (2)._adb-tls-connect._tcp"; no option of adb.
SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:%\[\]() -]{0,127}")
AGAIN = "then give the same command again"
# States that `adb devices` tells, in adb's words, what they mean, and what to do.
STATES = (
    ("unauthorized", "does not trust this computer", f"accept the dialog on the phone (Allow USB debugging), {AGAIN}"),
    ("authorizing", "does not trust this computer yet", f"accept the dialog on the phone, {AGAIN}"),
    ("connecting", "is being connected", f"wait a moment, {AGAIN}"),
    ("offline", "is offline", f"unplug it and plug it in again, or type: adb reconnect offline; {AGAIN}"),
    (
        "no permissions",
        "may not be opened by this user",
        f"sudo apt install android-sdk-platform-tools-common, plug it in again, {AGAIN}",
    ),
    ("", "does not run Android now", f"restart it, {AGAIN}"),  # recovery, sideload, bootloader
)
PASSING = ("offline", "authorizing", "connecting")  # which a device is for a moment after it was plugged in


def checked(serial: str) -> str:
    """Refuse a serial that is none: adb would take it for an option, or never lists it."""
    if serial and not SERIAL.fullmatch(serial):
        fix = "correct host in the target, or $ANDROID_SERIAL"
        raise ConfigError(f"{serial!r} is not a serial", expected="one that `adb devices` lists", fix=fix)
    return serial


def attached(name: str, wanted: str) -> str:
    """Return the serial of the device that is `wanted`, or of the only one where that is empty, when it is ready.

    `name`: the target's. A serial that is an address and a port is connected to first.

    Raises:
        ReachError: it is not there, not ready, or there are several; `passing` where it may be in a moment.
    """
    said = run_child(["adb", "connect", wanted], timeout_seconds=ANSWER_SECONDS).stdout if ":" in wanted else ""
    states = _states(name)
    found = [serial for serial in states if serial == (wanted or serial)]
    if len(found) > 1:
        fix = f'set host = "{found[0]}" in a copy of the target, or ANDROID_SERIAL={found[0]}'
        raise ReachError(f"{name}: {len(found)} devices are attached", got=", ".join(found), fix=fix)
    if not found:
        which = f"{wanted} is not" if wanted else "no device is"
        got, fix = ", ".join(states), "connect it by USB, with USB debugging on (Settings, Developer options)"
        if said:
            got, fix = said.strip()[-300:], "switch on wireless debugging, or type by USB first: adb tcpip 5555"
        fix = f"{fix}; `adb devices` lists it then"
        raise ReachError(f"{name}: {which} attached", got=got, fix=fix, passing=bool(wanted))
    if states[found[0]] != "device":
        if ":" in wanted:  # a device that restarted stays offline for adb's server until it is let go of
            run_child(["adb", "disconnect", wanted], timeout_seconds=ANSWER_SECONDS)
        raise _unready(name, found[0], states[found[0]])
    return found[0]


def refusal(name: str, serial: str, child: Child) -> ReachError:
    """Turn what adb wrote when it lost a device into an error that may pass, unless it hung."""
    said = child.problem or "" if child.hung else child.stderr
    last = (said.strip().splitlines() or ["the connection closed"])[-1][:300]
    fix = "look at its cable, network and charge; the same command goes on from here"
    return ReachError(f"{name}: the connection to {serial} was lost", got=last, fix=fix, passing=not child.hung)


def _states(name: str) -> dict[str, str]:
    """Ask adb for the devices that it sees: serial to state."""
    said = run_child(["adb", "devices"], timeout_seconds=ANSWER_SECONDS, last_bytes=100_000)
    if said.problem:
        got = (said.stderr.strip().splitlines() or [said.problem])[-1][:300]
        raise ReachError(f"{name}: adb does not answer", got=got, fix=f"adb kill-server, {AGAIN}")
    lines = (line.split("\t", 1) for line in said.stdout.splitlines() if "\t" in line)
    return {serial: state.strip() for serial, state in lines}


def _unready(name: str, serial: str, state: str) -> ReachError:
    what, fix = next((what, fix) for word, what, fix in STATES if state.startswith(word))
    return ReachError(f"{name}: {serial} {what}", got=state, fix=fix, passing=state in PASSING)
