from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecv import data
from edgecv.data.tfds import write_out
from edgecv.errors import DataError, EnvError
from edgecv.recipe import Data, Preprocess

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
epath = pytest.importorskip("etils.epath", reason="comes with tensorflow-datasets")
NAMES = ["zebra", "ape", "10"]


def photograph(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((24, 30, 3), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


class EdgecvAnimals(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc, name-defined]
    VERSION = tfds.core.Version("1.2.0")
    pkg_dir_path = epath.Path(__file__).parent

    def _info(self) -> Any:
        features = tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=NAMES)}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager: Any) -> Any:
        return {"train": self._rows(0, 60), "test": self._rows(100, 15), "extra": self._rows(200, 5)}

    def _generate_examples(self, *args: Any) -> Any:
        raise NotImplementedError

    def _rows(self, start: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(start, start + count):
            yield number, {"image": io.BytesIO(photograph(number)), "label": -1 if number == 101 else number % 3}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    EdgecvAnimals(data_dir=folder).download_and_prepare()
    tfds.core.add_data_dir(folder)
    return folder


@pytest.mark.usefixtures("prepared")
def test_a_data_set_by_name_is_indexed_and_decoded(tmp_path: Path) -> None:
    index = data.index(Data(source="tfds:edgecv_animals"), cache=tmp_path)
    assert index.classes == tuple(NAMES)
    assert Counter(sample.split for sample in index.samples) == {"train": 51, "val": 9, "test": 14}
    loaded = data.load(index, Preprocess(size=16))
    for split in data.SPLITS:
        assert (loaded.images[split][:, 0, 0, 0] % 3 == loaded.labels[split]).all()


@pytest.mark.usefixtures("prepared")
def test_images_are_written_as_they_are_stored_and_only_once(tmp_path: Path) -> None:
    table = write_out("edgecv_animals", cache=tmp_path)
    stored = {path.read_bytes() for path in (table.parent / "images").iterdir()}
    assert photograph(7) in stored
    before = table.stat().st_mtime_ns
    assert write_out("edgecv_animals", cache=tmp_path).stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["edgecv_animals-1.2.0"]


def test_the_mock_of_tensorflow_datasets_is_read_through_the_same_loader(prepared: Path, tmp_path: Path) -> None:
    policy = tfds.testing.MockPolicy.USE_FILES
    with tfds.testing.mock_data(num_examples=40, data_dir=str(prepared), policy=policy):
        table = write_out("edgecv_animals", cache=tmp_path)
    assert len(table.read_text().splitlines()) == 1 + 2 * 40
    assert len(list((table.parent / "images").iterdir())) == 80


@pytest.mark.parametrize("name", ["huggingface:mnist", "../x", "", "Mnist", "a b"])
def test_a_name_that_could_run_other_code_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="can be called"):
        write_out(name, cache=tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no TensorFlow data set") as refused:
        write_out("tf_flower", cache=tmp_path)
    assert refused.value.fix == "did you mean tfds:tf_flowers?"


def test_a_data_set_without_labelled_images_is_refused_and_not_kept(tmp_path: Path) -> None:
    policy = tfds.testing.MockPolicy.USE_CODE
    with tfds.testing.mock_data(policy=policy), pytest.raises(DataError, match="no labelled images"):
        write_out("mnist", cache=tmp_path)
    assert list((tmp_path / "tfds").iterdir()) == []


def test_a_data_set_without_class_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not for classification"):
        write_out("coco", cache=tmp_path)


def test_a_failed_download_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("network is unreachable")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(EnvError, match="can't download") as refused:
        write_out("mnist", cache=tmp_path)
    assert "unreachable" in refused.value.got
    assert list(tmp_path.iterdir()) == []
