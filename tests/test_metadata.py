from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecv.errors import ModelError
from edgecv.metadata import append_metadata, dump_metadata, read_metadata

LABELS = ["cat", "dog", "Fuß & <b>", "猫", 'say "hi"']


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_xml(value: str) -> str:
    return f'<net><layers/><rt_info><edgecv><metadata value="{value}"/></edgecv></rt_info></net>'


def as_zip(name: str, content: bytes, *, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO(b"flatbuffer")
    with zipfile.ZipFile(stream, "a", method) as file:
        file.writestr(name, content)
    return stream.getvalue()


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tflite", append_metadata(b"flatbuffer", {"precision": "int8"}, LABELS))
    assert read_metadata(path) == {"edgecv": 1, "precision": "int8", "labels": LABELS}


def test_the_model_stands_unchanged_in_front() -> None:
    assert append_metadata(b"flatbuffer", {}, LABELS).startswith(b"flatbuffer")


def test_any_zip_reader_finds_one_label_a_line() -> None:
    with zipfile.ZipFile(io.BytesIO(append_metadata(b"flatbuffer", {}, LABELS))) as file:
        assert file.namelist() == ["metadata.json", "labels.txt"]
        assert file.testzip() is None
        assert file.read("labels.txt").decode().splitlines() == LABELS


def test_equal_values_give_equal_bytes_whatever_their_order() -> None:
    one = append_metadata(b"x", {"a": 1, "b": 2}, LABELS)
    assert one == append_metadata(b"x", {"b": 2, "a": 1}, LABELS)


@pytest.mark.parametrize(
    "label", ["", "  ", "two\nlines", "two\rlines", "two\u2028lines", "two\x85lines", "no\udcffutf8"]
)
def test_a_label_that_is_not_one_line_of_utf8_is_refused(label: str) -> None:
    with pytest.raises(ModelError, match="label 1 can't go into"):
        append_metadata(b"x", {}, ["cat", label])


@given(st.lists(st.text(min_size=1), min_size=1))
def test_labels_that_are_accepted_keep_their_lines(labels: list[str]) -> None:
    try:
        content = append_metadata(b"x", {}, labels)
    except ModelError:
        return
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.read("labels.txt").decode().splitlines() == labels


def test_labels_too_long_for_a_model_file_are_refused() -> None:
    with pytest.raises(ModelError, match="too long"):
        dump_metadata({}, ["x" * 2_000_000])


def test_files_without_metadata_give_none(tmp_path: Path) -> None:
    assert read_metadata(write(tmp_path, "a.tflite", b"TFL3" * 100)) is None
    assert read_metadata(write(tmp_path, "empty.tflite", b"")) is None
    assert read_metadata(write(tmp_path, "a.xml", "<net><rt_info/></net>")) is None
    assert read_metadata(write(tmp_path, "b.tflite", as_zip("labels.txt", b"cat\n"))) is None
    assert read_metadata(write(tmp_path, "c.tflite", as_zip("metadata.json", b'{"name": "other tool"}'))) is None
    assert read_metadata(write(tmp_path, "d.tflite", as_zip("metadata.json", b"[1]"))) is None


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't read"):
        read_metadata(tmp_path / "none.tflite")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = as_zip("metadata.json", b" " * 200_000_000, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="can't be read") as caught:
        read_metadata(write(tmp_path, "a.tflite", bomb))
    assert "200000000 bytes" in caught.value.got


def test_a_zip_that_lies_about_its_size_is_not_unpacked_beyond_the_limit(tmp_path: Path) -> None:
    bomb = as_zip("metadata.json", b" " * 50_000_000, method=zipfile.ZIP_DEFLATED)
    liar = bomb.replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    with pytest.raises(ModelError):
        read_metadata(write(tmp_path, "a.tflite", liar))


def test_damaged_content_is_refused(tmp_path: Path) -> None:
    good = append_metadata(b"flatbuffer", {}, LABELS)
    at = good.index(b"edgecv")
    with pytest.raises(ModelError, match="can't be read"):
        read_metadata(write(tmp_path, "a.tflite", good[:at] + b"EDGECV" + good[at + 6 :]))


def test_json_nested_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        read_metadata(write(tmp_path, "a.tflite", as_zip("metadata.json", b"[" * 500_000)))


def test_an_xml_gives_what_stands_in_its_rt_info(tmp_path: Path) -> None:
    path = write(tmp_path, "a.xml", as_xml("{&quot;edgecv&quot;: 1}"))
    assert read_metadata(path) == {"edgecv": 1}


def test_a_layer_that_calls_itself_metadata_is_not_taken_for_it(tmp_path: Path) -> None:
    inner = '<rt_info><edgecv><metadata value="{&quot;edgecv&quot;: 1}"/></edgecv></rt_info>'
    assert read_metadata(write(tmp_path, "a.xml", f"<net><layers><layer>{inner}</layer></layers></net>")) is None


def test_an_xml_with_entities_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + as_xml("&b;")
    with pytest.raises(ModelError, match="can't be read") as caught:
        read_metadata(write(tmp_path, "a.xml", bomb))
    assert "document type" in caught.value.got


def test_a_broken_xml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        read_metadata(write(tmp_path, "a.xml", "<net><rt_info>"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=400), name=st.sampled_from(["a.tflite", "a.xml"]))
def test_arbitrary_bytes_are_refused_or_have_no_metadata(tmp_path: Path, content: bytes, name: str) -> None:
    with contextlib.suppress(ModelError):
        assert read_metadata(write(tmp_path, name, content)) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_file_with_any_byte_changed_is_read_refused_or_has_none(tmp_path: Path, data: Any) -> None:
    content = bytearray(append_metadata(b"flatbuffer", {"precision": "int8"}, LABELS))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        values = read_metadata(write(tmp_path, "a.tflite", bytes(content)))
    except ModelError:
        return
    assert values is None or values["labels"] == LABELS
