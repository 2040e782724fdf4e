from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.compress import STEPS, check_calibration, lacking, precision_of
from edgecv.errors import ConfigError


def test_no_steps_is_float32() -> None:
    assert precision_of(()) == "float32"


@pytest.mark.parametrize("step", STEPS)
def test_each_known_step_alone_sets_its_precision(step: str) -> None:
    assert precision_of((step,)) == STEPS[step].precision


def test_an_unknown_step_is_refused_with_the_nearest_right_name() -> None:
    with pytest.raises(ConfigError, match="unknown compression step int-8") as caught:
        precision_of(("int-8",))
    assert caught.value.fix == "did you mean int8?"
    assert "float16, int8, int8-dynamic" in caught.value.expected


def test_a_step_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ConfigError) as caught:
        precision_of(("zzz",))
    assert caught.value.fix == "remove zzz"


def test_two_steps_that_set_the_precision_are_refused() -> None:
    with pytest.raises(ConfigError, match="float16 and int8 both set the precision"):
        precision_of(("float16", "int8"))


def test_a_precision_before_a_keras_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv import compress

    monkeypatch.setitem(STEPS, "slim", compress.Known("fewer channels", None))
    assert precision_of(("slim", "int8")) == "int8"
    assert precision_of(("slim",)) == "float32"
    with pytest.raises(ConfigError, match="int8 is not the last step"):
        precision_of(("int8", "slim"))


def test_openvino_has_no_dynamic_int8_and_says_why() -> None:
    assert "static ranges" in (lacking("openvino", "int8-dynamic") or "")
    assert lacking("openvino", "int8") is None
    assert lacking("tflite", "int8-dynamic") is None


@given(st.integers(min_value=-5, max_value=99))
def test_under_100_images_are_refused_unless_asked_for(count: int) -> None:
    with pytest.raises(ConfigError, match="too few calibration images") as caught:
        check_calibration(count, allow_few=False)
    assert caught.value.got == str(count)
    assert "allow_few" in caught.value.fix


@given(st.integers(min_value=1, max_value=99))
def test_few_images_that_are_asked_for_are_warned_of(count: int) -> None:
    assert f"{count} calibration images" in (check_calibration(count, allow_few=True) or "")


def test_no_images_at_all_are_refused_even_when_few_are_allowed() -> None:
    with pytest.raises(ConfigError):
        check_calibration(0, allow_few=True)


@given(st.integers(min_value=100, max_value=299))
def test_under_300_images_are_warned_of_with_how_many_more(count: int) -> None:
    warning = check_calibration(count, allow_few=False)
    assert warning is not None
    assert f"use {300 - count} more" in warning


@given(st.integers(min_value=300))
def test_300_images_are_enough(count: int) -> None:
    assert check_calibration(count, allow_few=False) is None
