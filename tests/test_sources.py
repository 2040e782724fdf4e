from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgecv.data.sources import scan
from edgecv.errors import DataError, MissingError


def fill(root: Path, *files: str) -> Path:
    """Write files whose bytes are their own names: a scan reads digests, not pixels."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def listed(root: Path, cache: Path) -> list[tuple[str, str, str | None]]:
    found = scan(str(root), cache=cache)
    return [(Path(s.path).name, found.classes[s.label], s.split) for s in found.samples]


def test_class_folders_are_the_classes_sorted_by_name(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "dog/b.jpg", "dog/a.PNG", "cat/c.jpeg", "cat/deep/d.webp")
    assert scan(str(root), cache=tmp_path).classes == ("cat", "dog")
    assert listed(root, tmp_path) == [
        ("c.jpeg", "cat", None),
        ("d.webp", "cat", None),
        ("a.PNG", "dog", None),
        ("b.jpg", "dog", None),
    ]


def test_split_folders_give_the_splits_by_all_their_names(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "train/x/1.jpg", "Validation/x/2.jpg", "test/x/3.jpg")
    assert sorted(listed(root, tmp_path)) == [("1.jpg", "x", "train"), ("2.jpg", "x", "val"), ("3.jpg", "x", "test")]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "train/1.jpg", "bus/2.jpg", "test/3.jpg")
    assert scan(str(root), cache=tmp_path).classes == ("bus", "test", "train")


def test_folders_beside_the_splits_are_named_in_a_warning(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "train/x/1.jpg", "test/x/3.jpg", "train_augmented/x/4.jpg")
    found = scan(str(root), cache=tmp_path)
    assert len(found.samples) == 2
    assert "train_augmented" in found.warnings[0]


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "train/x/1.jpg", "val/x/3.jpg", "valid/x/4.jpg")
    with pytest.raises(DataError, match="two folders for one split"):
        scan(str(root), cache=tmp_path)


def test_hidden_files_and_leftovers_are_ignored(tmp_path: Path) -> None:
    junk = ["x/.DS_Store", "x/._1.jpg", "x/Thumbs.db", "x/notes.txt", ".git/y.jpg", "__MACOSX/y.jpg", "x/.trash/z.jpg"]
    root = fill(tmp_path / "set", "x/1.jpg", *junk)
    found = scan(str(root), cache=tmp_path)
    assert [Path(sample.path).name for sample in found.samples] == ["1.jpg"]
    assert found.warnings == ()


def test_image_types_that_are_not_read_are_counted_in_a_warning(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "x/1.jpg", "x/2.HEIC", "x/3.heic", "y/1.jpg", "y/4.dng")
    assert "1 .dng, 2 .heic" in scan(str(root), cache=tmp_path).warnings[0]


def test_an_empty_class_folder_is_refused_by_name(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "cat/1.jpg", "dog/readme.txt")
    with pytest.raises(DataError, match="dog has no photographs"):
        scan(str(root), cache=tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders") as refused:
        scan(str(tmp_path), cache=tmp_path)
    assert refused.value.got == "an empty folder"


def test_loose_images_without_class_folders_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders") as refused:
        scan(str(fill(tmp_path / "set", "1.jpg", "2.jpg")), cache=tmp_path)
    assert refused.value.got == "2 images that lie in it directly"


@pytest.mark.parametrize("name", ["gone", "file.txt"])
def test_a_source_that_is_no_folder_and_no_table_is_refused(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "file.txt")
    with pytest.raises(DataError, match="no photographs at"):
        scan(str(tmp_path / name), cache=tmp_path)


def test_a_link_to_nowhere_is_refused_by_name(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "x/1.jpg")
    (root / "x" / "2.jpg").symlink_to("gone.jpg")
    with pytest.raises(DataError, match=r"can't read .*2\.jpg"):
        scan(str(root), cache=tmp_path)


def test_a_class_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be printed"):
        scan(str(fill(tmp_path / "set", "a\nb/1.jpg", "c/2.jpg")), cache=tmp_path)


def test_the_demo_set_has_its_classes_its_licence_and_all_photographs(tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset", reason="needs the extra demo")
    found = scan("elpv", cache=tmp_path)
    assert found.classes == ("defective", "functional")
    assert len(found.samples) == 2624
    assert sum(sample.label == 1 for sample in found.samples) == 1508 + 295
    assert found.spdx == "CC-BY-NC-SA-4.0"
    assert "CC BY-NC-SA 4.0" in (found.licence or "")
    assert (found.licence or "").isprintable()


def test_without_its_package_the_demo_set_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(MissingError) as missing:
        scan("elpv", cache=tmp_path)
    assert missing.value.fix == 'python -m pip install "elpv-dataset==1.0.0.post1"'


def test_scanning_a_folder_imports_no_machine_learning_library(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "a/1.jpg", "b/2.jpg")
    code = (
        "import sys, pathlib; from edgecv import data; "
        f"data.all_test({str(root)!r}); "
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'tensorflow_datasets', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
