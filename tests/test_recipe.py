from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgecv.errors import ConfigError
from edgecv.recipe import Recipe, load_recipe, recipe_digest

SHIPPED = sorted((Path(__file__).parents[1] / "models").glob("*.toml"))
LEAST = """
name = "tiny"
[data]
source = "photos"
[preprocess]
size = 96
[model]
net = "separable_cnn"
[variants]
float32 = []
int8 = ["int8"]
"""


def load(folder: Path, text: str) -> Recipe:
    file = folder / "tiny.toml"
    file.write_text(text)
    return load_recipe(file)


def test_the_least_recipe_has_defaults_for_the_rest(tmp_path: Path) -> None:
    recipe = load(tmp_path, LEAST)
    assert recipe.variants == {"float32": (), "int8": ("int8",)}
    assert recipe.data.split == (0.6, 0.1, 0.3)
    assert recipe.limits.max_drop_pp == 2.0
    assert recipe.calibration.images == 300


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_recipe_that_ships_is_sound_and_named_like_its_file(file: Path) -> None:
    assert load_recipe(file).name == file.stem


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "tiny"', 'name = "../tiny"', "wrong value for name"),
        ('name = "tiny"', 'name = "Tiny"', "wrong value for name"),
        ('name = "tiny"', f'name = "{"t" * 65}"', "wrong value for name"),
        ('name = "tiny"', 'name = "tiny\\n"', "wrong value for name"),
        ('source = "photos"', 'source = ""', "wrong value for data.source"),
        ('source = "photos"', 'source = "photos"\nseed = -1', "wrong value for data.seed"),
        ('source = "photos"', f'source = "photos"\nseed = {2**31}', "wrong value for data.seed"),
        ('source = "photos"', 'source = "photos"\nsplit = [0.6, 0.6, 0.3]', "wrong value for data.split"),
        ('source = "photos"', 'source = "photos"\nsplit = [0.7, 0.3, 0.0]', "wrong value for data.split"),
        ('source = "photos"', 'source = "photos"\nsplit = [0.7, 0.3]', "data.split"),
        ("size = 96", "size = 8", "wrong value for preprocess.size"),
        ("size = 96", "size = 96\nscale = 0.0", "wrong value for preprocess.scale"),
        ("size = 96", "size = 96\nmean = nan", "wrong value for preprocess.mean"),
        ("size = 96", "size = 96\ncrop_fraction = 0.0", "wrong value for preprocess.crop_fraction"),
        ("int8 =", '"in/t8" =', "wrong value for variants.in/t8"),
    ],
)
def test_a_recipe_that_can_not_be_run_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in LEAST
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        load(tmp_path, LEAST.replace(old, new))


@pytest.mark.parametrize("variants", ['int8 = ["int8"]', 'float32 = ["int8"]'])
def test_a_recipe_without_a_baseline_is_refused(tmp_path: Path, variants: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST[: LEAST.index("float32")] + variants)
    assert caught.value.what.endswith("is not a valid recipe")
    assert "float32 = []" in caught.value.expected


def test_a_file_that_is_no_toml_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a recipe"):
        load_recipe(tmp_path / "model.tflite")


def test_a_refusal_takes_under_a_second(tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"unknown key data\.sourc"):
        load(tmp_path, LEAST.replace("source", "sourc"))
    assert time.perf_counter() - start < 1.0


def test_comments_and_the_order_of_keys_do_not_change_the_digest(tmp_path: Path) -> None:
    other = LEAST.replace('float32 = []\nint8 = ["int8"]', 'int8 = ["int8"] # small\nfloat32 = []')
    assert other != LEAST
    assert recipe_digest(load(tmp_path, other)) == recipe_digest(load(tmp_path, LEAST))


@pytest.mark.parametrize(("old", "new"), [("96", "112"), ('["int8"]', '["float16"]'), ("tiny", "tinier")])
def test_any_other_value_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert recipe_digest(load(tmp_path, LEAST.replace(old, new))) != recipe_digest(load(tmp_path, LEAST))


def test_the_order_of_a_variants_steps_changes_the_digest(tmp_path: Path) -> None:
    there, back = (LEAST.replace('["int8"]', steps) for steps in ('["slim", "int8"]', '["int8", "slim"]'))
    assert recipe_digest(load(tmp_path, there)) != recipe_digest(load(tmp_path, back))
