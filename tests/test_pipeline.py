"""The whole way on real photographs: results, reuse, kills, and models made to be wrong."""

import doctest
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgecv import pipeline
from edgecv.answers import answers
from edgecv.artifact import artifact_of
from edgecv.config import read
from edgecv.devices import Local
from edgecv.errors import ConfigError, DataError, DeviceError, ModelError, StoreError
from edgecv.recipe import Recipe, load_recipe
from edgecv.results import Results, read_results
from edgecv.store import Step, Store
from edgecv.target import Measure, Target
from tests import sshd
from tests.conftest import ROOT
from tests.digits import write_digits
from tests.make_tiny import of_integers

RECIPE = ROOT / "tests" / "data" / "digits.toml"
MEASURE = Measure(processes=2, seconds=0.05, warmup_seconds=0.01)
TARGETS = tuple(Target(name=f"here-{runtime}", runtime=runtime, measure=MEASURE) for runtime in ("litert", "openvino"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the digits, a store, and a run in it."""
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def digits(place):
    return write_digits(place / "digits")


@pytest.fixture(scope="module")
def results(place, digits):
    return pipeline.run(RECIPE, targets=TARGETS, data=digits, out=place / "run", store=place / "store")


@pytest.fixture(scope="module")
def stages(place, digits, results):
    return pipeline.prepare(RECIPE, data=digits, out=place / "broken", store=place / "store")[0]


def rows(results):
    return {(row.variant, row.runtime): row for row in results.rows}


def test_a_run_gives_a_row_for_each_variant_that_a_runtime_has(results):
    assert list(rows(results)) == [
        *((variant, "litert") for variant in ("float32", "float16", "int8", "int8-dynamic")),
        *((variant, "openvino") for variant in ("float32", "float16", "int8")),
    ]


def test_every_version_of_a_sound_model_passes(results):
    assert {row.status for row in results.rows} == {"pass"}
    assert min(row.accuracy.value for row in results.rows) > 0.8


def test_float_files_agree_with_keras_to_rounding(results):
    for runtime in ("litert", "openvino"):
        assert rows(results)["float32", runtime].parity.max_abs < 1e-4
        assert rows(results)["float32", runtime].accuracy.changed_predictions == 0


def test_the_precision_that_ran_is_read_back(results):
    executed = {key: row.executed_precision for key, row in rows(results).items()}
    assert executed["float32", "litert"] == executed["float32", "openvino"] == "float32"
    assert executed["int8", "litert"] == "int8"
    assert executed["int8", "openvino"].startswith("int8")
    assert "int8-dynamic" in executed["int8-dynamic", "litert"]


def test_compressed_files_are_smaller(results):
    for runtime in ("litert", "openvino"):
        sizes = {variant: row.artifact.size_bytes for (variant, own), row in rows(results).items() if own == runtime}
        assert sizes["int8"] < sizes["float32"]
        assert sizes["float16"] < 0.7 * sizes["float32"]


def test_what_stays_in_float_is_listed_with_the_reason(results):
    skipped = rows(results)["int8", "litert"].skipped
    assert [one.layer for one in skipped] == ["softmax"]
    assert "float" in skipped[0].reason


def test_a_run_leaves_results_table_report_and_the_files(results, place):
    run = place / "run"
    assert read_results(run / "results.json") == results
    assert "here-openvino" in (run / "table.txt").read_text()
    assert (run / "report.html").stat().st_size < 1_500_000
    for row in results.rows:
        assert (run / row.artifact.path).is_file()


def test_a_results_file_follows_the_design_key_for_key(place, results):
    found = json.loads((place / "run" / "results.json").read_text())
    assert list(found) == ["schema", "edgecv", "recipe", "host", "devices", "rows"]
    assert list(found["rows"][1]) == [
        "model",
        "variant",
        "target",
        "runtime",
        "format",
        "precision",
        "executed_precision",
        "artifact",
        "params",
        "macs",
        "accuracy",
        "parity",
        "latency_ms",
        "speedup",
        "memory",
        "skipped",
        "steps",
        "emulated",
        "timing",
        "status",
    ]
    assert str(place) not in json.dumps(found)


def test_a_second_run_reuses_every_step(results, place, digits):
    class Counting(pipeline.Listener):
        reused = done = 0

        def ended(self, name, seconds, *, reused):
            self.reused += reused
            self.done += not reused

    listener = Counting()
    again = pipeline.run(
        RECIPE, targets=TARGETS, data=digits, out=place / "again", store=place / "store", listener=listener
    )
    assert listener.done == 0
    assert listener.reused > 15
    assert again.rows == results.rows


def test_another_photograph_is_another_input(results, place, digits, tmp_path):
    import shutil

    copy = shutil.copytree(digits, tmp_path / "digits")
    next(iter(sorted((copy / "0").iterdir()))).unlink()
    stages, _ = pipeline.prepare(RECIPE, data=copy, out=tmp_path / "run", store=place / "store")
    assert stages.loaded.reused is False


def test_gc_after_a_run_keeps_what_it_was_made_from(results, place, digits):
    store = Store(place / "store")
    store.gc()
    assert store.check()[1] == ()
    stages, _ = pipeline.prepare(RECIPE, data=digits, out=place / "run", store=place / "store")
    assert stages.trained.reused


# Models made to be wrong


def broken(stages, name, *, labels=None, preprocess=None, weights=None, precision="float32"):
    """Export the trained network with something wrong, and return the paths for both runtimes."""
    from edgecv import export

    model = stages.network(())
    sound = model.get_weights()
    settings = {"preprocess": preprocess or stages.recipe.preprocess, "labels": labels or stages.classes}
    calibration = np.asarray(stages.images("train")[:300]) if precision == "int8" else None
    stages.out.mkdir(exist_ok=True)
    try:
        model.set_weights(weights(sound) if weights else sound)
        for exported in (export.to_tflite, export.to_openvino):
            for file, content in exported(model, precision, calibration=calibration, **settings).files.items():
                (stages.out / file.replace("model", name)).write_bytes(content)
    finally:
        model.set_weights(sound)
    return [stages.out / f"{name}.tflite", stages.out / f"{name}.xml"]


def statuses(stages, files):
    """A status for the .tflite in LiteRT, and for both files in OpenVINO, which opens .tflite too."""
    return [row.status for row in pipeline.check(stages, TARGETS, files=files).rows]


def shuffled(weights):
    rng = np.random.default_rng(0)
    return [rng.permuted(array.ravel()).reshape(array.shape) if array.ndim > 1 else array for array in weights]


def with_classes_moved(weights):
    return [*weights[:-2], np.roll(weights[-2], 1, axis=1), np.roll(weights[-1], 1)]


def test_the_sound_files_pass_when_they_are_given_by_hand(stages):
    assert statuses(stages, broken(stages, "sound")) == ["pass"] * 3


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_model_with_shuffled_weights_fails(stages, precision):
    files = broken(stages, f"shuffled-{precision}", weights=shuffled, precision=precision)
    assert all(status.startswith("fail: drop") for status in statuses(stages, files))


def test_a_model_whose_outputs_are_permuted_fails(stages):
    files = broken(stages, "moved", weights=with_classes_moved)
    assert all(status.startswith("fail: drop") for status in statuses(stages, files))


def test_a_file_whose_labels_are_permuted_fails(stages):
    files = broken(stages, "labels", labels=stages.classes[::-1])
    assert all(status.startswith("fail: the labels in labels.") for status in statuses(stages, files))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_model_whose_input_scale_is_wrong_by_two_fails(stages, precision):
    preprocess = stages.recipe.preprocess.model_copy(update={"scale": 2 * stages.recipe.preprocess.scale})
    files = broken(stages, f"scale-{precision}", preprocess=preprocess, precision=precision)
    assert all(status.startswith("fail") for status in statuses(stages, files))


def test_a_file_that_crashes_or_is_refused_is_a_row_that_says_so(stages, tmp_path):
    path = tmp_path / "damaged.tflite"
    path.write_bytes(b"\x00" * 5000)
    found = statuses(stages, [path])
    assert len(found) == 2
    assert all(status.startswith("fail: ") and "damaged.tflite" in status for status in found)


@pytest.fixture(scope="module")
def foreign(stages, place):
    """A .tflite file for such photographs, without labels, that knows three classes."""
    path = place / "foreign.tflite"
    with pytest.warns(UserWarning, match="Statistics for quantized inputs"):
        path.write_bytes(of_integers(stages.images("train")[:8], "uint8"))
    return path


def test_a_file_with_other_classes_than_the_data_is_a_row_that_says_so(stages, foreign):
    n = len(stages.labels("test"))
    got = f"foreign.tflite on here-litert gave other outputs than probabilities: float32 [{n}, 3]"
    assert statuses(stages, [foreign])[0] == f"fail: {got}"


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x93NUMPY\x01\x00", bytes(1000)])
def test_a_device_that_sends_something_else_than_probabilities_is_refused_and_nothing_is_kept(stages, foreign, content):
    class Lying(Local):
        def place(self, here):
            return f"{here}-there"

        def pull(self, there, here):
            here.write_bytes(content)

    before = list(stages.keys)
    with pytest.raises(DeviceError, match="gave other outputs than probabilities"):
        answers(stages, Lying(TARGETS[0]), artifact_of([foreign]), (foreign,), label="lying")
    assert stages.keys == before


# Killed runs


POINTS = (
    "data:computed",
    "features:stored",
    "head:recorded",
    "epoch-1:started",
    "epoch-2:computed",
    "epoch-3:recorded",
    "train:stored",
    "export-tflite:stored",
    "reference:computed",
    "predict:recorded",
    "round-1:computed",
    "round-2:recorded",
    "results:written",
)


def test_a_run_killed_at_every_named_point_goes_on_where_it_was(results, place, digits, tmp_path):
    recipe = read(RECIPE, Recipe).model_copy(update={"variants": {"float32": (), "int8": ("int8",)}})
    path = tmp_path / "digits.toml"
    path.write_text(
        RECIPE.read_text().replace('float16 = ["float16"]\n', "").replace('int8-dynamic = ["int8-dynamic"]\n', "")
    )
    assert read(path, Recipe) == recipe
    (tmp_path / "here.toml").write_text(
        'name = "here"\nruntime = "litert"\n[measure]\nprocesses = 2\nseconds = 0.05\nwarmup_seconds = 0.01\n'
    )
    command = [sys.executable, "-m", "edgecv", "run", path, "--target", tmp_path / "here.toml"]
    command += ["--data", digits, "--out", tmp_path / "run"]
    store = tmp_path / "store"

    def attempt(kill_at=""):
        env = {**os.environ, "EDGECV_STORE": str(store), "EDGECV_KILL_AT": kill_at}
        return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)

    recorded = {}
    for point in POINTS:
        killed = attempt(point)
        assert killed.returncode == -9, (point, killed.stderr)
        assert Store(store).check()[1] == ()
        now = {file.name: file.stat().st_mtime_ns for file in (store / "steps").iterdir()}
        assert recorded.items() <= now.items(), f"a finished step was done again before {point}"
        recorded = now
    last = attempt()
    assert last.returncode == 0, last.stderr
    resumed = read_results(tmp_path / "run" / "results.json")
    whole = {row.variant: row for row in results.rows if row.runtime == "litert"}
    for row in resumed.rows:
        assert row.artifact.sha256 == whole[row.variant].artifact.sha256, "an interrupted training ends elsewhere"
        assert row.status == "pass"


# Refusals


def test_a_folder_that_can_not_be_written_is_refused_before_any_work(place, tmp_path):
    (tmp_path / "file").write_text("in the way")
    stages, targets = pipeline.prepare(
        RECIPE, data=place / "digits", out=tmp_path / "file" / "run", store=tmp_path / "store"
    )
    for work in (pipeline.execute, pipeline.build):
        with pytest.raises(StoreError, match=r"can't write .*run"):
            work(stages, targets)
    assert list((tmp_path / "store" / "steps").iterdir()) == []


def test_an_unknown_step_is_refused_before_any_work(tmp_path):
    text = RECIPE.read_text().replace('int8 = ["int8"]', 'int8 = ["int7"]')
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(ConfigError, match="unknown compression step int7"):
        pipeline.prepare(tmp_path / "wrong.toml", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_too_few_photographs_for_calibration_are_refused_before_the_training(tmp_path, digits):
    for label in "01":
        folder = tmp_path / "few" / label
        folder.mkdir(parents=True)
        for path in sorted((digits / label).iterdir())[:20]:
            (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match="too few calibration images"):
        pipeline.run(RECIPE, targets=TARGETS, data=tmp_path / "few", out=tmp_path / "run", store=tmp_path / "store")


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(DataError):
        pipeline.run(RECIPE, targets=TARGETS, data=tmp_path, out=tmp_path / "run", store=tmp_path / "store")


def test_a_target_whose_format_is_not_built_is_refused(tmp_path):
    target = Target(name="onnx", runtime="onnxruntime")
    with pytest.raises(ConfigError, match="no files are built for onnxruntime"):
        pipeline.prepare(RECIPE, targets=[target], store=tmp_path / "store")


def test_two_queues_that_ask_for_the_float_models_answers_do_not_wait_for_each_other(place, digits, results):
    """One of them from inside a step, as a repair does, while the other begins to compute them."""
    stages, _ = pipeline.prepare(RECIPE, data=digits, out=place / "both", store=place / "store")
    inside, answered = threading.Event(), []

    def step(folder):
        inside.set()
        time.sleep(0.5)  # until the other one asks
        answered.append(stages.reference.shape)

    def other():
        inside.wait()
        answered.append(stages.reference.shape)

    queues = [
        threading.Thread(target=stages.do, args=(Step("waiting", {}, (), {}), step), daemon=True),
        threading.Thread(target=other, daemon=True),
    ]
    for one in queues:
        one.start()
    for one in queues:
        one.join(60)
    assert len(answered) == 2


def test_a_target_given_twice_is_one_and_two_of_one_name_are_refused(tmp_path):
    (tmp_path / "linux-litert.toml").write_text((ROOT / "targets" / "linux-litert.toml").read_text())
    _, found = pipeline.prepare(RECIPE, targets=["linux-litert", tmp_path / "linux-litert.toml"], out=tmp_path)
    assert [target.name for target in found] == ["linux-litert"]
    other = found[0].model_copy(update={"threads": 2})
    with pytest.raises(ConfigError, match="two targets have the same name"):
        pipeline.prepare(RECIPE, targets=[*found, other], out=tmp_path)


def test_a_file_that_no_target_opens_is_refused_not_left_out(stages):
    with pytest.raises(ModelError, match="none of the targets opens weights"):
        pipeline.check(stages, TARGETS, files=[Path("weights.keras")])


def test_a_device_that_is_away_costs_a_file_only_its_row_there(stages):
    away = Target(name="away", runtime="litert", transport="ssh", host="away.invalid", measure=MEASURE)
    file = stages.out.parent / "run" / "models" / "float32.tflite"
    found = pipeline.check(stages, [TARGETS[0], away], files=[file]).rows
    assert [row.status.partition(":")[0] for row in found] == ["pass", "not available"]


def test_results_are_a_value_that_can_be_read_back(results):
    assert Results.model_validate_json(results.model_dump_json(by_alias=True)) == results


# Each stage alone


@pytest.fixture(scope="module")
def stage(results, place, digits):
    """Call one stage on the command line, with the store of the run."""
    for target in TARGETS:
        text = f'name = "{target.name}"\nruntime = "{target.runtime}"\n[measure]\nprocesses = 2\nseconds = 0.05\n'
        (place / f"{target.name}.toml").write_text(text)

    def call(command, *options, targets=()):
        arguments = [command, RECIPE, "--data", digits, "--out", place / "alone", "--json", *options]
        arguments += [word for target in targets for word in ("--target", place / f"{target.name}.toml")]
        child = subprocess.run(
            [sys.executable, "-m", "edgecv", *map(str, arguments)],
            env={**os.environ, "EDGECV_STORE": str(place / "store")},
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stderr
        return json.loads(child.stdout)

    return call


def test_train_alone_writes_the_float_model(stage, place):
    found = stage("train")
    assert found["final"]["val_accuracy"] > 0.85
    assert len(found["epochs"]) == 4
    assert (place / "alone" / "model.safetensors").stat().st_size > 4 * found["params"]


def test_export_alone_writes_every_file(stage, results):
    found = stage("export", targets=TARGETS)
    assert [entry["sha256"] for entry in found] == [row.artifact.sha256 for row in results.rows]
    assert len({entry["path"] for entry in found}) == 7


def test_verify_alone_judges_without_measuring(stage, results):
    found = stage("verify", targets=TARGETS)
    assert [row["status"] for row in found["rows"]] == ["pass"] * 7
    assert {row["latency_ms"] for row in found["rows"]} == {None}


def test_the_example_in_the_docstring_of_run_runs(results, place, digits, tmp_path, monkeypatch):
    (tmp_path / "photos").symlink_to(digits)
    (tmp_path / "recipe.toml").write_text(RECIPE.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECV_STORE", str(place / "store"))
    found = doctest.testmod(pipeline)
    assert found.attempted >= 3
    assert found.failed == 0


def test_what_became_of_layers_classes_and_photographs_is_beside_the_results(place, results):
    found = json.loads((place / "run" / "measurements.json").read_text())
    assert {(one["variant"], one["target"]) for one in found["layers"]} == {
        ("int8", "here-litert"),
        ("int8", "here-openvino"),
    }
    for one in found["layers"]:
        assert len(one["layers"]) == 10
        assert re.search("no layer stands apart|is the first layer apart", one["verdict"])
    counts = found["classes"]["photographs"]
    for row, one, other in zip(results.rows, found["classes"]["versions"], found["changed"], strict=True):
        assert sum(one["hits"]) / sum(counts) == pytest.approx(row.accuracy.value)
        assert other["count"] == row.accuracy.changed_predictions
        assert len(other["shown"]) == min(other["count"], 12)
    page = (place / "run" / "report.html").read_text()
    assert all(part in page for part in ("Layer by layer", "Accuracy by class"))


def test_a_report_can_be_made_again(place, results):
    from edgecv.report import render_markdown

    page = place / "run" / "report.html"
    before = page.read_bytes()
    page.unlink()
    child = subprocess.run(
        [sys.executable, "-m", "edgecv", "report", str(place / "run"), "--markdown"], capture_output=True, text=True
    )
    assert child.stdout == render_markdown(results)
    assert page.read_bytes() == before


def test_a_report_gives_the_runs_own_verdict(place, results):
    from edgecv.report import verdict

    child = subprocess.run(
        [sys.executable, "-m", "edgecv", "report", str(place / "run")], capture_output=True, text=True
    )
    assert child.stdout.endswith(f"\n{verdict(results, max_drop_pp=load_recipe(RECIPE).limits.max_drop_pp)}\n")


def test_a_scaling_that_the_weights_do_not_expect_is_noted(place):
    class Notes(pipeline.Listener):
        def __init__(self):
            self.texts = []

        def note(self, text):
            self.texts.append(text)

    notes = Notes()
    stages, _ = pipeline.prepare("efficientnet_lite0", out=place / "scaled", store=place / "store", listener=notes)
    stages._note_scaling((127.0, 128.0))
    assert notes.texts == []
    stages._note_scaling((127.5, 127.5))
    assert "expect preprocess.mean = 127.5 and scale = 127.5, not 127 and 128" in notes.texts[0]


@pytest.mark.skipif(not sshd.INSTALLED, reason="openssh-server is not installed")
def test_a_board_and_this_machine_are_measured_in_one_run_and_one_that_is_lost_costs_only_its_own_rows(
    place, digits, results, tmp_path, monkeypatch
):
    board = Target(name="board", runtime="litert", transport="ssh", measure=MEASURE)
    cut = threading.Event()

    class Cutting(pipeline.Listener):
        def ended(self, name, seconds, *, reused):
            if name == "round 1 on board":
                served.end()
                cut.set()

    def ran(listener=None):
        settings = {"data": digits, "out": place / "both", "store": place / "store", "listener": listener}
        return pipeline.run(RECIPE, targets=[board, TARGETS[0]], **settings)

    with sshd.serve(tmp_path) as served:
        monkeypatch.setenv("PATH", f"{sshd.programs(tmp_path / 'bin', served.config)}:{os.environ['PATH']}")
        sshd.give_python(served)
        lost = ran(Cutting())
    assert cut.is_set()
    assert [(row.target, row.status.partition(":")[0]) for row in lost.rows] == [
        *[("board", "not available")] * 4,
        *[("here-litert", "pass")] * 4,
    ]
    assert [row.latency_ms.processes for row in lost.rows] == [1] * 4 + [2] * 4
    assert {row.accuracy.n for row in lost.rows} == {results.rows[0].accuracy.n}
