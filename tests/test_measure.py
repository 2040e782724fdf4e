import pytest

from edgecv.devices import Local
from edgecv.measure import Subject, compare_measurements, measure, measure_round, quick
from edgecv.target import Measure, Target
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
TARGET = Target(name="here", runtime="litert", measure=Measure(processes=3, seconds=0.05, warmup_seconds=0.01))


def subject(name):
    return Subject((DATA / name,), Local(TARGET))


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"not a model")
    return Subject((path,), Local(TARGET))


def test_each_file_is_measured_once_a_round_in_a_process_of_its_own():
    found = measure({"a": subject("tiny.tflite"), "b": subject("tiny-int8.tflite")}, rounds=3)
    for one in found.values():
        assert [process.round for process in one.processes] == [0, 1, 2]
        assert len(one.latencies_ms) == sum(len(process.latencies_ms) for process in one.processes)
    assert (found["a"].executed_precision, found["b"].executed_precision) == ("float32", "int8")
    assert [spec.dtype for spec in found["a"].inputs] == ["uint8"]


def test_a_file_that_cannot_run_says_why_and_the_others_go_on(broken):
    found = measure({"broken": broken, "sound": subject("tiny.tflite")}, rounds=2)
    assert "litert refused broken.tflite" in found["broken"].problem
    assert found["broken"].processes == ()
    assert len(found["sound"].processes) == 2


def test_a_round_gives_words_for_a_file_that_fails(broken):
    assert "refused" in measure_round({"broken": broken}, number=0)["broken"]


def test_the_order_changes_from_round_to_round_and_is_fixed_by_the_seed():
    names = {name: subject("tiny.tflite") for name in "abcde"}

    def orders(seed):
        return [list(measure_round(names, number=number, seed=seed)) for number in range(3)]

    first = orders(1)
    assert len({tuple(order) for order in first}) > 1
    assert first == orders(1)


def test_a_file_against_itself_is_not_said_to_be_faster():
    found = measure({"a": subject("tiny.tflite"), "b": subject("tiny.tflite")}, rounds=5)
    comparison = compare_measurements(found["a"], found["b"])
    assert comparison.answer == "can't tell: 1 more process"
    assert comparison.ci95 is None or comparison.ci95[0] <= comparison.ratio <= comparison.ci95[1]


def test_quick_measures_five_processes_of_half_a_second():
    measured = quick(TARGET).measure
    assert (measured.processes, measured.seconds) == (5, 0.5)
    assert TARGET.measure.processes == 3
