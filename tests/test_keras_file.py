from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from edgecv.errors import ModelError
from edgecv.keras_file import load_model, save_model

layers = tf_keras.layers


def network(filters: int = 8) -> Any:
    image = tf_keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(6.0, name="relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Add(name="add")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return tf_keras.Model(image, layers.Dense(3, name="logits")(x), name="tiny")


def config_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        config: dict[str, Any] = json.loads(file.metadata()["keras_config"])
        return config


def rewrite(path: Path, config: Any) -> None:
    save_file(load_file(path), path, metadata={"keras_config": json.dumps(config)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_model(network(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_model_comes_back_with_the_same_outputs(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "model.safetensors"
    model.set_weights([np.random.default_rng(i).random(w.shape) for i, w in enumerate(model.get_weights())])
    save_model(model, path)
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    np.testing.assert_array_equal(load_model(path)(images), model(images))


def test_saving_a_loaded_model_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    save_model(load_model(path), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_file_is_plain_safetensors_with_one_metadata_key(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        assert list(file.metadata()) == ["keras_config"]
        assert sorted(file.keys())[0] == "0000/conv/kernel"


def test_a_lambda_layer_is_refused_before_it_is_written(tmp_path: Path) -> None:
    image = tf_keras.Input((4,), name="image")
    model = tf_keras.Model(image, layers.Lambda(lambda x: x * 2)(image))
    with pytest.raises(ModelError, match="Lambda"):
        save_model(model, tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    "layer",
    [
        {"class_name": "Lambda", "config": {"name": "relu", "function": ["4wEAAAA=", None, None]}},
        {"class_name": "TFOpLambda", "config": {"name": "relu", "function": "io.read_file"}},
        {"class_name": "ReLU", "module": "os", "config": {"name": "relu"}},
        {"class_name": "ReLU", "registered_name": "evil>ReLU", "config": {"name": "relu"}},
        {"class_name": {"class_name": "Lambda"}, "config": {"name": "relu"}},
        {"class_name": ["ReLU"], "config": {}},
    ],
)
def test_a_layer_that_could_run_code_is_refused(path: Path, layer: dict[str, Any]) -> None:
    config = config_of(path)
    config["config"]["layers"][3].update(layer)
    rewrite(path, config)
    with pytest.raises(ModelError, match="refused"):
        load_model(path)


def test_a_function_hidden_in_a_layers_settings_is_refused(path: Path) -> None:
    config = config_of(path)
    config["config"]["layers"][1]["config"]["activation"] = {
        "class_name": "function",
        "module": "builtins",
        "config": "eval",
        "registered_name": "function",
    }
    rewrite(path, config)
    with pytest.raises(ModelError, match="refused"):
        load_model(path)


@pytest.mark.parametrize(("layer", "setting", "value"), [(1, "filters", 10**9), (-1, "units", 10**12)])
def test_a_configuration_that_asks_for_terabytes_is_refused_without_taking_them(
    path: Path, layer: int, setting: str, value: int
) -> None:
    config = config_of(path)
    config["config"]["layers"][layer]["config"][setting] = value
    rewrite(path, config)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "far fewer in the file" in caught.value.got


@pytest.mark.parametrize("config", [None, [], {}, "Functional", {"class_name": "Functional", "config": {}}])
def test_a_configuration_of_the_wrong_kind_is_refused(path: Path, config: Any) -> None:
    rewrite(path, config)
    with pytest.raises(ModelError):
        load_model(path)


def test_weights_of_another_network_are_refused_by_name(path: Path) -> None:
    config = config_of(path)
    tensors = load_file(path)
    tensors["0000/conv/kernel"] = tensors["0000/conv/kernel"][:1].copy()
    save_file(tensors, path, metadata={"keras_config": json.dumps(config)})
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "0000/conv/kernel" in caught.value.got


def test_a_safetensors_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "foreign", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="can't read"):
        load_model(tmp_path / "foreign")


def test_a_missing_file_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("empty", "missing"):
        with pytest.raises(ModelError):
            load_model(tmp_path / name)


def test_deep_nesting_is_refused_not_a_crash(path: Path) -> None:
    metadata = {"keras_config": "[" * 100_000 + "]" * 100_000}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(ModelError):
        load_model(path)


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            load_model(path)


def test_a_bit_flip_in_the_header_is_refused_or_harmless(path: Path) -> None:
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    refused = 0
    for position in [*range(8), *rng.choice(np.arange(8, header), 60, replace=False)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load_model(path)
        except ModelError:
            refused += 1
    assert refused > 30
