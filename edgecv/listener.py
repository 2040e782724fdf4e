"""Hear how a run goes, without the stages knowing about terminals."""

from __future__ import annotations

__all__ = ["Listener"]


class Listener:
    """Hears nothing; a terminal's overrides what it shows. All text is for people."""

    def progress(self, done: int, total: int, text: str) -> None:
        """Hear how far the present step is."""

    def ended(self, name: str, seconds: float, *, reused: bool) -> None:
        """Hear that a step is done, and how long it took when it was done."""

    def note(self, text: str) -> None:
        """Hear a warning, a licence, or what a step found."""
