from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.data.sources import Sample
from edgecv.data.split import cut, stratified
from edgecv.errors import DataError

SHARES = {"train": 0.6, "val": 0.1, "test": 0.3}
SIZES = st.lists(st.integers(3, 60), min_size=2, max_size=6)


def photographs(sizes: list[int]) -> list[Sample]:
    return [Sample(f"{c}/{i}.png", c, None, f"{c}-{i}") for c, size in enumerate(sizes) for i in range(size)]


def place(samples: list[Sample], seed: int = 0) -> dict[str, str]:
    names = [f"class{label}" for label in range(max(sample.label for sample in samples) + 1)]
    return cut(samples, SHARES, seed=seed, classes=names)


@given(SIZES, st.integers(0, 5))
def test_each_class_is_split_by_the_fractions(sizes: list[int], seed: int) -> None:
    places = place(photographs(sizes), seed)
    for label, size in enumerate(sizes):
        counts = Counter(places[f"{label}-{i}"] for i in range(size))
        assert sum(counts.values()) == size
        for split, share in SHARES.items():
            assert counts[split] >= 1
            # A split that would be empty takes one from the largest, hence the second step.
            assert abs(counts[split] - share * size) <= 2 if size < 15 else abs(counts[split] - share * size) < 1


@given(SIZES, st.randoms(use_true_random=False))
def test_the_order_and_the_names_of_files_have_no_say(sizes: list[int], random: object) -> None:
    samples = photographs(sizes)
    moved = [Sample(f"/elsewhere/{i}", s.label, s.split, s.sha256) for i, s in enumerate(samples)]
    random.shuffle(moved)  # type: ignore[attr-defined]
    assert place(samples) == place(moved)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 25)), max_size=80))
def test_every_photograph_has_a_split_also_when_bytes_repeat_across_classes(rows: list[tuple[int, int]]) -> None:
    repeated = [Sample(f"r{i}", label, None, f"r{digest}") for i, (label, digest) in enumerate(rows)]
    samples = photographs([3, 3, 3]) + repeated
    assert set(place(samples)) == {sample.sha256 for sample in samples}


@given(st.lists(st.integers(1, 9), min_size=3, max_size=30))
def test_with_repeated_files_every_split_still_has_one(repeats: list[int]) -> None:
    samples = [Sample(f"{i}-{n}", 0, None, f"d{i}") for i, count in enumerate(repeats) for n in range(count)]
    assert set(place(samples).values()) == set(SHARES)


def test_another_seed_gives_another_split() -> None:
    assert place(photographs([50, 50]), 0) != place(photographs([50, 50]), 1)


def test_the_split_is_the_same_on_every_machine_and_version() -> None:
    places = place(photographs([10]))
    splits = defaultdict(list)
    for digest in sorted(places):
        splits[places[digest]].append(digest)
    assert splits["val"] == ["0-3"]
    assert splits["test"] == ["0-4", "0-5", "0-6"]


def test_a_class_too_small_for_the_splits_is_named_with_its_count() -> None:
    with pytest.raises(DataError) as refused:
        place(photographs([5, 2, 1]))
    assert refused.value.got == "class1 (2), class2 (1)"
    assert "at least 3" in refused.value.expected


def test_copies_of_one_file_do_not_make_a_class_large_enough() -> None:
    copies = [Sample(f"{i}", 0, None, "same") for i in range(9)]
    with pytest.raises(DataError, match="too few"):
        place(copies)


LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(np.array)


@given(LABELS, st.integers(0, 220), st.integers(0, 9))
def test_a_stratified_choice_is_sorted_distinct_and_repeatable(labels: np.ndarray, count: int, seed: int) -> None:
    chosen = stratified(labels, count, seed=seed)
    assert chosen.dtype == np.int64
    assert len(chosen) == min(count, len(labels))
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() == stratified(labels, count, seed=seed).tolist()


@given(LABELS, st.integers(1, 220))
def test_a_stratified_choice_has_every_class_by_its_share(labels: np.ndarray, count: int) -> None:
    chosen = Counter(labels[stratified(labels, count, seed=0)].tolist())
    sizes = Counter(labels.tolist())
    count = min(count, len(labels))
    if count >= len(sizes):
        assert set(chosen) == set(sizes)
    for label, size in sizes.items():
        # Rare classes that are raised to one take from the largest.
        assert abs(chosen[label] - count * size / len(labels)) < len(sizes)


def test_another_seed_chooses_other_images() -> None:
    labels = np.repeat([0, 1], 100)
    assert stratified(labels, 20, seed=0).tolist() != stratified(labels, 20, seed=1).tolist()
