"""What several test files share: the small models, the evaluation data, and a clean environment."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.sshd import Board, give_python, programs, serve

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CI"] = "true"  # a test that imports openvino itself sends no usage data

ROOT = Path(__file__).parent.parent


SLOW = ("test_repair", "test_pipeline", "test_ssh", "test_bundle", "test_explain")


def pytest_collection_modifyitems(items):
    """Begin with the slow files, so that at the end no core is left with them alone."""
    items.sort(key=lambda item: item.path.stem not in SLOW)


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's store, runs in the middle of a kill test, or sees the user's terminal."""
    monkeypatch.setenv("EDGECV_STORE", str(tmp_path_factory.mktemp("store")))
    monkeypatch.setenv("ADB_SERVER_SOCKET", "localfilesystem:/nowhere/adb")  # adb leaves no server behind a test
    monkeypatch.setenv("no_proxy", "127.0.0.1", prepend=",")  # a test's own server is reached behind a proxy too
    for name in ("EDGECV_KILL_AT", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiny():
    """Path of a small .tflite file: uint8 `(1, 16, 16, 3)` in, three probabilities out."""
    return ROOT / "tests" / "data" / "tiny.tflite"


@pytest.fixture
def images(tmp_path):
    """Path of an .npy with 20 images of noise that fit the small models."""
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(1).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8))
    return path


@pytest.fixture
def answers(images, tmp_path):
    """Probabilities that a target gives for the images from a small file."""
    from edgecv.devices import ask, open_device

    def given(target, name):
        with open_device(target) as device:
            ask(
                device, (ROOT / "tests" / "data" / name,), do="predict", images=images, outputs=tmp_path / "answers.npy"
            )
        return np.load(tmp_path / "answers.npy")

    return given


@pytest.fixture(scope="session")
def shared():
    """Folder of the evaluation data."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs the evaluation data in ../shared/data")
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with serve(tmp_path_factory.mktemp("board")) as found:
        yield found


@pytest.fixture
def board(served: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """The server, with a config of this test's own for the system's ssh, and a Python there that has the runtime."""
    config = tmp_path / "config"
    config.write_text(served.config.read_text())
    monkeypatch.setenv("PATH", f"{programs(tmp_path / 'bin', config)}:{os.environ['PATH']}")
    give_python(served)
    return Board(served.place, config, served.server)
