"""A Keras model as one safetensors file: weights as tensors, the configuration as JSON in its metadata, no code.

The same model gives the same bytes. A file from elsewhere is untrusted: only the classes listed here are built, and
no variable is allocated far beyond the numbers that the file holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import ModelError

__all__ = ["load_model", "save_model"]

_KEY = "keras_config"
# Numbers that a configuration may ask for beyond four times those of its file: nested networks are built repeatedly.
_SLACK = 2**20
_LAYERS = [
    *(
        "Activation",
        "Add",
        "AveragePooling2D",
        "BatchNormalization",
        "Concatenate",
        "Conv2D",
        "Dense",
        "DepthwiseConv2D",
    ),
    *("Dropout", "Flatten", "Functional", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer", "MaxPooling2D"),
    *("Multiply", "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "ZeroPadding2D"),
]
_INITIALIZERS = [
    *("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "Ones"),
    *("RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling", "Zeros"),
]
_REGULARIZERS = ["L1", "L1L2", "L2"]
# Lists, not sets: what a file holds here may be unhashable. None: the key is absent.
_CLASSES = [None, *_LAYERS, *_INITIALIZERS, *_REGULARIZERS]
_MODULES = [None, "keras.initializers", "keras.layers", "keras.regularizers"]


def save_model(model: Any, path: Path) -> None:
    """Write a `tf_keras` functional model to `path`: the same bytes for the same weights and configuration.

    Raises:
        ModelError: the model holds something that `load_model` would refuse, such as a Lambda layer.
    """
    from safetensors.numpy import save_file

    config = {"class_name": type(model).__name__, "config": model.get_config()}
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    _refuse_code(json.loads(text), path)
    tensors = {name: np.ascontiguousarray(variable.numpy()) for name, variable in _named(model)}
    # One metadata key only: safetensors writes several in an order that changes from run to run.
    save_file(tensors, path, metadata={_KEY: text})


def load_model(path: Path) -> Any:
    """Read a model that `save_model` wrote.

    Raises:
        ModelError: `path` can't be read, is not such a file, or holds layers or functions outside the list.
    """
    config, tensors = _read(path)
    _refuse_code(config, path)
    model = _build(config, path, room=_SLACK + 4 * sum(tensor.size for tensor in tensors.values()))
    _check_shapes(model, tensors, path)
    for name, variable in _named(model):
        variable.assign(tensors[name])
    return model


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the model's variables under names that sort in the order the model has them."""
    for index, variable in enumerate(model.weights):
        yield f"{index:04d}/{variable.name.partition(':')[0]}", variable


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        config = json.loads(text) if text is not None else None
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise _refusal(path, str(error)) from error
    if not isinstance(config, dict) or set(config) != {"class_name", "config"} or config["class_name"] != "Functional":
        raise _refusal(path, "no Keras configuration in its metadata")
    return config, tensors


def _refuse_code(config: Any, path: Path) -> None:
    """Refuse every class, module and registered name outside the lists: Keras would import what a file names."""
    nodes = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            nodes += node.values()
            name, module, alias = (node.get(key) for key in ("class_name", "module", "registered_name"))
            if name not in _CLASSES or module not in _MODULES or alias not in (None, name):
                raise ModelError(
                    f"{path} holds {name}, which is refused",
                    got=f"class {name}, module {module}, registered name {alias}",
                    expected="layers without code of their own: " + ", ".join(_LAYERS),
                    fix="build the network from these layers (activations as ReLU or Activation layers, not Lambda)",
                )


def _build(config: dict[str, Any], path: Path, *, room: int) -> Any:
    """Build the network, with variables of `room` numbers at most: a file may ask for terabytes."""
    import tensorflow as tf
    import tf_keras

    left = room

    def counted(create: Callable[..., Any], **settings: Any) -> Any:
        nonlocal left
        left -= math.prod(settings.get("shape") or ())
        if left < 0:
            raise _refusal(path, f"a configuration of more than {room:,} numbers, and far fewer in the file")
        return create(**settings)

    try:
        with tf.variable_creator_scope(counted):
            return tf_keras.Model.from_config(config["config"])
    except ModelError:
        raise
    # Keras answers a damaged configuration with nearly any exception.
    except Exception as error:
        raise _refusal(path, f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}") from error


def _check_shapes(model: Any, tensors: dict[str, NDArray[Any]], path: Path) -> None:
    expected = {name: (tuple(v.shape), v.dtype.base_dtype.name) for name, v in _named(model)}
    got = {name: (tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()}
    if expected != got:
        odd = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
        raise _refusal(path, f"weights and configuration disagree about {', '.join(odd[:3])} ({len(odd)} in all)")


def _refusal(path: Path, got: str) -> ModelError:
    return ModelError(
        f"can't read {path} as a Keras model",
        got=got,
        expected="a safetensors file written by edgecv",
        fix="train again, or copy the file again from where it was made",
    )
