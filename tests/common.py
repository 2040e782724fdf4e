"""What several test files share: waiting, the logits behind a softmax, and what OpenVINO's int8 needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecv import host
from edgecv.devices import Local, ask
from edgecv.target import Target

HERE = Target(name="here", runtime="litert")
FACTS = host.facts()
# Where there is none, OpenVINO's int8 kernels for x86 add pairs of products in 16 bits, which saturate.
needs_vnni = pytest.mark.skipif(
    FACTS["arch"] == "x86_64" and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(FACTS["flags"]),
    reason="OpenVINO's int8 is not exact on x86 without VNNI",
)


def until(true: Callable[[], object]) -> None:
    """Wait for something to come about."""
    end = time.monotonic() + 60.0
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("it did not come about in a minute")
        time.sleep(0.05)


def logits(probabilities: NDArray[np.float32], file: Path) -> NDArray[np.float64]:
    """Give an int8 file's logits `(n, classes)` in steps of their scale, each less the first one's.

    A softmax leaves the differences alone; what float32 loses of them is far less than a step.
    """
    found = np.log(probabilities.astype(np.float64)) / scale(file)
    return found - found[:, :1]


def scale(file: Path) -> float:
    """Give the scale of an int8 file's logits."""
    operators = ask(Local(HERE), (file,), do="graph")["operators"]
    return float(next(one["scale"] for one in reversed(operators) if one["dtype"] == "int8"))
