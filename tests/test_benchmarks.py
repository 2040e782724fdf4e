"""What the benchmarks do with figures, short of measuring any."""

import json

import pytest

from benchmarks.common import Figure, record
from benchmarks.compression import best
from benchmarks.pruning import EPOCHS, RECOVERY, changed, narrow_recipe, wide_recipe
from tests.sample_results import sample


@pytest.mark.parametrize(
    ("value", "asked", "reached"),
    [(2.0, ">= 2", True), (1.9, ">= 2", False), (2.0, "<= 2", True), (2.1, "<= 2", False), (2.0, "", None)],
)
def test_a_figure_is_reached_on_the_right_side_of_what_was_asked(value, asked, reached):
    assert Figure("name", value, asked, "how").reached is reached


def test_a_group_replaces_its_own_figures_and_leaves_the_others(tmp_path):
    path = tmp_path / "compression.json"
    for name, value in (("sparse", 1.0), ("fast", 2.0), ("sparse", 3.0)):
        record(name, [Figure("figure", value, "", "how")], path=path, order=["fast", "sparse"])
    groups = json.loads(path.read_text())["groups"]
    assert {name: group["figures"][0]["value"] for name, group in groups.items()} == {"fast": 2.0, "sparse": 3.0}
    assert list(groups) == ["fast", "sparse"]


@pytest.mark.parametrize(("target", "variant"), [("linux-litert", "int8"), ("linux-openvino", "int8")])
def test_the_best_variant_is_the_fastest_within_a_point(target, variant):
    assert best(sample(), target).variant == variant


def test_where_all_lose_more_than_a_point_the_best_variant_loses_the_least():
    found = sample()
    rows = tuple(row for row in found.rows if row.variant not in ("float16", "int8"))
    assert best(found.model_copy(update={"rows": rows}), "linux-litert").variant == "int8-dynamic"


def test_both_networks_of_the_width_figures_train_for_as_many_epochs():
    narrow, wide = narrow_recipe(0), wide_recipe(0, keep=0.3)
    assert narrow.train.epochs == wide.train.epochs + wide.slim.rounds * wide.slim.epochs == EPOCHS
    assert narrow.train.model_copy(update={"epochs": EPOCHS - RECOVERY}) == wide.train


def test_a_changed_recipe_is_checked_again():
    with pytest.raises(ValueError, match="epochs"):
        changed(narrow_recipe(0), train={"epochs": -1})
