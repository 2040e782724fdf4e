"""What a person sees while a run goes on: one line a step and a progress bar with the time left, on stderr."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgecv.listener import Listener

__all__ = ["Terminal"]


class Terminal(Listener):
    """A listener that prints to stderr; a context manager, so that the bar is cleared when the run ends or fails."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[int, tuple[TaskID, str]] = {}  # the bar of each thread, and the first words of its text
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self.reused = self.done = 0

    def __enter__(self) -> Terminal:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is None and self.reused + self.done:
            seconds = time.monotonic() - self._begin
            steps = self.reused + self.done
            self._console.print(
                f"{self.reused} of {steps} steps reused from the store, {self.done} done, {seconds:.0f} s"
            )
        sys.stderr.flush()

    def progress(self, done: int, total: int, text: str) -> None:
        """Move the bar; a new text's first words start a new one."""
        kind, thread = text.partition(":")[0], threading.get_ident()
        with self._lock:
            if self._tasks.get(thread, (None, ""))[1] != kind:
                self._clear()
                self._tasks[thread] = self._bar.add_task(escape(text), total=total), kind
            self._bar.update(self._tasks[thread][0], completed=done, total=total, description=escape(text))

    def ended(self, name: str, seconds: float, *, reused: bool) -> None:
        """Print a line for a step that was done; count one that was reused. Rounds of a bench share the bar instead."""
        with self._lock:
            self.reused += reused
            self.done += not reused
            if not reused and not name.startswith("round"):
                self._clear()
                self._console.print(f"[green]done[/] {escape(name)} [dim]{seconds:.1f} s[/]")

    def note(self, text: str) -> None:
        """Print a warning or a licence."""
        self._console.print(f"[yellow]note[/] {escape(text)}", soft_wrap=True)

    def _clear(self) -> None:
        """Remove this thread's bar."""
        if found := self._tasks.pop(threading.get_ident(), None):
            self._bar.remove_task(found[0])
