from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecv import data
from edgecv.errors import DataError
from edgecv.recipe import Data, Preprocess

SHARED = Path(__file__).parents[2] / "shared" / "data"


def photograph(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def photographs(root: Path, sizes: dict[str, int], *, start: int = 0) -> Path:
    """Write PNG photographs that all differ: `sizes` maps a folder under `root` to how many."""
    number = start
    for folder, size in sizes.items():
        for i in range(size):
            photograph(root / folder / f"{i:03}.png", number)
            number += 1
    return root


def counts(index: data.Index) -> Counter[tuple[str | None, str]]:
    return Counter((sample.split, index.classes[sample.label]) for sample in index.samples)


def bytes_of(index: data.Index, split: str) -> set[str]:
    return {sample.sha256 for sample in index.samples if sample.split == split}


def assert_apart(index: data.Index) -> None:
    train, val, test = (bytes_of(index, split) for split in data.SPLITS)
    assert not train & val
    assert not train & test
    assert not val & test


def test_class_folders_are_split_by_the_fractions(tmp_path: Path) -> None:
    index = data.index(Data(source=str(photographs(tmp_path, {"a": 10, "b": 20}))))
    assert counts(index) == {
        ("train", "a"): 6,
        ("val", "a"): 1,
        ("test", "a"): 3,
        ("train", "b"): 12,
        ("val", "b"): 2,
        ("test", "b"): 6,
    }


def test_a_missing_val_split_is_cut_from_train(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"train/a": 14, "train/b": 7, "test/a": 5, "test/b": 5})
    index = data.index(Data(source=str(root)))
    assert counts(index)["val", "a"] == 2
    assert counts(index)["val", "b"] == 1
    assert all(("/test/" in sample.path) == (sample.split == "test") for sample in index.samples)


def test_a_missing_test_split_is_cut_from_train(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"train/a": 9, "train/b": 9, "val/a": 5, "val/b": 5})
    index = data.index(Data(source=str(root)))
    assert counts(index)["test", "a"] == 3
    assert counts(index)["val", "a"] == 5


def test_three_splits_of_the_source_are_kept_as_they_are(tmp_path: Path) -> None:
    root = photographs(tmp_path, {f"{split}/{name}": 2 for split in data.SPLITS for name in "ab"})
    index = data.index(Data(source=str(root)))
    assert all(f"/{sample.split}/" in sample.path for sample in index.samples)
    assert index.warnings == ()


def test_a_photograph_of_test_is_dropped_from_train_and_val_with_a_warning(tmp_path: Path) -> None:
    root = photographs(tmp_path, {f"{split}/{name}": 5 for split in data.SPLITS for name in "ab"})
    shutil.copy(root / "test/a/000.png", root / "train/a/copy.png")
    shutil.copy(root / "test/a/000.png", root / "val/a/copy.png")
    shutil.copy(root / "val/b/000.png", root / "train/b/copy.png")
    index = data.index(Data(source=str(root)))
    assert_apart(index)
    assert len(index.samples) == 30
    assert len(bytes_of(index, "test")) == 10
    assert any("2 photographs of train" in warning for warning in index.warnings)
    assert any("1 photographs of val" in warning for warning in index.warnings)


def test_copies_of_a_photograph_land_in_one_split(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"a": 6, "b": 6})
    for number in range(6):
        shutil.copy(root / f"a/{number:03}.png", root / f"a/copy-of-{number}.png")
    index = data.index(Data(source=str(root)))
    assert len(index.samples) == 18
    assert_apart(index)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.sampled_from(["train", "val", "test"])), max_size=60
    ),
    own=st.sampled_from([(), ("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")]),
    seed=st.integers(0, 3),
)
def test_train_val_and_test_never_share_a_byte(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, str]], own: tuple[str, ...], seed: int
) -> None:
    root = tmp_path_factory.mktemp("set")
    base = [(name, 100 * i + n, split) for i, name in enumerate("abc") for split in data.SPLITS for n in range(4)]
    for number, (name, content, split) in enumerate(base + rows):
        if own and split not in own:
            continue
        path = root / (split if own else "") / name / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content} {split}" if number < len(base) else str(content))
    index = data.index(Data(source=str(root), seed=seed))
    assert_apart(index)
    assert {sample.split for sample in index.samples} == set(data.SPLITS)


def test_the_split_follows_the_bytes_and_not_the_folder_or_the_names(tmp_path: Path) -> None:
    first = photographs(tmp_path / "first", {"a": 12, "b": 12})
    second = tmp_path / "elsewhere" / "second"
    for number, path in enumerate(sorted(first.rglob("*.png"), reverse=True)):
        (second / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, second / path.parent.name / f"renamed-{number}.png")
    one, two = (data.index(Data(source=str(root))) for root in (first, second))
    assert all(bytes_of(one, split) == bytes_of(two, split) for split in data.SPLITS)
    assert data.index_digest(one) == data.index_digest(two)


def test_another_seed_gives_another_digest(tmp_path: Path) -> None:
    root = str(photographs(tmp_path, {"a": 12, "b": 12}))
    digests = {data.index_digest(data.index(Data(source=root, seed=seed))) for seed in (0, 1)}
    assert len(digests) == 2


