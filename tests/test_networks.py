"""Every compression step on real photographs, alone and in the combinations that recipes use, up to the final bytes."""

import json

import numpy as np
import pytest

from edgecv import pipeline
from edgecv.compress import clusters, sparsity
from edgecv.devices import open_device
from edgecv.errors import ConfigError
from edgecv.evidence import made
from edgecv.recipe import Recipe, load_recipe
from edgecv.target import Measure, Target
from tests.conftest import ROOT
from tests.digits import write_digits

RECIPE = ROOT / "tests" / "data" / "compressed.toml"
MEASURE = Measure(processes=2, seconds=0.05, warmup_seconds=0.01)
TARGETS = tuple(Target(name=f"here-{runtime}", runtime=runtime, measure=MEASURE) for runtime in ("litert", "openvino"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def digits(place):
    return write_digits(place / "digits")


@pytest.fixture(scope="module")
def stages(place, digits):
    return pipeline.prepare(RECIPE, data=digits, out=place / "run", store=place / "store")[0]


@pytest.fixture(scope="module")
def rows(stages):
    return {(row.variant, row.runtime): row for row in pipeline.check(stages, TARGETS).rows}


def test_every_variant_keeps_its_accuracy_on_both_runtimes(rows):
    assert len(rows) == 18
    assert {key: row.status for key, row in rows.items() if row.status != "pass"} == {}


def test_a_slimmed_file_is_smaller_and_its_row_has_its_own_size(rows):
    for runtime in ("litert", "openvino"):
        full, slim = rows["float32", runtime], rows["slim", runtime]
        assert slim.artifact.size_bytes < 0.7 * full.artifact.size_bytes
        assert slim.macs <= 0.5 * full.macs
        assert slim.params < full.params


def test_distillation_mixes_and_crops_by_its_own_settings_and_else_by_those_of_the_float_training(place, digits):
    recipe = load_recipe(RECIPE)
    own = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"mixup": 1.0})})
    for given, mixup in ((recipe, recipe.train.mixup), (own, 1.0)):
        stages, _ = pipeline.prepare(given, data=digits, out=place / "mixed", store=place / "mixed-store")
        used = stages._recovery_settings(given.qat)
        assert (used.mixup, used.crop, used.epochs) == (mixup, recipe.train.crop, recipe.qat.epochs)


def test_a_share_out_of_reach_is_refused_before_any_training(place, digits):
    values = load_recipe(RECIPE).model_dump()
    recipe = Recipe.model_validate({**values, "slim": {**values["slim"], "keep": 0.001}})
    stages, _ = pipeline.prepare(recipe, data=digits, out=place / "hopeless", store=place / "hopeless-store")
    with stages.store.in_use(), pytest.raises(ConfigError, match="can't reach this share of the macs") as error:
        _ = stages.trained
    assert error.value.got == "keep = 0.001"
    done = [json.loads(path.read_text())["record"]["name"] for path in (place / "hopeless-store/steps").glob("*.json")]
    assert done == ["data"]


def test_a_row_tells_what_each_step_did(rows):
    steps = rows["slim-qat", "litert"].steps
    assert [one.step for one in steps] == [
        *("slim-1", "slim-1-recovery", "slim-2", "slim-2-recovery", "distill", "qat"),
    ]
    assert all(0 < one.seconds < 600 for one in steps)
    assert steps[1].accuracy[0] == steps[0].accuracy[1]
    assert steps[1].accuracy[1] > steps[0].accuracy[1]
    assert "logits" in {one.layer for one in steps[0].left}


def test_the_float_row_has_no_steps_and_is_held_to_the_float_model(rows):
    row = rows["float32", "litert"]
    assert (row.steps, row.parity.reference) == ((), "float keras")
    assert rows["slim", "litert"].parity.reference == "own keras"


def test_what_was_trained_with_quantization_is_one_file_whatever_a_target_wants_of_its_scales(stages, rows):
    with open_device(TARGETS[0].model_copy(update={"granularity": "tensor"})) as device:
        assert made(stages, device, "slim-qat").name == "slim-qat"


def test_what_was_trained_with_quantization_is_a_file_of_each_runtimes_own_and_runs_in_int8(rows):
    litert, openvino = rows["slim-qat", "litert"], rows["slim-qat", "openvino"]
    assert (litert.artifact.path, openvino.artifact.path) == ("models/slim-qat.tflite", "models/slim-qat.xml")
    assert (litert.executed_precision, openvino.executed_precision) == ("int8", "int8")


@pytest.mark.parametrize("runtime", ["litert", "openvino"])
def test_the_int8_file_has_the_accuracy_of_the_network_that_was_trained_with_quantization(stages, rows, runtime):
    labels = stages.labels("test")
    keras = (stages.outputs(("slim", "distill", "qat")).argmax(axis=1) == labels).mean()
    assert abs(keras - rows["slim-qat", runtime].accuracy.value) <= 0.005


def test_zeros_survive_quantized_training(stages, rows):
    before, after = (sparsity(stages.plain(steps)) for steps in (("sparse",), ("sparse", "qat")))
    assert max(before.values()) >= 0.6
    for layer, share in before.items():
        assert after[layer] >= share


def test_clusters_are_as_many_as_were_asked_for(stages, rows):
    left = {one.layer for one in rows["cluster-int8", "litert"].steps[0].left}
    found = {name: count for name, count in clusters(stages.plain(("cluster",))).items() if name not in left}
    assert len(found) > 3
    assert max(found.values()) <= 16


def test_variants_share_the_steps_they_have_in_common(stages, rows):
    assert stages.shaped(("slim", "distill")).files["model.safetensors"] != stages.trained.files["model.safetensors"]
    assert stages.shaped(("slim",)) is stages.shaped(("slim",))


def test_an_equalized_network_computes_the_same(stages, rows):
    assert np.abs(stages.outputs(("equalize",)) - stages.reference).max() < 1e-3


def test_a_limit_that_holds_needs_no_repair(rows):
    steps = rows["int8-repaired", "litert"].steps
    assert [one.step for one in steps] == ["repair: int8"]
    assert steps[0].note.endswith("(kept)")
    assert rows["int8-repaired", "litert"].artifact.path == "models/int8-repaired-here-litert.tflite"
