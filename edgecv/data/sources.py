"""Find labelled photographs: class folders, a CSV, the demo set or a TensorFlow data set."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgecv.data.csv_source import SPLIT_NAMES, Found, few, read_csv
from edgecv.data.tfds import write_out
from edgecv.errors import DataError, MissingError
from edgecv.extras import install_command

__all__ = ["SPLITS", "Index", "Sample", "scan"]

SPLITS = ("train", "val", "test")
_READ = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
_RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2")
_NOT_READ = (*_RAW, ".avif", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".psd", ".svg")
_ELPV_LICENCE = (
    "ELPV, photographs of solar cells (https://github.com/zae-bayern/elpv-dataset): CC BY-NC-SA 4.0, no commercial "
    "use; cite Deitsch et al., Solar Energy 185 (2019) 455-468, doi:10.1016/j.solener.2019.02.067"
)


@dataclass(frozen=True)
class Sample:
    """One photograph. `label` counts from 0 in `Index.classes`; `split` is train, val, test, or None before a split."""

    path: str
    label: int
    split: str | None
    sha256: str


@dataclass(frozen=True)
class Index:
    """All photographs of a source. `licence` is one line to print where the source has terms of its own.

    `spdx`: the id of that licence.
    """

    source: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    licence: str | None = None
    spdx: str | None = None


def scan(source: str, *, cache: Path) -> Index:
    """Find every photograph of `source`, with the splits that the source itself has (None where it has none).

    `source` is as in `recipe.Data`. `cache`: the folder where a TensorFlow data set is written out.

    Raises:
        DataError: the folder or CSV is missing, empty or malformed.
        MissingError: the package of the demo set or of TensorFlow's data sets is not installed.
    """
    if source == "elpv":
        return _index(source, _elpv(), licence=_ELPV_LICENCE, spdx="CC-BY-NC-SA-4.0")
    if source.startswith("tfds:"):
        return _scan_csv(write_out(source.removeprefix("tfds:"), cache=cache), source)
    path = Path(source)
    if os.path.isdir(path):
        try:
            return _scan_folder(path)
        except OSError as error:
            raise DataError(
                f"can't read {error.filename}", got=error.strerror or str(error), fix="check its permissions"
            ) from error
    if os.path.isfile(path) and path.suffix.lower() == ".csv":
        return _scan_csv(path, source)
    raise DataError(
        f"no photographs at {source}",
        got="a file that is not a CSV" if os.path.isfile(path) else "no such file or folder",
        expected='a folder of class folders, a .csv file, "elpv" or "tfds:NAME"',
        fix="check the path: it is relative to the current directory",
    )


def _index(
    source: str,
    found: Sequence[Found],
    *,
    classes: Sequence[str] | None = None,
    warnings: Iterable[str] = (),
    licence: str | None = None,
    spdx: str | None = None,
) -> Index:
    """Read the digest of each file and number the classes."""
    classes = sorted({item.label for item in found}) if classes is None else classes
    if bad := [name for name in classes if not name.isprintable() or not name.strip()]:
        raise DataError(
            f"{source}: a class has a name that can't be printed",
            got=few(map(ascii, bad)),
            expected="names without line breaks or control characters",
            fix="rename the class",
        )
    number = {name: label for label, name in enumerate(classes)}
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_sha256, (item.path for item in found)))
    samples = tuple(
        Sample(path=str(item.path), label=number[item.label], split=item.split, sha256=digest)
        for item, digest in zip(found, digests, strict=True)
    )
    return Index(source, tuple(classes), samples, tuple(warnings), licence, spdx)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"can't read {path}", got=error.strerror or str(error), fix="check the file, or remove it"
        ) from error


def _scan_csv(table: Path, source: str) -> Index:
    classes, found, warnings = read_csv(table)
    return _index(source, found, classes=classes, warnings=warnings)


def _scan_folder(root: Path) -> Index:
    """Read `root/class/*` or `root/{train,val,test}/class/*`.

    A class called "train" (for the vehicle) holds files; a split called so holds folders.
    """
    folders, warnings = _folders(root), []
    groups: list[tuple[Path, str | None]]
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    if any(folder.name.lower() == "train" and _folders(folder) for folder in splits):
        names = Counter(SPLIT_NAMES[folder.name.lower()] for folder in splits)
        if twice := [name for name, count in names.items() if count > 1]:
            raise DataError(
                f"{root} has two folders for one split",
                got=few(folder.name for folder in splits if SPLIT_NAMES[folder.name.lower()] in twice),
                expected="one folder each for train, val and test",
                fix="merge or rename them",
            )
        if others := [folder.name for folder in folders if folder not in splits]:
            warnings.append(f"{root}: not read, because they are not train, val or test: {few(others)}")
        groups = [(folder, SPLIT_NAMES[split.name.lower()]) for split in splits for folder in _class_folders(split)]
    else:
        groups = [(folder, None) for folder in _class_folders(root)]
    found, odd = [], Counter[str]()
    for folder, split in groups:
        found += _class(folder, split, odd)
    if odd:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(odd.items()))
        warnings.append(f"{root}: files of a type that is not read: {kinds} (convert them to JPEG or PNG)")
    return _index(str(root), found, warnings=warnings)


def _class(folder: Path, split: str | None, odd: Counter[str]) -> list[Found]:
    """List the photographs of one class folder, deeper ones too. Count in `odd` the image types that are not read."""
    found = []
    for path in _files(folder):
        suffix = path.suffix.lower()
        if suffix in _READ:
            found.append(Found(path, folder.name, split))
        elif suffix in _NOT_READ:
            odd[suffix] += 1
    if not found:
        raise DataError(
            f"class folder {folder} has no photographs",
            got=f"{sum(1 for _ in _files(folder))} other files",
            expected="images: " + " ".join(_READ),
            fix="add photographs, or remove the folder",
        )
    return found


def _class_folders(root: Path) -> list[Path]:
    folders = _folders(root)
    if not folders:
        loose = sum(path.suffix.lower() in _READ for path in _files(root))
        raise DataError(
            f"{root} has no class folders",
            got=f"{loose} images that lie in it directly" if loose else "an empty folder",
            expected=f"one folder a class: {root}/CLASS/*.jpg",
            fix="put the photographs of each class into a folder of its name",
        )
    return folders


def _folders(root: Path) -> list[Path]:
    """Sorted by name, without hidden ones and the ones that archives of macOS add."""
    inside = (path for path in root.iterdir() if path.is_dir())
    return sorted(
        (path for path in inside if path.name[0] != "." and path.name != "__MACOSX"), key=lambda path: path.name
    )


def _files(root: Path) -> Iterator[Path]:
    """All files under `root` but hidden ones, in an order that the file system has no say in."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, names, files in os.walk(root, onerror=refuse):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _elpv() -> list[Found]:
    """List the demo set. Its labels are defect probabilities 0, 1/3, 2/3 and 1: defective from 0.5 on."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise MissingError(
            "the demo set is not installed",
            got="no package elpv_dataset",
            expected="elpv-dataset 1.0.0.post1",
            fix=install_command("demo"),
        )
    data = Path(spec.submodule_search_locations[0], "data")
    try:
        rows = [line.split() for line in (data / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
        return [
            Found(data / name, "defective" if float(share) >= 0.5 else "functional", None) for name, share, *_ in rows
        ]
    except (OSError, ValueError) as error:
        raise DataError(
            f"the demo set in {data} is damaged", got=str(error), fix=f"{install_command('demo')} --force-reinstall"
        ) from error
