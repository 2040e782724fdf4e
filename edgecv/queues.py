"""Several devices at the same time, one queue each: those that share a machine take turns."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from edgecv.devices import Device

__all__ = ["at_once"]

T = TypeVar("T")


def at_once(devices: Sequence[Device], work: Callable[[Device], T], *, abandon: Callable[[], None]) -> list[T]:
    """Do a device's work for each, those with the same `lock` one after the other; return what each gave, in order.

    One queue needs no thread of its own. The first error is raised at once, as an interrupt is: `abandon` tells the
    other queues, whose threads nobody waits for.
    """
    queues: dict[str, list[int]] = {}
    for number, device in enumerate(devices):
        queues.setdefault(device.lock, []).append(number)
    if len(queues) < 2:
        return [work(device) for device in devices]
    ended: queue.SimpleQueue[dict[int, T] | BaseException] = queue.SimpleQueue()

    def serve(numbers: list[int]) -> None:
        try:
            ended.put({number: work(devices[number]) for number in numbers})
        except BaseException as error:
            ended.put(error)

    for numbers in queues.values():
        threading.Thread(target=serve, args=(numbers,), daemon=True).start()
    found: dict[int, T] = {}
    try:
        for _ in queues:
            found |= _given(ended.get())
    except BaseException:
        abandon()
        raise
    return [found[number] for number in range(len(devices))]


def _given(result: dict[int, T] | BaseException) -> dict[int, T]:
    if isinstance(result, BaseException):
        raise result
    return result
