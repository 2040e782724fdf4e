import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

import edgecv
from edgecv.devices import HERE
from edgecv.errors import ModelError, UsageError
from edgecv.store import Store, default_root
from edgecv.target import Measure, Target
from tests.common import until
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
BRIEF = Measure(processes=2, seconds=0.05, warmup_seconds=0.01)


def test_files_of_two_runtimes_are_measured_together_and_compared_with_the_first():
    results = edgecv.bench([DATA / "tiny.tflite", DATA / "tiny-int8.tflite", DATA / "tiny.xml"], brief=True)
    assert [row.runtime for row in results.rows] == ["litert", "litert", "openvino"]
    assert [row.executed_precision for row in results.rows] == ["float32", "int8", "float32"]
    assert results.rows[0].speedup is None
    assert [row.speedup.baseline for row in results.rows[1:]] == [str(DATA / "tiny.tflite")] * 2
    assert all(row.latency_ms.processes == 5 and row.memory.peak_rss_bytes > 1e6 for row in results.rows)
    assert all(row.status.startswith("can't tell: accuracy was not verified") for row in results.rows)


def test_an_irs_size_counts_its_weights_too():
    results = edgecv.bench([DATA / "tiny.xml"], target=Target(name="t", runtime="openvino", measure=BRIEF))
    assert results.rows[0].artifact.size_bytes == sum((DATA / f"tiny.{end}").stat().st_size for end in ("xml", "bin"))


def test_a_target_says_how_to_run_the_files():
    target = Target(name="t", runtime="openvino", measure=BRIEF)
    results = edgecv.bench([DATA / "tiny.tflite"], target=target)
    assert (results.rows[0].runtime, results.rows[0].latency_ms.processes) == ("openvino", 2)


def test_a_damaged_file_is_a_row_that_says_so_and_the_others_are_measured(tmp_path):
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"nothing")
    target = Target(name="t", runtime="litert", measure=BRIEF)
    results = edgecv.bench([DATA / "tiny.tflite", damaged], target=target)
    assert results.rows[1].status.startswith("fail: litert refused damaged.tflite")
    assert results.rows[0].latency_ms.processes == 2


def test_the_same_file_under_two_names_is_two_rows(tmp_path):
    copy = shutil.copy(DATA / "tiny.tflite", tmp_path)
    target = Target(name="t", runtime="litert", measure=BRIEF)
    assert len(edgecv.bench([DATA / "tiny.tflite", copy], target=target).rows) == 2


def test_another_edgecv_that_measures_here_is_waited_for(caplog):
    caplog.set_level("WARNING", logger="edgecv")  # after other tests pytest's handler may hear errors alone
    target = Target(name="t", runtime="litert", measure=BRIEF)
    with ThreadPoolExecutor(1) as pool:
        with Store(default_root()).lock(HERE):
            going = pool.submit(edgecv.bench, [DATA / "tiny.tflite"], target=target)
            until(lambda: going.done() or "waiting for another edgecv process" in caplog.text)
            assert not going.done()
        assert going.result().rows[0].latency_ms.processes == 2


def test_files_are_measured_where_no_store_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGECV_STORE", str(tmp_path / "file"))
    target = Target(name="t", runtime="litert", measure=BRIEF)
    assert edgecv.bench([DATA / "tiny.tflite"], target=target).rows[0].latency_ms.processes == 2


def test_no_file_and_a_file_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no file to measure"):
        edgecv.bench([])
    with pytest.raises(ModelError, match=r"there is no file .*missing\.tflite"):
        edgecv.bench([tmp_path / "missing.tflite"])


@pytest.mark.parametrize("name", ["x.xml", "x.tflite;touch pwned", "x.h5", "x"])
def test_a_file_that_the_targets_runtime_does_not_open_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is not run"):
        edgecv.bench([tmp_path / name], target=Target(name="t", runtime="litert", transport="ssh"))


def test_real_models_made_elsewhere_are_measured(shared):
    target = Target(name="t", runtime="litert", measure=BRIEF)
    models = shared / "models"
    results = edgecv.bench(
        [models / "mlperf_tiny_vww_96_float.tflite", models / "mlperf_tiny_vww_96_int8.tflite"], target=target
    )
    assert [row.executed_precision for row in results.rows] == ["float32", "int8"]
