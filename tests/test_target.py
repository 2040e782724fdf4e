from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.errors import ConfigError
from edgecv.target import Measure, Target, load_target

SHIPPED = sorted((Path(__file__).parents[1] / "targets").glob("*.toml"))
LEAST = 'name = "board"\nruntime = "litert"\n'


def load(folder: Path, text: str, *, name: str = "board.toml") -> Target:
    file = folder / name
    file.write_text(text)
    return load_target(file)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_target_that_ships_is_sound_and_named_like_its_file(file: Path) -> None:
    assert load_target(file).name == file.stem


def test_the_least_target_has_defaults_for_the_rest(tmp_path: Path) -> None:
    target = load(tmp_path, LEAST)
    assert (target.accelerator, target.transport, target.threads, target.precision) == ("cpu", "local", 1, "float32")
    assert target.measure == Measure(processes=12)
    assert target.limits.max_latency_ms is None


def test_a_target_whose_name_is_not_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST, name="other.toml")
    assert (caught.value.got, caught.value.expected) == ("board", "other")


def test_a_misspelt_runtime_is_refused_with_the_nearest_right_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST.replace("litert", "litrt"))
    assert caught.value.fix == "did you mean litert?"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("threads = 0", "threads"),
        ("threads = 1.0", "threads"),
        ('precision = "int8"', "precision"),
        ("[measure]\nprocesses = 0", "measure.processes"),
        ("[measure]\nprocesses = 201", "measure.processes"),
        ("[measure]\nseconds = inf", "measure.seconds"),
        ("[measure]\nseconds = 0", "measure.seconds"),
        ("[measure]\nwarmup_seconds = -1", "measure.warmup_seconds"),
        ("[measure]\ntimeout_seconds = inf", "measure.timeout_seconds"),
        ("[measure]\ntimeout_seconds = 86401", "measure.timeout_seconds"),
        ("[measure]\nmemory_bytes = 99999999999999999999999", "measure.memory_bytes"),
        ("[limits]\nmax_latency_ms = 0", "limits.max_latency_ms"),
        ("[limits]\nmax_latency_ms = nan", "limits.max_latency_ms"),
        ("[limits]\nmax_size_bytes = 1.5", "limits.max_size_bytes"),
    ],
)
def test_a_target_that_can_not_be_measured_is_refused(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST + line)
    assert caught.value.what.endswith(f"wrong value for {key}")


@pytest.mark.parametrize("transport", ["emulated", "browser", "adb"])
def test_a_runtime_that_is_not_to_be_had_there_is_refused(transport: str) -> None:
    with pytest.raises(ValueError, match=f'transport = "{transport}" takes runtime = "litert"'):
        Target.model_validate({"name": "there", "runtime": "openvino", "transport": transport, "host": "aarch64"})


def test_more_threads_than_the_chip_has_cores_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    chip = '[chip]\ncores = 4\nram_bytes = 1000\nsource = "its data sheet"\n'
    file.write_text(f'name = "board"\nruntime = "litert"\nthreads = 5\n{chip}')
    with pytest.raises(ConfigError, match="threads = 5, and the chip has 4 cores"):
        load_target(file)
