"""Errors a user can meet, and the exit code each one ends the command with.

    EdgecvError                 4  something went wrong inside edgecv
    ├── UsageError              2  the command line or a value passed in
    │   ├── ConfigError         2  a recipe or a target file
    │   ├── DataError           2  a folder, a CSV or an image
    │   └── ModelError          2  a model file that can't be read, or is refused
    └── EnvError                3  the machine, not the input
        ├── MissingError        3  a package or a program that is not installed
        ├── StoreError          3  the store: damaged, locked, or the disk is full
        └── DeviceError         3  a device, or a runtime that crashed or hung on it
            ├── ReachError      3  a device that can't be reached, or not any more
            └── UnfitError      3  a model that a device is known not to run

Each carries four lines: what failed, what was got, what was expected, how to fix it.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "DeviceError",
    "EdgecvError",
    "EnvError",
    "MissingError",
    "ModelError",
    "ReachError",
    "StoreError",
    "UnfitError",
    "UsageError",
]


class EdgecvError(Exception):
    """Carry what failed, what was got, what was expected, and how to fix it."""

    exit_code = 4

    def __init__(self, what: str, *, got: str = "", expected: str = "", fix: str = "") -> None:
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        for name in ("got", "expected", "fix"):
            if text := getattr(self, name):
                lines.append(f"  {name + ':':<9} {text}")
        return "\n".join(lines)


class UsageError(EdgecvError):
    """Refuse a command line or a value passed in."""

    exit_code = 2

    @property
    def status(self) -> str:
        """Word it as the status of a row."""
        why = self.got or (self.expected and f"expected {self.expected}")
        return f"fail: {self.what}: {why}" if why else f"fail: {self.what}"


class ConfigError(UsageError):
    """Refuse a recipe or a target file."""


class DataError(UsageError):
    """Refuse a folder, a CSV or an image."""


class ModelError(UsageError):
    """Refuse a model file that can't be read, or must not be."""


class EnvError(EdgecvError):
    """Report something that the machine lacks or did, not the input."""

    exit_code = 3

    @property
    def status(self) -> str:
        """Word it as the status of a row."""
        return f"fail: {self.what}: {self.got}" if self.got else f"fail: {self.what}"


class MissingError(EnvError):
    """Report a package or a program that is not installed."""

    @property
    def status(self) -> str:
        """Word it as the status of a row."""
        return f"not available: {self.fix}"


class StoreError(EnvError):
    """Report a store that is damaged, locked, or on a full disk."""


class DeviceError(EnvError):
    """Report a device that failed, or a runtime that crashed or hung on it."""


class ReachError(DeviceError):
    """Report a device that can't be reached, or not any more; `passing`: the same may work in a moment."""

    def __init__(self, what: str, *, got: str = "", expected: str = "", fix: str = "", passing: bool = False) -> None:
        super().__init__(what, got=got, expected=expected, fix=fix)
        self.passing = passing

    @property
    def status(self) -> str:
        """Word it as the status of a row."""
        return f"not available: {self.what}: {self.fix}"


class UnfitError(DeviceError):
    """Refuse a model that a device is known not to run."""

    @property
    def status(self) -> str:
        """Word it as the status of a row."""
        return f"refused: {self.what}: {self.got}" if self.got else f"refused: {self.what}"