def test_a_photograph_in_two_classes_is_warned_of(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"a": 5, "b": 5})
    shutil.copy(root / "a/000.png", root / "b/same.png")
    warnings = data.index(Data(source=str(root))).warnings
    assert any("1 photographs stand in more than one class: a = b" in warning for warning in warnings)


def test_a_class_without_test_photographs_is_warned_of(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 1, "val/b": 1, "test/a": 2})
    assert data.index(Data(source=str(root))).warnings == ("no photographs in test of: b",)


def test_a_class_that_train_lacks_is_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"train/a": 5, "test/a": 2, "test/b": 2})
    with pytest.raises(DataError, match="too few") as refused:
        data.index(Data(source=str(root)))
    assert refused.value.got == "b (0)"


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 class"):
        data.index(Data(source=str(photographs(tmp_path, {"a": 5}))))


def test_a_class_of_one_photograph_is_refused_by_name_and_count(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few") as refused:
        data.index(Data(source=str(photographs(tmp_path, {"a": 5, "lonely": 1}))))
    assert refused.value.got == "lonely (1)"


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"a": 2, "b": 2})
    rows = "".join(f"{name}/{i:03}.png,{name},test\n" for name in "ab" for i in range(2))
    (root / "labels.csv").write_text("image,label,split\n" + rows)
    with pytest.raises(DataError, match="no train split"):
        data.index(Data(source=str(root / "labels.csv")))


def test_a_table_can_be_all_test_to_score_a_foreign_model(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"a": 1, "b": 1})
    (root / "labels.csv").write_text("image,label\na/000.png,3\nb/000.png,7\n")
    index = data.all_test(str(root / "labels.csv"))
    assert counts(index) == {("test", "3"): 1, ("test", "7"): 1}


def test_loading_gives_arrays_by_split_and_reports_progress(tmp_path: Path) -> None:
    index = data.index(Data(source=str(photographs(tmp_path, {"a": 10, "b": 10}))))
    seen: list[tuple[int, int]] = []
    loaded = data.load(index, Preprocess(size=20), progress=lambda done, total: seen.append((done, total)))
    assert loaded.images["train"].shape == (12, 20, 20, 3)
    assert loaded.images["train"].dtype == np.uint8
    assert loaded.labels["test"].dtype == np.int64
    assert loaded.labels["test"].tolist() == [0, 0, 0, 1, 1, 1]
    for split in data.SPLITS:
        for name, pixels in zip(loaded.names[split], loaded.images[split], strict=True):
            np.testing.assert_array_equal(pixels, np.asarray(Image.open(name)))
    assert seen == [(i, 20) for i in range(1, 21)]


def test_under_one_percent_damaged_files_are_skipped_and_named(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"a": 55, "b": 56})
    damaged = root / "a/007.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    loaded = data.load(data.index(Data(source=str(root))), Preprocess(size=16))
    assert sum(len(labels) for labels in loaded.labels.values()) == 110
    assert len(loaded.skipped) == 1
    assert loaded.skipped[0].startswith(f"{damaged}: ")
    for split in data.SPLITS:
        assert len(loaded.images[split]) == len(loaded.labels[split]) == len(loaded.names[split])
        assert str(damaged) not in loaded.names[split]
        for name, pixels in zip(loaded.names[split], loaded.images[split], strict=True):
            np.testing.assert_array_equal(pixels, np.asarray(Image.open(name).resize((16, 16), 2)))


def test_one_percent_damaged_files_are_refused_and_five_are_named(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"a": 10, "b": 10})
    for number in range(7):
        (root / f"a/{number:03}.png").write_bytes(b"")
        (root / f"a/{number:03}.png").write_text(f"broken {number}")
    with pytest.raises(DataError, match="7 of 20 photographs can't be decoded") as refused:
        data.load(data.index(Data(source=str(root))), Preprocess(size=16))
    assert refused.value.got.count("not an image") == 5
    assert "and 2 more" in refused.value.got


def test_a_class_that_loses_its_only_photograph_of_a_split_is_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"a": 200, "rare": 3})
    index = data.index(Data(source=str(root)))
    only = next(sample for sample in index.samples if sample.split == "val" and sample.label == 1)
    Path(only.path).write_bytes(b"broken")
    with pytest.raises(DataError, match="no photograph can be decoded in val of: rare"):
        data.load(index, Preprocess(size=16))


@pytest.mark.skipif(not (SHARED / "flowers12").is_dir(), reason="needs ../shared/data/flowers12")
def test_real_flowers_keep_their_test_split_and_get_a_val_split() -> None:
    index = data.index(Data(source=str(SHARED / "flowers12")))
    assert len(index.classes) == 12
    assert Counter(sample.split for sample in index.samples) == {"train": 612, "val": 108, "test": 240}


@pytest.mark.skipif(not (SHARED / "imagenet-val-650").is_dir(), reason="needs ../shared/data/imagenet-val-650")
def test_real_imagenet_photographs_are_read_from_their_table() -> None:
    index = data.all_test(str(SHARED / "imagenet-val-650" / "labels.csv"))
    assert len(index.samples) == 650
    assert index.classes[0] == "0"
    assert list(map(int, index.classes)) == sorted(map(int, index.classes))
