"""Judge a model's outputs on the test split against the float Keras model's outputs on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecv.stats import Drop, accuracy_drop, judge_drop, wilson

__all__ = ["TOP5_FROM_CLASSES", "Verdict", "top_k", "verify"]

TOP5_FROM_CLASSES = 10

# Largest difference of a probability from float Keras that rounding explains, where float32 kernels ran: of the sums in
# a float32 file, of the weights in any other. Other arithmetic is held to accuracy and agreement alone.
FLOAT32_LIMIT, ROUNDED_LIMIT = 0.01, 0.1
MIN_AGREEMENT = 0.80

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """Accuracy and parity of one file on one runtime. Shares in [0, 1]; `status` as the design words it.

    `drop` and `changed` compare with the float model, `agreement` and `max_abs` with the network that was exported.
    """

    top1: float
    top1_ci95: tuple[float, float]
    top5: float | None
    n: int
    drop: Drop
    changed: int
    agreement: float
    max_abs: float
    status: str


def top_k(probabilities: Array, labels: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Tell for each image whether its label is among the `k` most probable.

    `probabilities`: float32 `(n, classes)`; a tie counts against the label, so a constant output scores nothing.
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]
    others_at_least = (probabilities >= own).sum(axis=1) - 1
    return np.asarray((others_at_least < k) & np.isfinite(own[:, 0]))


def verify(
    probabilities: Array,
    reference: Array,
    labels: NDArray[np.int64],
    *,
    own: Array | None = None,
    precision: str,
    executed_precision: str | None,
    max_drop_pp: float,
) -> Verdict:
    """Compare a file's probabilities with the float Keras model's.

    `probabilities`, `reference`: float32 `(n, classes)`. `labels`: int64 `(n,)`. `own`: those of the Keras network that
    the file was made from, where steps before the export have changed it: parity is held to it, accuracy never.
    `precision`: what the file was built in, "-" where that is not known. `executed_precision`: what really ran.
    """
    own = reference if own is None else own
    correct, correct_reference = top_k(probabilities, labels, 1), top_k(reference, labels, 1)
    drop = accuracy_drop(correct_reference, correct)
    answers = probabilities.argmax(axis=1)
    agreement = float((answers == own.argmax(axis=1)).mean())
    max_abs = float(np.abs(probabilities - own).max())
    limit = FLOAT32_LIMIT if precision == "float32" else ROUNDED_LIMIT
    hits = int(correct.sum())
    many = reference.shape[1] >= TOP5_FROM_CLASSES
    return Verdict(
        top1=hits / len(labels),
        top1_ci95=wilson(hits, len(labels)),
        top5=float(top_k(probabilities, labels, 5).mean()) if many else None,
        n=len(labels),
        drop=drop,
        changed=int((answers != reference.argmax(axis=1)).sum()),
        agreement=agreement,
        max_abs=max_abs,
        status=_status(
            drop,
            max_drop_pp,
            agreement=agreement,
            max_abs=max_abs,
            max_abs_limit=limit if executed_precision == "float32" else None,
        ),
    )


def _status(drop: Drop, limit_pp: float, *, agreement: float, max_abs: float, max_abs_limit: float | None) -> str:
    """Word the first thing that is wrong, else what the drop's interval allows to say."""
    if not np.isfinite(max_abs):
        return "fail: outputs are not finite"
    judged = judge_drop(drop, limit_pp)
    if judged.startswith("fail"):
        return judged
    if max_abs_limit is not None and max_abs > max_abs_limit:
        return f"fail: differs from Keras by {max_abs:.2g} in a probability (limit {max_abs_limit:g})"
    if agreement < MIN_AGREEMENT:
        return f"fail: top-1 agrees with Keras on {agreement:.1%} of the images (limit {MIN_AGREEMENT:.0%})"
    return judged
