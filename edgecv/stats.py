"""Intervals, tests and percentiles: what the figures can carry, and what they can't."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgecv.errors import UsageError

__all__ = [
    "Comparison",
    "Drop",
    "accuracy_drop",
    "compare",
    "judge_drop",
    "percentile",
    "process_figure",
    "samples_needed",
    "spread_warning",
    "wilson",
]

Floats = npt.NDArray[np.float64]
Samples = Sequence[float] | Floats
Interval = tuple[float, float]

# Above this many pairs the normal approximation of the signed-rank distribution is right to the third digit.
_EXACT_PAIRS = 50
_MOST_IMAGES = 1_000_000
# What a target file may ask for at most.
_MOST_PROCESSES = 200


@dataclass(frozen=True)
class Drop:
    """How much accuracy a candidate loses on the same `n` images; above 0 it is worse.

    `drop_pp` and `ci95` are percentage points. `lost`: images that only the reference has right; `gained`: that only
    the candidate has.
    """

    drop_pp: float
    ci95: Interval
    lost: int
    gained: int
    n: int
    confidence: float = 0.95


@dataclass(frozen=True)
class Comparison:
    """Baseline latency over the candidate's: above 1 the candidate is faster.

    `answer`: "faster", "slower", or "can't tell: " and why. `ci95` is None where there are too few pairs for one.
    """

    ratio: float
    ci95: Interval | None
    answer: str


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Bound a share, as fractions in [0, 1].

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22.

    Raises:
        UsageError: `n` is below 1, or `successes` is not in [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise UsageError("no share of these counts", got=f"{successes} of {n}", expected="0 <= successes <= n, n >= 1")
    z, share = _z(confidence), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and at n rounding would leave the interval a hair off the share.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def accuracy_drop(
    reference_correct: npt.NDArray[np.bool_], candidate_correct: npt.NDArray[np.bool_], *, confidence: float = 0.95
) -> Drop:
    """Compare two models on the same images by the pairs they disagree on.

    Both arrays are bool `(n,)`: whether the model has image i right. The interval is Tango's score interval.

    Raises:
        UsageError: they are not two bool arrays of one length above 0.
    """
    reference, candidate = np.asarray(reference_correct), np.asarray(candidate_correct)
    if reference.dtype != bool or candidate.dtype != bool or reference.ndim != 1 or reference.shape != candidate.shape:
        raise UsageError(
            "can't pair the two models' answers",
            got=f"{reference.dtype} {reference.shape} and {candidate.dtype} {candidate.shape}",
            expected="two bool arrays (n,) over the same images in the same order",
        )
    n = len(reference)
    if n == 0:
        raise UsageError("can't compare accuracy on no images", got="0 images", expected="at least 1")
    lost, gained = int(np.sum(reference & ~candidate)), int(np.sum(candidate & ~reference))
    low, high = _tango(lost, gained, n=n, confidence=confidence)
    return Drop(100 * (lost - gained) / n, (100 * low, 100 * high), lost, gained, n, confidence)


def judge_drop(drop: Drop, limit_pp: float) -> str:
    """Say whether a drop keeps a limit: "pass", "fail: ..." or "can't tell: N more images".

    N is where the interval would clear the limit if images to come disagree as often as those seen.
    """
    low, high = drop.ci95
    if high <= limit_pp:
        return "pass"
    if low > limit_pp:
        digits = next((d for d in (1, 2, 3) if round(low, d) > limit_pp), 4)
        interval = f"[{low:.{digits}f}, {high:.{digits}f}]"
        return f"fail: drop {drop.drop_pp:.{digits}f} pp {interval}, limit {_limit_text(limit_pp)}"
    if (more := _images_missing(drop, limit_pp)) is None:
        return (
            f"can't tell: a drop of {drop.drop_pp:.2f} pp is so close to the limit of {_limit_text(limit_pp)} "
            f"that {_MOST_IMAGES:,} more images would not decide"
        )
    return f"can't tell: {more:,} more image{'s' if more > 1 else ''}"


def samples_needed(q: float) -> int:
    """Count the samples that percentile `q` (0 to 100, both excluded) takes: p50 7, p90 and p10 64, p95 130, p99 662.

    In the tails: the fewest of which, with 99 % confidence, at least two lie beyond the true percentile, because the
    figure is drawn between two neighbours: `s**n + n * (1 - s) * s**(n - 1) <= 0.01` with `s` the larger of q and
    1 - q. The median lies between neighbours from the middle, and one beyond is enough: `0.5**n <= 0.01`.

    Source: Wilks 1941, "Determination of sample sizes for setting tolerance limits", Ann. Math. Stat. 12.

    Raises:
        UsageError: `q` is not between 0 and 100.
    """
    if not 0 < q < 100:
        raise UsageError("no such percentile", got=f"{q:g}", expected="above 0 and below 100")
    if q == 50:
        return 7
    # In this form, not 1 - q / 100, p10 and p90 give the very same figure.
    tail = min(q, 100 - q) / 100
    inner = 1 - tail
    return _first(lambda n: inner ** (n - 1) * (inner + n * tail) <= 0.01, start=2)


def percentile(samples: Samples, q: float) -> float | None:
    """Percentile `q` (0 to 100) of the samples in their own unit; None with fewer than `samples_needed(q)`.

    Interpolates linearly, as `numpy.percentile` does.
    """
    if len(samples) < samples_needed(q):
        return None
    return float(np.percentile(np.asarray(samples, dtype=np.float64), q))


def process_figure(latencies_ms: Samples) -> float:
    """Reduce one process's invocations to its p10 in ms: the figure that comparisons are made of.

    Disturbance only ever adds time, so the low end repeats best from process to process.

    Raises:
        UsageError: there are none, or one is not a finite figure above 0.
    """
    return float(np.percentile(_latencies(latencies_ms), 10))


def compare(baseline_ms: Samples, candidate_ms: Samples, *, confidence: float = 0.95) -> Comparison:
    """Compare two models by one figure a process each (see `process_figure`), paired by round.

    The ratio is the Hodges-Lehmann estimate: the median of the log ratios' pairwise (Walsh) averages. Its interval
    holds the ratios that the signed-rank test does not refuse, so the answer and the test agree.

    Raises:
        UsageError: the two differ in length, are empty, or hold something else than finite figures above 0.

    Source: Hodges and Lehmann 1963, "Estimates of location based on rank tests", Ann. Math. Stat. 34; the interval:
    Hollander and Wolfe, "Nonparametric Statistical Methods", chapter 3.
    """
    baseline, candidate = _latencies(baseline_ms), _latencies(candidate_ms)
    if baseline.shape != candidate.shape:
        raise UsageError(
            "can't pair the processes", got=f"{len(baseline)} and {len(candidate)}", expected="one of each a round"
        )
    logs = np.log(baseline) - np.log(candidate)
    n = len(logs)
    rows, columns = np.triu_indices(n)
    walsh = np.sort((logs[rows] + logs[columns]) / 2)
    ratio = math.exp(float(np.median(walsh)))
    if (outside := _walsh_outside(n, confidence)) is None:
        missing = _first(lambda more: 0.5 ** (more - 1) <= 1 - confidence) - n
        return Comparison(ratio, None, f"can't tell: {missing} more process{'es' if missing > 1 else ''}")
    low, high = math.exp(walsh[outside]), math.exp(walsh[-1 - outside])
    return Comparison(ratio, (low, high), _answer(low, high))


def spread_warning(figures_ms: Samples, *, limit: float = 0.10) -> str | None:
    """Warn where processes of one model disagree: the middle half of their figures spans over `limit` of the median.

    An error falls with the root of n: `n * (spread / limit)**2` processes do as well as n with a spread at the limit.
    """
    if len(figures_ms) < 2:
        return None
    low, middle, high = np.percentile(_latencies(figures_ms), (25, 50, 75))
    spread = float((high - low) / middle)
    if spread <= limit:
        return None
    processes = _round_up(len(figures_ms) * (spread / limit) ** 2)
    more = f", or raise processes to {processes}" if processes <= _MOST_PROCESSES else ""
    digits = 0 if round(100 * spread) > 100 * limit else 1
    figures = f"spread is {100 * spread:.{digits}f} % of the median (limit {100 * limit:g} %)"
    return f"{figures}: close other programs{more}"


def _tango(lost: float, gained: float, *, n: float, confidence: float) -> Interval:
    """Score interval of a paired difference `(lost - gained) / n`, as fractions; the counts need not be whole.

    Unlike Wald's it has a width without discordant pairs. Source: Tango 1998, "Equivalence test and confidence interval
    for the difference in proportions for the paired-sample design", Statistics in Medicine 17.
    """
    z2, estimate = _z(confidence) ** 2, (lost - gained) / n

    def admits(delta: float) -> bool:
        b = (2 * n - lost + gained) * delta - lost - gained
        c = -gained * delta * (1 - delta)
        share_gained = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * share_gained + delta * (1 - delta))
        return (n * (delta - estimate)) ** 2 <= z2 * max(0.0, variance)

    def bound(end: float) -> float:
        inside, outside = estimate, end
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if admits(middle) else (inside, middle)
        return inside

    return bound(-1.0), bound(1.0)


def _images_missing(drop: Drop, limit_pp: float) -> int | None:
    """Images still needed, rounded up to 2 digits, or None where a million would not do."""

    def decided(more: int) -> bool:
        n = drop.n + more
        grown = n / drop.n
        low, high = _tango(drop.lost * grown, drop.gained * grown, n=n, confidence=drop.confidence)
        return 100 * high <= limit_pp or 100 * low > limit_pp

    if not decided(_MOST_IMAGES):
        return None
    return _round_up(_first(decided))


def _signed_rank_distribution(ranks: npt.NDArray[np.int64]) -> Floats:
    """Probability of each sum 0, 1, ... of the whole-number ranks when each is in or out with share 1/2."""
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] = (chances[rank:] + chances[:-rank]) / 2
        chances[:rank] /= 2
    return chances


def _walsh_outside(n: int, confidence: float) -> int | None:
    """How many Walsh averages lie outside the interval on each side, None where `n` pairs are too few for one."""
    tail = (1 - confidence) / 2
    if n > _EXACT_PAIRS:
        sigma = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(n * (n + 1) / 4 - _z(confidence) * sigma)
    chances = _signed_rank_distribution(np.arange(1, n + 1))
    # A sum with no more than `tail` at or below it: the test refuses there. The slack keeps 1/64 <= 1/64 true.
    refused = int(np.searchsorted(np.cumsum(chances), tail + 1e-12, side="right"))
    return refused - 1 if refused else None


def _answer(low: float, high: float) -> str:
    if low > 1:
        return "faster"
    if high < 1:
        return "slower"
    digits = next((d for d in (2, 3, 4) if round(low, d) < 1 < round(high, d)), 2)
    return f"can't tell: the interval [{low:.{digits}f}, {high:.{digits}f}] contains 1"


def _latencies(latencies_ms: Samples) -> Floats:
    values = np.asarray(latencies_ms, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.all(np.isfinite(values)) or values.min() <= 0:
        raise UsageError(
            "these are not latencies",
            got=f"shape {values.shape}" + (f", lowest {values.min():g}" if values.size else ""),
            expected="one or more finite figures above 0, in ms",
        )
    return values


def _first(holds: Callable[[int], bool], *, start: int = 1) -> int:
    """Find the least whole number from `start` on where `holds`, which must not turn false again."""
    high = start
    while not holds(high):
        high *= 2
    low = start
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _round_up(figure: float) -> int:
    """Round up to a whole number of 2 significant digits."""
    whole = math.ceil(figure - 1e-9)
    unit: int = 10 ** max(0, len(str(whole)) - 2)
    return -(-whole // unit) * unit


def _limit_text(limit_pp: float) -> str:
    return f"{limit_pp:.1f}" if round(limit_pp, 1) == limit_pp else f"{limit_pp:g}"


def _z(confidence: float) -> float:
    """Width of a two-sided interval in standard deviations of a normal distribution: 1.96 at 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
