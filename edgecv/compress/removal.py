"""Take channels out of a network: the same layers, narrower, with the weights that are left."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.compress.graph import Cut, Group, find_groups, functional
from edgecv.errors import UsageError

if TYPE_CHECKING:
    import tf_keras

__all__ = ["Kept", "indices", "remove"]

# Of each group, the sorted indices of the channels that stay.
Kept = dict[str, NDArray[np.int64]]

# The setting of each class of layer that says how many channels it makes.
_WIDTHS = {"Conv2D": "filters", "SeparableConv2D": "filters", "Dense": "units"}


def remove(model: tf_keras.Model, kept: Mapping[str, NDArray[np.int64]]) -> tf_keras.Model:
    """Build the network with these channels of each group alone: the same layers and names, the weights copied.

    A group that is not named keeps all. The outputs are those that `model` gives where the weights that read the
    removed channels are zero. `model` is not changed.

    Raises:
        UsageError: an unknown group, or indices that are none, not sorted, or out of range.
        ModelError: the model is not functional.
    """
    import tf_keras

    model = functional(model)
    groups, _ = find_groups(model)
    _check(groups, kept)
    chosen = {cut: indices(cut, kept) for group in groups if group.name in kept for cut in group.cuts}
    config = copy.deepcopy(model.get_config())
    described = {layer["name"]: layer for layer in config["layers"]}
    for layer in described.values():
        layer.pop("build_config", None)  # it holds the old shapes
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    for cut, stay in chosen.items():
        _resize(described[cut.layer], cut, len(stay))
        if cut.weight is not None:
            weights[cut.layer][cut.weight] = np.take(weights[cut.layer][cut.weight], stay, axis=cut.axis)
    own = {type(layer).__name__: type(layer) for layer in model.submodules if isinstance(layer, tf_keras.layers.Layer)}
    smaller = tf_keras.Model.from_config(config, custom_objects=own)
    for name, arrays in weights.items():
        smaller.get_layer(name).set_weights(arrays)
    return smaller


def indices(cut: Cut, kept: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Give the places along a cut's axis that stay."""
    parts, start = [], 0
    for run in cut.runs:
        stays = kept.get(run.group or "", np.arange(run.size))
        parts.append(start + np.asarray(stays, np.int64))
        start += run.size
    return np.concatenate(parts)


def _check(groups: Sequence[Group], kept: Mapping[str, NDArray[np.int64]]) -> None:
    sizes = {group.name: group.size for group in groups}
    for name, stay in kept.items():
        size = sizes.get(name, 0)
        fits = len(stay) and stay[0] >= 0 and stay[-1] < size and (np.diff(stay) > 0).all()
        if not fits:
            raise UsageError(
                f"can't keep these channels of {name}",
                got=f"{len(stay)} stay" + (f" from {min(stay)} to {max(stay)}" if len(stay) else ""),
                expected=f"one or more, sorted, from 0 to {size - 1}" if size else "a group of the network",
                fix="take names and sizes from find_groups",
            )


def _resize(described: dict[str, Any], cut: Cut, size: int) -> None:
    """Change what a layer's configuration says of its width, where it does."""
    settings = described["config"]
    if cut.weight is None:
        shape = list(settings["target_shape"])
        shape[cut.axis] = size
        settings["target_shape"] = tuple(shape)
    elif cut.role == "out":
        settings[_WIDTHS[described["class_name"]]] = size
