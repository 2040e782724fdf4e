"""Repair of a network that int8 ruins: the limit holds again, on both runtimes, and a kill loses nothing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.evidence import verified
from edgecv.repair import _Bench, describe, divergence, repair
from tests.conftest import ROOT
from tests.digits import write_digits
from tests.mended import LIMIT_PP, LITERT, OPENVINO, outcome, stages


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("repair")


@pytest.fixture(scope="module")
def digits(place):
    return write_digits(place / "digits")


@pytest.fixture(scope="module")
def loud(place, digits):
    return stages(digits, place / "run", place / "store")


@pytest.fixture(scope="module")
def mended(loud):
    return repair(loud, LITERT, "mended")


def test_plain_int8_breaks_the_limit_and_a_remedy_mends_it(mended):
    first, best = mended.trials[0], mended.best
    assert first.drop_pp > LIMIT_PP
    assert not first.holds(LIMIT_PP)
    assert best.holds(LIMIT_PP)
    assert best.remedy != "int8"


def test_it_stops_at_the_first_remedy_that_holds(mended):
    assert mended.trials[-1] == mended.best
    assert not any(trial.holds(LIMIT_PP) for trial in mended.trials[:-1])


def test_each_trial_is_told_with_its_drop_and_its_price_in_speed(loud, mended):
    for trial in mended.trials:
        assert any(f"{trial.remedy}: {describe(trial)}" in note for note in loud.listener.notes)
    assert all(0.2 < trial.slower < 5.0 for trial in mended.trials)
    assert mended.trials[0].slower == 1.0


def test_the_test_split_is_asked_only_where_the_validation_split_keeps_the_limit(mended):
    for trial in mended.trials:
        assert (trial.test is not None) == (trial.drop_pp <= LIMIT_PP)


def test_the_row_is_judged_on_the_mended_bytes(loud, mended):
    entry = verified(loud, LITERT, "mended")
    assert entry.artifact == mended.artifact
    assert not entry.verdict.status.startswith("fail")
    told = [step["step"] for step in entry.network.history]
    assert told == [*(f"repair: {x.remedy}" for x in mended.trials), *entry.network.steps]


def test_the_limit_holds_on_openvino_too(loud):
    found = repair(loud, OPENVINO, "mended")
    assert found.best.holds(LIMIT_PP)


@pytest.mark.parametrize("device", [LITERT, OPENVINO], ids=["litert", "openvino"])
def test_raised_layers_mend_it_where_nothing_else_may_be_tried(place, digits, device):
    found = repair(stages(digits, place / "raised", place / "store", remedies=("float",), layers=3), device, "mended")
    assert found.trials[0].drop_pp > LIMIT_PP
    assert found.best.version.quantization.float_layers
    assert found.best.drop_pp < found.trials[0].drop_pp


def test_a_layer_without_an_int16_form_is_left_out_with_a_note(place, digits, monkeypatch):
    # Which layers are the worst is another CPU's rounding in the training.
    monkeypatch.setattr(_Bench, "_worst", lambda bench, version: ["pair1_depthwise_relu", "pair1_pointwise_conv"])
    curved = stages(digits, place / "curved", place / "store", activation="elu", remedies=("int16",))
    found = repair(curved, LITERT, "mended")
    (left,) = [note for note in curved.listener.notes if "is not tried" in note]
    assert "pair1_depthwise_relu in int16 is not tried" in left
    assert "LiteRT has no such form of elu" in left
    assert [trial.remedy for trial in found.trials] == ["int8", "pair1_pointwise_conv in int16"]


def test_where_no_time_is_given_nothing_is_tried_and_the_row_fails(place, digits):
    short = stages(digits, place / "short", place / "store", minutes=1e-6)
    assert len(repair(short, LITERT, "mended").trials) == 1
    assert any("is not tried" in note for note in short.listener.notes)
    assert verified(short, LITERT, "mended").verdict.status.startswith("fail: drop")


def test_a_repair_that_is_killed_at_each_trial_ends_like_one_that_was_not(place, digits, mended):
    command = [sys.executable, "-m", "tests.mended", digits, place / "killed", place / "other"]
    kills = 0
    while True:
        env = {**os.environ, "EDGECV_KILL_AT": "repair:recorded"}
        child = subprocess.run(list(map(str, command)), env=env, cwd=ROOT, capture_output=True, text=True)
        if child.returncode != -9:
            break
        kills += 1
        assert kills <= len(mended.trials)
    assert child.returncode == 0, child.stderr
    assert kills == len(mended.trials)
    assert json.loads(child.stdout) == json.loads(json.dumps(outcome(mended)))


shares = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3).map(lambda x: np.array([x], np.float32) / sum(x))


@given(shares, shares)
def test_the_divergence_is_zero_for_the_same_answers_and_never_below(one, other):
    assert divergence(one, one) == pytest.approx(0.0, abs=1e-6)
    assert divergence(one, other) >= -1e-6
