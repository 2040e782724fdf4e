"""Write a TensorFlow data set out as image files and a CSV."""

from __future__ import annotations

import csv
import difflib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgecv.errors import DataError, EnvError, MissingError
from edgecv.extras import install_command

__all__ = ["write_out"]

# NAME, NAME/CONFIG, NAME:1.2.3. Not "huggingface:..." or a URL: those run code that the package does not bring.
_NAME = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_.+-]+)?(:\d+\.\d+\.\d+)?")


def write_out(name: str, *, cache: Path) -> Path:
    """Write the images of tensorflow-datasets' `name` under `cache`, and return the CSV that lists them.

    They are written as they are stored, not decoded and encoded again. A second call returns what the first has
    written. Images without a label are left out.

    Raises:
        DataError: there is no such data set, or it has no image and label.
        MissingError: tensorflow-datasets is not installed.
        EnvError: the data set can't be downloaded or written.
    """
    builder = _builder(name)
    folder = cache / "tfds" / str(builder.info.full_name).replace("/", "-")
    if not (folder / "labels.csv").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed, so that the folder is whole or not there.
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        try:
            _write(builder, work)
            os.replace(work, folder)
        except OSError as error:
            if not (folder / "labels.csv").is_file():
                raise EnvError(
                    f"can't write tfds:{name} to {folder}", got=str(error), fix="free disk space, or remove that folder"
                ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder / "labels.csv"


def _builder(name: str) -> Any:
    """Load the data set's builder, its files prepared on this machine."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingError(
            "tensorflow-datasets is not installed", got=str(error), fix=install_command("train", "tfds")
        ) from error
    if not _NAME.fullmatch(name):
        raise DataError(f"no TensorFlow data set can be called {name!r}", expected="tfds:NAME, as in tfds:tf_flowers")
    try:
        builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        raise DataError(
            f"there is no TensorFlow data set {name}",
            got=str(error).splitlines()[0][:200],
            expected="a name, configuration and version of tensorflow.org/datasets/catalog",
            fix=f"did you mean tfds:{near[0]}?" if near else "check the name",
        ) from error
    if not _classifies(builder.info.features):
        raise DataError(
            f"tfds:{name} is not for classification",
            got=f"features {' '.join(str(builder.info.features).split())[:200]}",
            expected="an image and a class label",
            fix="choose another data set",
        )
    try:
        builder.download_and_prepare()
    # Downloads fail in the ways of requests, urllib, ssl, zipfile and of each data set's own code.
    except Exception as error:
        raise EnvError(
            f"can't download tfds:{name}",
            got=" ".join(str(error).split())[:200],
            expected="internet, or the data set in TFDS_DATA_DIR",
            fix="check the connection",
        ) from error
    return builder


def _classifies(features: Any) -> bool:
    """Whether there are an image and a class label."""
    if not hasattr(features, "keys") or not {"image", "label"} <= set(features.keys()):
        return False
    return len(features["image"].shape) == 3 and bool(getattr(features["label"], "names", None))


def _write(builder: Any, folder: Path) -> None:
    """Write images/, labels.txt and labels.csv."""
    import tensorflow_datasets as tfds

    names = list(builder.info.features["label"].names)
    (folder / "images").mkdir()
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    splits = {"train": "train", "validation": "val", "test": "test"}
    ours = {split: splits[split] for split in builder.info.splits if split in splits}
    # Without a train split all of it is one pool, to be cut.
    pool = dict.fromkeys(builder.info.splits, "") if "train" not in ours else ours
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "split"])
        for split, goes_to in pool.items():
            decoders = {"image": tfds.decode.SkipDecoding()}
            data = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders)
            for number, example in enumerate(tfds.as_numpy(data)):
                if (label := int(example["label"])) >= 0:
                    image = f"images/{split}-{number:07d}{_suffix(example['image'])}"
                    (folder / image).write_bytes(example["image"])
                    table.writerow([image, names[label], goes_to])
    if not any((folder / "images").iterdir()):
        raise DataError(f"tfds:{builder.name} has no labelled images", fix="choose another data set")


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".jpg"
