from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.compress import STEPS, check_calibration, lacking, precision_of
from edgecv.errors import ConfigError


def test_no_steps_is_float32() -> None:
    assert precision_of(()) == "float32"


@pytest.mark.parametrize("step", [step for step in STEPS if step != "repair"])
def test_each_known_step_alone_sets_its_precision(step: str) -> None:
    assert precision_of((step,)) == (STEPS[step].precision or "float32")


def test_an_unknown_step_is_refused_with_the_nearest_right_name() -> None:
    with pytest.raises(ConfigError, match="unknown compression step int-8") as caught:
        precision_of(("int-8",))
    assert caught.value.fix == "did you mean int8?"
    assert all(step in caught.value.expected for step in STEPS)


def test_a_step_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ConfigError) as caught:
        precision_of(("zzz",))
    assert caught.value.fix == "remove zzz"


def test_two_steps_that_set_the_precision_are_refused() -> None:
    with pytest.raises(ConfigError, match="float16 and int8 both set the precision"):
        precision_of(("float16", "int8"))


def test_a_precision_before_a_keras_step_is_refused() -> None:
    assert precision_of(("slim", "int8")) == "int8"
    with pytest.raises(ConfigError, match="int8 is not the last step"):
        precision_of(("int8", "slim"))


def test_repair_mends_an_int8_file() -> None:
    assert precision_of(("int8", "repair")) == "int8"
    assert precision_of(("slim", "distill", "int8", "repair")) == "int8"


@pytest.mark.parametrize(
    ("steps", "fix"),
    [
        (("repair",), 'write ["int8", "repair"]'),
        (("repair", "int8"), 'write ["int8", "repair"]'),
        (("slim", "repair", "int8"), 'write ["slim", "int8", "repair"]'),
        (("qat", "repair"), "remove repair"),
        (("slim", "repair"), 'write ["slim", "int8", "repair"]'),
        (("float16", "repair"), "remove repair"),
        (("int16x8", "repair"), "remove repair"),
    ],
)
def test_repair_in_another_place_is_refused_with_what_to_write(steps: tuple[str, ...], fix: str) -> None:
    with pytest.raises(ConfigError, match="repair is not in its place") as caught:
        precision_of(steps)
    assert caught.value.fix == fix


@pytest.mark.parametrize("step", STEPS)
def test_a_step_twice_is_refused(step: str) -> None:
    with pytest.raises(ConfigError, match=f"{step} stands twice"):
        precision_of((step, step))


@pytest.mark.parametrize("earlier", ["sparse", "cluster"])
@pytest.mark.parametrize("later", ["slim"])
def test_a_step_that_would_undo_an_earlier_one_is_refused(earlier: str, later: str) -> None:
    assert precision_of((later, earlier, "int8")) == "int8"
    with pytest.raises(ConfigError, match=f"{later} after {earlier}: .* lost") as caught:
        precision_of((earlier, later, "int8"))
    assert caught.value.fix == f"move {later} in front of {earlier}"


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=6).map(tuple))
def test_what_is_allowed_is_in_an_order_that_can_be(steps: tuple[str, ...]) -> None:
    try:
        precision = precision_of(steps)
    except ConfigError:
        return
    setters = [step for step in steps if STEPS[step].precision]
    assert len(set(steps)) == len(steps)
    assert [STEPS[step].precision for step in setters] == [precision] * (precision != "float32")
    last = steps[:-1] if steps[-1:] == ("repair",) else steps
    assert "repair" not in last
    assert not setters or last[-1] == setters[0]
    assert last == steps or last[-1] == "int8"
    for earlier in ("sparse", "cluster"):
        assert not {earlier, "slim"} <= set(steps) or steps.index("slim") < steps.index(earlier)


@given(st.permutations(["slim", "distill", "equalize"]), st.sampled_from(["int8", "qat", "float16"]))
def test_steps_that_leave_each_other_alone_go_in_any_order(steps: list[str], last: str) -> None:
    assert precision_of((*steps, last)) == STEPS[last].precision


def test_openvino_has_no_int16_activations_and_says_why() -> None:
    assert "int16" in (lacking("openvino", "int16x8") or "")
    assert lacking("tflite", "int16x8") is None
    assert lacking("openvino", "int8-weights") is None


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
