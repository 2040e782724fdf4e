"""The metadata inside a model file: labels and preprocessing that travel with the bytes.

TFLite: a zip appended to the flatbuffer, which interpreters ignore, with `metadata.json` and `labels.txt` (one label a
line, in the order of the outputs). OpenVINO: the same JSON text in the .xml, at `rt_info/edgecv/metadata`.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat

from edgecv.errors import ModelError

__all__ = ["RT_INFO", "append_metadata", "dump_metadata", "read_metadata"]

SCHEMA = 1
RT_INFO = ("edgecv", "metadata")

# Ten times what 1,000 long labels need. An xml of a network with 1,000 layers is under 2 MB.
METADATA_BYTES = 1 << 20
TAIL_BYTES = 3 << 20
XML_BYTES = 64 << 20

# What ends a line for str.splitlines, and so would move every label after it by one.
# Surrogates are what a file name that is not UTF-8 leaves in text, and what can't be written as UTF-8.
UNWRITABLE = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")

# What zipfile raises, besides BadZipFile, for bytes that only look like a zip.
UNREADABLE = (EOFError, NotImplementedError, OSError, RuntimeError, ValueError, struct.error, zlib.error)

# The first moment that a zip can hold: a real date would change the bytes of each export.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def dump_metadata(values: Mapping[str, Any], labels: Sequence[str]) -> str:
    """Write `values` and `labels` as one JSON text, in ASCII.

    Raises:
        ModelError: a label is empty, has a line end in it or is not UTF-8, or all together are over 1 MiB.
    """
    for index, label in enumerate(labels):
        if not label.strip() or UNWRITABLE.search(label):
            raise ModelError(
                f"label {index} can't go into labels.txt", got=repr(label), expected="one line of UTF-8 text"
            )
    text = json.dumps({"edgecv": SCHEMA, **values, "labels": list(labels)}, sort_keys=True)
    if len(text) > METADATA_BYTES:
        raise ModelError(
            "the labels are too long for a model file", got=f"{len(text)} bytes", expected=f"at most {METADATA_BYTES}"
        )
    return text


def append_metadata(model: bytes, values: Mapping[str, Any], labels: Sequence[str]) -> bytes:
    """Append the zip to a TFLite flatbuffer; equal arguments give equal bytes.

    Raises:
        ModelError: as `dump_metadata` does.

    >>> file = append_metadata(b"flatbuffer", {"precision": "int8"}, ["cat", "dog"])
    >>> zipfile.ZipFile(io.BytesIO(file)).read("labels.txt")
    b'cat\\ndog\\n'
    """
    text = dump_metadata(values, labels)
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a") as file:
        for name, content in (("metadata.json", text), ("labels.txt", "".join(f"{label}\n" for label in labels))):
            entry = zipfile.ZipInfo(name, ZIP_DATE)
            entry.create_system = 3  # Unix, also where the export runs on Windows
            file.writestr(entry, content.encode())
    return stream.getvalue()


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Read what an exported .tflite or .xml carries, or None where it carries nothing of edgecv's.

    Reads at most 3 MiB of a .tflite's end and 64 MiB of an .xml, whatever these claim to hold.

    Raises:
        ModelError: the file can't be read, or its metadata is damaged or larger than edgecv writes.
    """
    try:
        text = _text_in_xml(path) if path.suffix == ".xml" else _text_in_zip(path)
    except OSError as error:
        raise ModelError(f"can't read {path}", got=error.strerror or str(error), fix="check the path") from error
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {error}") from error
    return values if isinstance(values, dict) and "edgecv" in values else None


def _text_in_zip(path: Path) -> bytes | None:
    """Give metadata.json of the zip that ends the file."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        # Only the end is given to zipfile: a list of millions of entries would not fit into it.
        file.seek(max(0, size - TAIL_BYTES))
        tail = io.BytesIO(file.read())
    try:
        archive = zipfile.ZipFile(tail)
        entry = archive.getinfo("metadata.json")
    except (*UNREADABLE, zipfile.BadZipFile, KeyError):
        return None
    if entry.file_size > METADATA_BYTES:
        raise _damaged(path, f"metadata.json of {entry.file_size} bytes")
    try:
        with archive.open(entry) as content:
            return content.read(METADATA_BYTES)
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from error


def _text_in_xml(path: Path) -> str | None:
    """Give the value of net/rt_info/edgecv/metadata."""
    if (size := path.stat().st_size) > XML_BYTES:
        raise _damaged(path, f"an .xml of {size} bytes")
    found: list[str] = []
    where: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        where.append(name)
        if where == ["net", "rt_info", *RT_INFO]:
            found.append(attributes.get("value", ""))

    def refuse(*_: object) -> None:
        raise _damaged(path, "a document type, which could define endless entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: where.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise _damaged(path, str(error)) from error
    return found[0] if found else None


def _damaged(path: Path, got: str) -> ModelError:
    return ModelError(
        f"{path}: the metadata can't be read",
        got=got,
        expected=f"what edgecv writes: JSON, at most {METADATA_BYTES} bytes",
        fix="export the model again",
    )
