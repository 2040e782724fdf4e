"""Read a CSV of `image,label`, and the names of its classes."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgecv.errors import DataError

__all__ = ["SPLIT_NAMES", "Found", "few", "read_csv"]

# What the folder or the cell of a split may be called, and what it is called here.
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Found:
    """One photograph before it is read: its file, the text of its label, and the split that the source gives it."""

    path: Path
    label: str
    split: str | None


def few(names: Iterable[object], limit: int = 5) -> str:
    """Join up to `limit` names, and say how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def read_csv(table: Path) -> tuple[list[str], list[Found], list[str]]:
    """Read `image,label[,split]`: the classes in order, the photographs, and warnings.

    A label is a name or a number. labels.txt beside the table, one name a line, names and orders the classes.
    Images are found beside the table or in images/ beside it, and nowhere else.

    Raises:
        DataError: the table is malformed, names a missing image, or a path that leaves its folder.
    """
    rows = _rows(table)
    classes, named = _classes(table, {label for _, label, _, _ in rows})
    found: dict[str, Found] = {}
    missing = []
    for image, label, split, line in rows:
        path = _locate(table, image, line)
        item = Found(path, named[label], split)
        if found.setdefault(str(path), item) != item:
            raise DataError(
                f"{table}, line {line}: {image} is listed twice",
                got="two labels or two splits for one image",
                expected="one row an image",
                fix="remove the wrong row",
            )
        if not os.path.isfile(path):
            missing.append(image)
    if missing:
        raise DataError(
            f"{table}: {len(missing)} of {len(rows)} images are missing",
            got=few(missing),
            expected=f"files in {table.parent} or {table.parent / 'images'}",
            fix="copy the files there, or correct the paths",
        )
    repeats = len(rows) - len(found)
    warnings = [f"{table}: {repeats} rows repeat another one and count once"] if repeats else []
    return classes, list(found.values()), warnings


def _classes(table: Path, texts: set[str]) -> tuple[list[str], dict[str, str]]:
    """List the classes in order, and the class of each label text."""
    names = _names(table.with_name("labels.txt"))
    if names is not None:
        return names, _named(table, texts, names)
    # Without names a class is called what the table calls it; numbers sort as numbers.
    numbers = all(text.isascii() and text.isdigit() for text in texts)
    order = (
        sorted(texts, key=lambda text: (len(text.lstrip("0")), text.lstrip("0"), text)) if numbers else sorted(texts)
    )
    return order, {text: text for text in texts}


def _rows(table: Path) -> list[tuple[str, str, str | None, int]]:
    """Image, label, split and line number of each row."""
    rows = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            if not {"image", "label"} <= set(header):
                raise DataError(
                    f"{table} has no header image,label",
                    got=",".join(header)[:80] or "an empty file",
                    expected="a first line image,label or image,label,split",
                    fix="add it",
                )
            for values in reader:
                if values:
                    rows.append(_row(table, header, values, reader.line_num))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"can't read {table}", got=str(error), expected="a CSV file in UTF-8") from error
    if not rows:
        raise DataError(f"{table} lists no images", got="a header only", expected="one row an image", fix="add rows")
    if len({split is None for _, _, split, _ in rows}) > 1:
        raise DataError(f"{table}: some rows have no split", expected="train, val or test in each row, or in none")
    return rows


def _row(table: Path, header: list[str], values: list[str], line: int) -> tuple[str, str, str | None, int]:
    cells = dict(zip(header, (value.strip() for value in values), strict=False))
    if len(values) != len(header) or not cells["image"] or not cells["label"]:
        raise DataError(
            f"{table}, line {line} is malformed",
            got=",".join(values)[:80],
            expected=",".join(header),
            fix="correct the line",
        )
    split = cells.get("split", "").lower()
    if split and split not in SPLIT_NAMES:
        raise DataError(
            f"{table}, line {line}: unknown split", got=split, expected="train, val or test", fix="correct it"
        )
    return cells["image"], cells["label"], SPLIT_NAMES.get(split), line


def _names(path: Path) -> list[str] | None:
    """Names of the classes, one a line, in the order of their numbers."""
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"can't read {path}", got=str(error), expected="one name a line, in UTF-8") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path} lists a class twice", got=few(twice), expected="one name a line", fix="rename one")
    return names


def _named(table: Path, texts: set[str], names: list[str]) -> dict[str, str]:
    """Name for each label text: the texts are all names, or all numbers that count names from 0."""
    if texts <= set(names):
        return {text: text for text in texts}
    numbers = {str(number): name for number, name in enumerate(names)}
    if unknown := sorted(texts - set(numbers)):
        raise DataError(
            f"{table}: a label is not in labels.txt",
            got=few(unknown),
            expected=f"one of {few(names)}, or a number from 0 to {len(names) - 1}",
            fix="correct the label or labels.txt",
        )
    return numbers


def _locate(table: Path, image: str, line: int) -> Path:
    """Find `image` beside the table or in images/ beside it, and nowhere else."""
    inside = PurePosixPath(image.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or "\0" in image or re.match("[A-Za-z]:", image):
        raise DataError(
            f"{table}, line {line}: the path leaves the folder of the table",
            got=image[:80],
            expected=f"a path relative to {table.parent}, without ..",
            fix="copy the image there, or move the table",
        )
    beside, under = table.parent / inside, table.parent / "images" / inside
    return under if os.path.isfile(under) and not os.path.isfile(beside) else beside
