"""Structured pruning: remove whole channels, and give a smaller network that is dense, so every runtime runs it faster.

`slim` does one round: groups are found, their channels scored, and as many kept as a budget allows. Training what is
left, and further rounds, are the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Skipped
from edgecv.compress.graph import Group, find_groups, functional
from edgecv.compress.reconstruct import reconstruct
from edgecv.compress.removal import Kept, remove
from edgecv.compress.scores import per_cost, score
from edgecv.errors import ConfigError
from edgecv.recipe import Preprocess
from edgecv.settings import Slim

if TYPE_CHECKING:
    import tf_keras

__all__ = ["Slimmed", "check_reach", "plan", "slim"]

log = logging.getLogger(__name__)

# The least share of a group that ranking groups against each other leaves: without its channels a net is cut in two.
_FLOOR = 0.03
# How many networks are tried on the way to a budget; a latency is measured for each.
_TRIES = {"channels": 64, "macs": 10, "params": 10, "latency": 6}
# Shares closer than this give the same network, as good as always.
_CLOSE = 1e-3
# A latency this near below its budget is not worth another measurement: noise is as large.
_NEAR = 0.97


@dataclass(frozen=True)
class Slimmed:
    """What one round gave.

    `kept`: of each group that was slimmed, the channels that stay, and of how many. `left`: what was left alone, by the
    first layer of its channels. `share`: of the budget, in (0, 1], what the model takes of what it took.
    """

    model: tf_keras.Model
    kept: dict[str, tuple[int, int]]
    left: tuple[Skipped, ...]
    share: float


def slim(
    model: tf_keras.Model,
    settings: Slim,
    *,
    keep: float,
    cost: Callable[[Any], float] | None = None,
    images: NDArray[np.uint8] | None = None,
    labels: NDArray[np.integer[Any]] | None = None,
    preprocess: Preprocess | None = None,
) -> Slimmed:
    """Remove channels in one round, so that `keep`, in (0, 1), of the budget stays. `model` is not changed.

    `cost` gives a model's multiply-accumulates, parameters or milliseconds, whichever `settings.budget` is; it is
    called up to 12 times, for a latency up to 8. Of the networks that the ranking leads through, the largest found with
    `cost` within `keep * cost(model)` is taken. The budget "channels" needs no `cost`; "uniform" then keeps that share
    of each group, rounded to multiples. `images`, `labels`, `preprocess`: for Taylor scores, as `score` says, and for
    the reconstruction.

    Raises:
        ConfigError: there is nothing to remove, or the smallest network in reach is above the budget.
        ModelError: the model is not functional.
    """
    model = functional(model)
    groups, left = _choose(*find_groups(model), settings)
    scores = score(model, groups, settings, images=images, labels=labels, preprocess=preprocess)
    if settings.ranking == "global":
        scores = per_cost(model, groups, scores, settings)
    cost_of = _cost_of(model, scores, settings, cost)
    if settings.budget == "channels" and settings.ranking == "uniform":
        kept, share = _share_of_each(scores, settings, keep)
    else:
        kept, share = _search(scores, settings, keep, cost_of=cost_of)
    counts = {name: (len(indices), len(scores[name])) for name, indices in kept.items()}
    log.info("slim: %.3f of the %s stay (asked: %.3f)", share, settings.budget, keep)
    smaller = remove(model, kept)
    if settings.reconstruct and images is not None and preprocess is not None:
        reconstruct(model, smaller, kept, images=images, preprocess=preprocess)
    return Slimmed(smaller, counts, left, share)


def check_reach(model: tf_keras.Model, settings: Slim, *, cost: Callable[[Any], float] | None = None) -> None:
    """Refuse a `settings.keep` that not even the smallest network in reach has, before anything is trained.

    `cost` is as in `slim`. It is called twice; the model's weights don't matter, unless `cost` looks at them.

    Raises:
        ConfigError: there is nothing to remove, or `keep` is out of reach.
        ModelError: the model is not functional.
    """
    model = functional(model)
    groups, _ = _choose(*find_groups(model), settings)
    scores = {group.name: np.arange(group.size, dtype=np.float64) for group in groups}
    _smallest(scores, settings, settings.keep, cost_of=_cost_of(model, scores, settings, cost))


def plan(scores: Mapping[str, NDArray[np.float64]], settings: Slim, *, share: float) -> Kept:
    """Choose the channels to keep of each group, those of the highest scores: int64 indices, sorted.

    `share`, in [0, 1], is of each group's channels ("uniform") or of the channels of all groups together ("global": the
    scores have to be comparable between groups), and no group goes below three hundredths. Counts are multiples of
    `settings.multiple`, at least one of it; a group that has no more stays whole.

    >>> plan({"stem": np.array([0.1, 0.9, 0.5, 0.7])}, Slim(multiple=2), share=0.5)
    {'stem': array([1, 3])}
    """
    if share >= 1.0 or not scores:
        return {name: np.arange(len(each)) for name, each in scores.items()}
    wanted = {name: share * len(each) for name, each in scores.items()}
    if settings.ranking == "global":
        threshold = np.quantile(np.concatenate(list(scores.values())), 1.0 - share)
        wanted = {name: max(float((each >= threshold).sum()), _FLOOR * len(each)) for name, each in scores.items()}
    return {name: _best(each, _rounded(wanted[name], len(each), settings.multiple)) for name, each in scores.items()}


def _rounded(wanted: float, size: int, multiple: int) -> int:
    return min(size, max(1, int(wanted / multiple + 0.5)) * multiple)


def _best(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return np.sort(np.argsort(-scores, kind="stable")[:count]).astype(np.int64)


def _choose(
    groups: tuple[Group, ...], left: tuple[Skipped, ...], settings: Slim
) -> tuple[tuple[Group, ...], tuple[Skipped, ...]]:
    """Split off the groups that the settings leave alone."""
    reasons = {}
    for group in groups:
        if settings.groups == "expanded" and not group.inside:
            reasons[group.name] = 'not inside one block; slim.groups = "all" slims these as well'
        elif group.size <= settings.multiple:
            reasons[group.name] = f"{group.size} channels, and slim.multiple is {settings.multiple}"
    chosen = tuple(group for group in groups if group.name not in reasons)
    if not chosen:
        raise ConfigError(
            "slim finds no channels to remove",
            got=f"{len(groups)} groups of channels, the largest of {max((g.size for g in groups), default=0)}",
            expected=f"a group of more than {settings.multiple} channels (slim.multiple), {settings.groups}",
            fix='set slim.multiple lower, or slim.groups = "all"',
        )
    return chosen, (*left, *(Skipped(name, reason) for name, reason in reasons.items()))


def _cost_of(
    model: Any, scores: dict[str, NDArray[np.float64]], settings: Slim, cost: Callable[[Any], float] | None
) -> Callable[[Kept], float]:
    """Make the function that gives the share of the budget that a plan takes."""
    if settings.budget == "channels":
        channels = sum(map(len, scores.values()))
        return lambda kept: sum(map(len, kept.values())) / channels
    if cost is None:
        raise ConfigError(
            f'slim.budget = "{settings.budget}" needs a function that gives it for a model',
            got="none",
            expected="cost",
            fix='give one, or set slim.budget = "channels"',
        )
    full = float(cost(model))
    return lambda kept: float(cost(remove(model, kept))) / full


def _share_of_each(scores: dict[str, NDArray[np.float64]], settings: Slim, keep: float) -> tuple[Kept, float]:
    kept, channels = plan(scores, settings, share=keep), sum(map(len, scores.values()))
    share = sum(map(len, kept.values())) / channels
    if share > keep and all(len(indices) <= settings.multiple for indices in kept.values()):
        raise _out_of_reach(settings, keep, share)
    return kept, share


def _search(
    scores: dict[str, NDArray[np.float64]], settings: Slim, keep: float, *, cost_of: Callable[[Kept], float]
) -> tuple[Kept, float]:
    """Halve the interval of shares that holds the largest network within the budget."""
    low, high, best = 0.0, 1.0, None
    known: dict[tuple[int, ...], float] = {}
    while high - low > _CLOSE and len(known) < _TRIES[settings.budget]:
        middle = (low + high) / 2.0
        kept = plan(scores, settings, share=middle)
        counts = tuple(map(len, kept.values()))
        share = known[counts] = known[counts] if counts in known else cost_of(kept)
        if share > keep:
            high = middle
            continue
        low = middle
        if best is None or share > best[1]:
            best = kept, share
        if settings.budget == "latency" and share >= _NEAR * keep:
            break
    return best or _smallest(scores, settings, keep, cost_of=cost_of)


def _smallest(
    scores: dict[str, NDArray[np.float64]], settings: Slim, keep: float, *, cost_of: Callable[[Kept], float]
) -> tuple[Kept, float]:
    smallest = plan(scores, settings, share=0.0)
    share = cost_of(smallest)
    if share > keep:
        raise _out_of_reach(settings, keep, share)
    return smallest, share


def _out_of_reach(settings: Slim, keep: float, share: float) -> ConfigError:
    return ConfigError(
        f"slim can't reach this share of the {settings.budget}",
        got=f"keep = {keep:.3g}",
        expected=f"{share:.3g} or more, what the smallest network takes (slim.multiple is {settings.multiple})",
        fix=f"set slim.keep higher, or slim.multiple lower than {settings.multiple}"
        + (', or slim.groups = "all"' if settings.groups == "expanded" else ""),
    )
