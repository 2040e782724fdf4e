"""Give every photograph one split, and decode them into arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgecv.data.csv_source import few
from edgecv.data.decode import decode
from edgecv.data.sources import SPLITS, Index, Sample, scan
from edgecv.data.split import cut
from edgecv.errors import DataError
from edgecv.recipe import Data, Preprocess

__all__ = ["Loaded", "all_test", "index", "index_digest", "load"]

# From this share of damaged files on, the set is refused: it is more likely a broken copy than a few bad photographs.
_CORRUPT_LIMIT = 0.01


T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Loaded:
    """Decoded photographs by split.

    `images`: uint8 `(n, size, size, 3)`, RGB; `labels`: int64 `(n,)`; `names`: n paths. `skipped`: one line for each
    file that could not be decoded, with the reason.
    """

    images: dict[str, npt.NDArray[np.uint8]]
    labels: dict[str, npt.NDArray[np.int64]]
    names: dict[str, tuple[str, ...]]
    skipped: tuple[str, ...]


def index(spec: Data, *, cache: Path | None = None) -> Index:
    """Find the photographs of `spec.source` and give each one of the splits train, val and test.

    Splits that the source has are kept; a missing val or test is cut from train. What we cut is stratified, fixed by
    `spec.seed` and the bytes of the files alone, and equal files land in one split. No file is in two splits.
    `cache`: where a TensorFlow data set is written out; by default a folder of the user's cache.

    Raises:
        DataError: no photographs, fewer than two classes, a class too small to be split, a malformed folder or CSV.
        MissingError: the package that brings the photographs is not installed.
    """
    found = scan(spec.source, cache=cache or Path.home() / ".cache" / "edgecv")
    if len(found.classes) < 2:
        raise DataError(
            f"{spec.source} has {len(found.classes)} class",
            got=few(found.classes),
            expected="at least 2 classes",
            fix="add a folder of photographs of what the class is told apart from",
        )
    own = {sample.split for sample in found.samples} - {None}
    samples, warnings = _apart(found.samples) if own else (list(found.samples), [])
    if own and "train" not in own:
        raise DataError(
            f"{spec.source} has no train split", got=few(sorted(map(str, own))), expected="train, or no splits"
        )
    shares = {"train": spec.split[0]}
    shares |= {split: share for split, share in zip(SPLITS[1:], spec.split[1:], strict=True) if split not in own}
    pool = [sample for sample in samples if sample.split in (None, "train")]
    places = cut(pool, shares, seed=spec.seed, classes=found.classes)
    samples = [
        replace(sample, split=sample.split if sample.split in SPLITS[1:] else places[sample.sha256])
        for sample in samples
    ]
    warnings += _ambiguous(samples, found.classes) + _thin(samples, found.classes)
    return replace(found, samples=tuple(samples), warnings=(*found.warnings, *warnings))


def all_test(source: str, *, cache: Path | None = None) -> Index:
    """Put every photograph of `source` into the test split: to score a model that was trained elsewhere."""
    found = scan(source, cache=cache or Path.home() / ".cache" / "edgecv")
    return replace(found, samples=tuple(replace(sample, split="test") for sample in found.samples))


def _apart(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """Drop from train what is in val or test too, and from val what is in test too: byte for byte."""
    kept, warnings, seen = list(samples), [], set[str]()
    for split in ("test", "val", "train"):
        twice = [sample for sample in kept if sample.split == split and sample.sha256 in seen]
        if twice:
            names = few(Path(sample.path).name for sample in twice)
            warnings.append(
                f"{len(twice)} photographs of {split} left out, because they are in another split too: {names}"
            )
        kept = [sample for sample in kept if sample.split != split or sample.sha256 not in seen]
        seen |= {sample.sha256 for sample in kept if sample.split == split}
    return kept, warnings


def _ambiguous(samples: Iterable[Sample], classes: Sequence[str]) -> list[str]:
    """Warn of files that stand in two classes."""
    labels = defaultdict(set)
    for sample in samples:
        labels[sample.sha256].add(sample.label)
    pairs = sorted(
        {" = ".join(classes[label] for label in sorted(group)) for group in labels.values() if len(group) > 1}
    )
    count = sum(len(group) > 1 for group in labels.values())
    return [f"{count} photographs stand in more than one class: {few(pairs)}"] if count else []


def _thin(samples: Iterable[Sample], classes: Sequence[str]) -> list[str]:
    """Warn of classes without photographs in a split."""
    have = {(sample.split, sample.label) for sample in samples}
    lacking = {split: [name for i, name in enumerate(classes) if (split, i) not in have] for split in SPLITS}
    return [f"no photographs in {split} of: {few(names)}" for split, names in lacking.items() if names]


def load(index: Index, preprocess: Preprocess, *, progress: Callable[[int, int], None] | None = None) -> Loaded:
    """Decode every photograph of `index`, by all cores. `progress` is called with how many are done, and of how many.

    Raises:
        DataError: 1 % of the files or more can't be decoded, or a class has lost all its photographs in a split. Fewer
            damaged files are left out, and named in `skipped`.
    """
    splits = {split: [sample for sample in index.samples if sample.split == split] for split in SPLITS}
    side = preprocess.size
    images = {split: np.empty((len(group), side, side, 3), np.uint8) for split, group in splits.items()}
    jobs = [(split, row, sample) for split, group in splits.items() for row, sample in enumerate(group)]
    bad: dict[tuple[str, int], str] = {}

    def work(job: tuple[str, int, Sample]) -> None:
        split, row, sample = job
        try:
            images[split][row] = decode(sample.path, preprocess)
        except DataError as error:
            bad[split, row] = f"{sample.path}: {error.got}"

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(work, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    skipped = tuple(bad[split, row] for split, row, _ in jobs if (split, row) in bad)
    _refuse_damage(skipped, total=len(jobs))
    loaded = Loaded(
        images={split: _without(images[split], split, bad) for split in SPLITS},
        labels={split: _without(np.array([s.label for s in splits[split]], np.int64), split, bad) for split in SPLITS},
        names={split: tuple(s.path for i, s in enumerate(splits[split]) if (split, i) not in bad) for split in SPLITS},
        skipped=skipped,
    )
    _refuse_lost(splits, loaded, index.classes)
    return loaded


def _without(rows: npt.NDArray[T], split: str, bad: Mapping[tuple[str, int], str]) -> npt.NDArray[T]:
    """Drop the bad rows. Where there are none, the array itself: it may be large."""
    drop = [row for place, row in bad if place == split]
    return np.delete(rows, drop, axis=0) if drop else rows


def _refuse_damage(skipped: Sequence[str], *, total: int) -> None:
    if skipped and len(skipped) >= _CORRUPT_LIMIT * total:
        raise DataError(
            f"{len(skipped)} of {total} photographs can't be decoded",
            got="; ".join(skipped[:5]) + (f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""),
            expected=f"fewer than {_CORRUPT_LIMIT:.0%} damaged files",
            fix="copy the files again, or remove them",
        )


def _refuse_lost(splits: Mapping[str, Sequence[Sample]], loaded: Loaded, classes: Sequence[str]) -> None:
    for split, group in splits.items():
        lost = {sample.label for sample in group} - set(loaded.labels[split].tolist())
        if lost:
            raise DataError(
                f"no photograph can be decoded in {split} of: {few(classes[label] for label in sorted(lost))}",
                got="; ".join(loaded.skipped[:5]),
                fix="replace the damaged files",
            )


def index_digest(index: Index) -> str:
    """SHA-256 over the classes and each photograph's bytes, label and split: not over where the files lie."""
    rows = sorted((sample.sha256, sample.label, sample.split or "") for sample in index.samples)
    return hashlib.sha256(json.dumps([index.classes, rows]).encode()).hexdigest()
