"""Several devices at the same time: their queues, with devices that say only which lock is theirs."""

import threading
import time
from types import SimpleNamespace

import pytest

from edgecv.queues import at_once


def devices(*locks):
    return [SimpleNamespace(lock=lock, number=number) for number, lock in enumerate(locks)]


def never():
    raise AssertionError("nothing was to be abandoned")


def test_devices_of_their_own_work_at_the_same_time():
    together = threading.Barrier(3, timeout=20)
    assert at_once(devices("a", "b", "c"), lambda device: together.wait() >= 0, abandon=never) == [True] * 3


def test_what_shares_a_lock_takes_turns_and_answers_keep_their_order():
    at_work = {"a": 0, "b": 0}

    def work(device):
        at_work[device.lock] += 1
        assert at_work[device.lock] == 1
        time.sleep(0.01)
        at_work[device.lock] -= 1
        return device.number

    assert at_once(devices("a", "b", "a", "b", "a"), work, abandon=never) == [0, 1, 2, 3, 4]


def test_one_queue_works_in_the_thread_that_asked():
    assert at_once(devices("a", "a"), lambda _: threading.get_ident(), abandon=never) == [threading.get_ident()] * 2


def test_an_error_is_raised_while_the_others_still_work_and_they_are_told():
    told = threading.Event()

    def work(device):
        if device.lock == "a":
            raise ValueError("the disk is full")
        told.wait(20)

    with pytest.raises(ValueError, match="the disk is full"):
        at_once(devices("a", "b"), work, abandon=told.set)
    assert told.is_set()
