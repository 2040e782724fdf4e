"""The chain of a training's steps, with a trainer that counts instead of learning."""

from dataclasses import dataclass

import numpy as np
import pytest

from edgecv.epochs import Epochs
from edgecv.store import Store

IMAGES = np.zeros((4, 2, 2, 3), np.uint8)


@dataclass(frozen=True)
class Report:
    epoch: int


class Counter:
    """Has the trainer's methods; its state is the list of what was done to it."""

    def __init__(self, log):
        self.log, self.done = log, []

    def features(self, images):
        self.log.append("features")
        return np.zeros((len(images), 2), np.float32)

    def fit_head(self, train, val, *, progress=None):
        return self._do(100)

    def run_epoch(self, epoch, *, progress=None):
        return self._do(epoch)

    def _do(self, number):
        self.log.append(number)
        self.done.append(number)
        return Report(number)

    def state(self):
        return {"done": np.array(self.done, np.int64), "scalar": np.array(1.5)}

    def restore(self, state):
        assert state["scalar"].shape == ()
        self.log.append("restore")
        self.done = state["done"].tolist()


@pytest.fixture
def train(tmp_path):
    """Train for some epochs in a store, and return the state, the reports and what was really done."""

    def run(epochs, *, head=True):
        store, log = Store(tmp_path), []
        chain = Epochs(
            lambda: Counter(log),
            do=store.run,
            progress=lambda done, total, text: None,
            params={},
            inputs=(),
            tools={},
        )
        trainer, reports = chain.run(epochs, head=head, train=IMAGES, val=IMAGES, path=store.path)
        return trainer.done, reports, log

    return run


def test_the_head_comes_first_and_then_each_epoch(train):
    done, reports, log = train(2)
    assert done == [100, 0, 1]
    assert reports == [{"epoch": 100}, {"epoch": 0}, {"epoch": 1}]
    assert log == ["features", "features", 100, 0, 1]


def test_more_epochs_go_on_from_the_last_one_that_was_recorded(train):
    train(2)
    done, _, log = train(4)
    assert done == [100, 0, 1, 2, 3]
    assert log == ["restore", 2, 3]


def test_a_training_that_was_done_restores_its_end(train):
    train(2)
    assert train(2) == ([100, 0, 1], [{"epoch": 100}, {"epoch": 0}, {"epoch": 1}], ["restore"])


def test_without_a_head_no_features_are_computed(train):
    done, reports, log = train(2, head=False)
    assert (done, log) == ([0, 1], [0, 1])
    assert len(reports) == 2
