from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecv.data.csv_source import few, read_csv
from edgecv.errors import DataError


def table(folder: Path, text: str, *images: str, names: str | None = None) -> Path:
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(image.encode())
    if names is not None:
        (folder / "labels.txt").write_text(names, encoding="utf-8")
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


def test_images_are_found_beside_the_table_and_in_images(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\na.jpg,cat\nb.jpg,dog\nsub/c.jpg,cat\n", "a.jpg", "images/b.jpg", "sub/c.jpg")
    classes, found, warnings = read_csv(path)
    assert classes == ["cat", "dog"]
    assert [str(item.path.relative_to(tmp_path)) for item in found] == ["a.jpg", "images/b.jpg", "sub/c.jpg"]
    assert [item.label for item in found] == ["cat", "dog", "cat"]
    assert warnings == []


def test_numbers_without_names_sort_as_numbers(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\na.jpg,10\nb.jpg,9\n", "a.jpg", "b.jpg")
    assert read_csv(path)[0] == ["9", "10"]


def test_numbers_count_the_names_of_labels_txt(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\na.jpg,1\nb.jpg,0\n", "a.jpg", "b.jpg", names="zebra\nape\n")
    classes, found, _ = read_csv(path)
    assert classes == ["zebra", "ape"]
    assert [item.label for item in found] == ["ape", "zebra"]


def test_names_that_are_digits_are_names_first(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\na.jpg,1\nb.jpg,2\n", "a.jpg", "b.jpg", names="2\n1\n")
    assert [item.label for item in read_csv(path)[1]] == ["1", "2"]


def test_a_label_that_labels_txt_lacks_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\na.jpg,cow\n", "a.jpg", names="cat\ndog\n")
    with pytest.raises(DataError, match=r"not in labels\.txt") as refused:
        read_csv(path)
    assert refused.value.got == "cow"


def test_a_split_column_is_read_by_all_its_names(tmp_path: Path) -> None:
    rows = "a.jpg,x,train\nb.jpg,x,valid\nc.jpg,x,Validation\nd.jpg,x,test\n"
    path = table(tmp_path, "image,label,split\n" + rows, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert [item.split for item in read_csv(path)[1]] == ["train", "val", "val", "test"]


def test_spaces_a_byte_order_mark_and_other_columns_do_no_harm(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffLabel , id, Image\ncat , 7,  a.jpg\n\n", "a.jpg")
    assert read_csv(path)[1][0].label == "cat"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no header"),
        ("a.jpg,cat\n", "no header"),
        ("image,label\n", "lists no images"),
        ("image,label\na.jpg\n", "line 2 is malformed"),
        ("image,label\na.jpg,cat\na.jpg,cat,extra\n", "line 3 is malformed"),
        ("image,label\na.jpg,\n", "line 2 is malformed"),
        ('image,label\n"a.jpg,cat\n', "can't read"),
        ("image,label,split\na.jpg,cat,holdout\n", "unknown split"),
        ("image,label,split\na.jpg,cat,train\nb.jpg,cat,\n", "some rows have no split"),
        ("image,label\na.jpg,cat\na.jpg,dog\n", "listed twice"),
    ],
)
def test_a_malformed_table_is_refused_with_the_reason(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_csv(table(tmp_path, text, "a.jpg", "b.jpg"))


def test_a_table_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"image,label\n\xff\xfe.jpg,cat\n")
    with pytest.raises(DataError, match="can't read"):
        read_csv(path)


def test_names_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\na.jpg,0\n", "a.jpg")
    (tmp_path / "labels.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"can't read .*labels\.txt"):
        read_csv(path)


@pytest.mark.parametrize("row", ["a" * 5000 + ".jpg,cat", "gone.jpg," + "7" * 5000])
def test_a_cell_beyond_all_measure_is_refused_like_any_other(tmp_path: Path, row: str) -> None:
    with pytest.raises(DataError, match="images are missing"):
        read_csv(table(tmp_path, f"image,label\n{row}\n"))


def test_missing_images_are_counted_and_five_are_named(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\n" + "".join(f"{i}.jpg,cat\n" for i in range(9)), "0.jpg", "1.jpg")
    with pytest.raises(DataError, match="7 of 9 images are missing") as refused:
        read_csv(path)
    assert refused.value.got == "2.jpg, 3.jpg, 4.jpg, 5.jpg, 6.jpg and 2 more"


@pytest.mark.parametrize(
    "image", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "C:/x.jpg", "..\\secret.jpg", "\\\\host\\x.jpg"]
)
def test_a_path_that_leaves_the_folder_of_the_table_is_refused(tmp_path: Path, image: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="leaves the folder"):
        read_csv(table(tmp_path / "set", f"image,label\n{image},cat\n"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(content=st.binary(max_size=200) | st.text(alphabet='image,label\n\r"/.\0 \\1', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_with_a_data_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"image,label\n" + content)
    with pytest.raises(DataError):
        read_csv(path)


def test_a_repeated_row_counts_once_and_is_warned_of(tmp_path: Path) -> None:
    _, found, warnings = read_csv(table(tmp_path, "image,label\na.jpg,cat\na.jpg,cat\n", "a.jpg"))
    assert len(found) == 1
    assert "1 rows repeat" in warnings[0]


def test_a_long_list_is_cut_and_counted() -> None:
    assert few("abc") == "a, b, c"
    assert few(range(7), limit=2) == "0, 1 and 5 more"
