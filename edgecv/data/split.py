"""Share photographs out: to train, val and test, and to the representative data set."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.data.csv_source import few
from edgecv.data.sources import Sample
from edgecv.errors import DataError

__all__ = ["cut", "stratified"]


def cut(samples: Sequence[Sample], shares: Mapping[str, float], *, seed: int, classes: Sequence[str]) -> dict[str, str]:
    """Return the split of each digest: each class by `shares`, largest remainder, one file at least in each split.

    Files of equal bytes count each, and land in one split. Neither the order of `samples` nor their paths matter.

    Raises:
        DataError: a class has fewer different files than there are splits.
    """
    groups: dict[int, dict[str, int]] = {label: defaultdict(int) for label in range(len(classes))}
    for sample in samples:
        groups[sample.label][sample.sha256] += 1
    small = [f"{classes[label]} ({len(group)})" for label, group in groups.items() if len(group) < len(shares)]
    if small:
        raise DataError(
            f"{len(small)} classes have too few photographs to be split into {', '.join(shares)}",
            got=few(small),
            expected=f"at least {len(shares)} different photographs of each class",
            fix="add photographs, or remove the class",
        )
    places: dict[str, str] = {}
    for label in range(len(classes)):
        _place(groups[label], shares, seed=seed, places=places)
    return places


def stratified(labels: npt.NDArray[np.integer[Any]], count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Choose `count` of `labels`, each class by its share: int64 `(min(count, n),)`, sorted positions.

    Every class is there when `count` is at least the number of classes. The same arguments give the same choice.

    >>> labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    >>> labels[stratified(labels, 3, seed=0)].tolist()
    [0, 0, 1]
    """
    if count >= len(labels):
        return np.arange(len(labels))
    random = np.random.default_rng(seed)
    sizes = np.unique(labels, return_counts=True)
    chosen = [
        random.choice(np.flatnonzero(labels == label), size=share, replace=False)
        for label, share in zip(sizes[0], _apportion(count, sizes[1].tolist()), strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _place(group: Mapping[str, int], shares: Mapping[str, float], *, seed: int, places: dict[str, str]) -> None:
    """Add to `places` the split of each digest of one class.

    The order is that of a hash of the seed and the file's own bytes, so neither names nor folders have a say in it.
    Files that occur often go first, while every split still has room for them.
    """
    counts = _apportion(sum(group.values()), list(shares.values()))
    room = dict(zip(shares, counts, strict=True))
    empty = set(shares)
    for digest in group.keys() & places.keys():
        room[places[digest]] -= group[digest]
        empty.discard(places[digest])
    rest = sorted(group.keys() - places.keys(), key=lambda digest: (-group[digest], _rank(digest, seed)))
    for number, digest in enumerate(rest):
        # The last files belong to splits that would otherwise have none of this class.
        choice = sorted(empty) if empty and len(rest) - number <= len(empty) else list(shares)
        split = max(choice, key=lambda name: (room[name], name in empty))
        places[digest] = split
        room[split] -= group[digest]
        empty.discard(split)


def _rank(digest: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {digest}".encode()).hexdigest()


def _apportion(count: int, weights: Sequence[float]) -> list[int]:
    """Share `count` by `weights`, largest remainder first; at least one each where `count` allows it."""
    total = sum(weights)
    exact = [count * weight / total for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: count - sum(shares)]:
        shares[i] += 1
    if count >= len(weights):
        for i in [i for i, share in enumerate(shares) if share == 0]:
            shares[shares.index(max(shares))] -= 1
            shares[i] = 1
    return shares
