"""Which channels of a network belong together: groups that can only be removed from all of their layers at once.

Every tensor's last axis is a row of runs of channels. A convolution starts a run of its own, a batch norm or a pooling
hands its input's on, a sum joins those of its inputs, a concatenation puts them in a row. What a layer's weights hold
for each of them is a `Cut`: all that has to be known to take channels out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgecv.artifact import Skipped
from edgecv.compress.rules import RULES, Found, Runs, Step
from edgecv.errors import ModelError

if TYPE_CHECKING:
    import tf_keras

__all__ = ["Cut", "Group", "Run", "find_groups", "functional", "spans", "steps"]


@dataclass(frozen=True)
class Run:
    """Neighbouring channels of one tensor. `group`: whose they are, None where they are left alone."""

    group: str | None
    size: int


@dataclass(frozen=True)
class Cut:
    """An axis with channels on it.

    `weight`: position in the layer's `get_weights()`, None for an axis of a Reshape's target. `role`: "out" where the
    layer makes these channels, "pass" where it hands them on one by one, "in" where it mixes them into others. `runs`
    lie along the axis in this order, and add up to its length.
    """

    layer: str
    weight: int | None
    axis: int
    role: Literal["out", "pass", "in"]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Group:
    """Channels that stand or fall together.

    `name`: the first layer that makes them. `size`: how many. `inside`: a block's own (one layer makes them, and an
    activation follows), not joined by a sum, a product or a concatenation. `cuts`: everywhere they appear.
    """

    name: str
    size: int
    inside: bool
    cuts: tuple[Cut, ...]


def find_groups(model: tf_keras.Model) -> tuple[tuple[Group, ...], tuple[Skipped, ...]]:
    """Find the groups of a functional model, in the order in which its layers run, and what must be left alone.

    Left alone are the input, the output, and all channels that meet a layer whose rule is not known, or that is called
    twice.

    Raises:
        ModelError: the model is a subclass, so that its graph can't be read.
    """
    found = _walk(model)
    roots = list(dict.fromkeys(found.root(run) for run in range(len(found.sizes))))
    names = {root: found.makers[root][0] for root in roots}
    free = {root: names[root] for root in roots if root not in found.reasons}
    cuts = [
        Cut(layer, weight, axis, role, tuple(Run(free.get(found.root(run)), found.sizes[run]) for run in runs))
        for layer, weight, axis, role, runs in found.cuts
    ]
    groups = tuple(
        Group(
            name=name,
            size=found.sizes[root],
            inside=root in found.active and root not in found.joined,
            cuts=tuple(cut for cut in cuts if any(run.group == name for run in cut.runs)),
        )
        for root, name in free.items()
    )
    return groups, tuple(Skipped(names[root], found.reasons[root]) for root in roots if root in found.reasons)


def spans(cut: Cut, group: str) -> list[slice]:
    """Give the parts of a cut's axis that are `group`'s: more than one after a Flatten, or if concatenated twice.

    >>> spans(Cut("dense", 0, 0, "in", (Run("a", 2), Run("b", 3), Run("a", 2))), "a")
    [slice(0, 2, None), slice(5, 7, None)]
    """
    found, start = [], 0
    for run in cut.runs:
        if run.group == group:
            found.append(slice(start, start + run.size))
        start += run.size
    return found


def functional(model: tf_keras.Model) -> tf_keras.Model:
    """Give the model itself, or a Sequential one as a functional model with the same layers.

    Raises:
        ModelError: it is neither.
    """
    import tf_keras

    if isinstance(model, tf_keras.Sequential) and model.built:
        return tf_keras.Model(model.inputs, model.outputs, name=model.name)
    if type(model).__name__ != "Functional":
        raise ModelError(
            f"can't read the graph of {model.name}",
            got=f"a {type(model).__name__} model",
            expected="a functional tf_keras model, with an Input and layers called on tensors",
            fix="build the network as tf_keras.Model(inputs, outputs)",
        )
    return model


def steps(model: tf_keras.Model) -> list[Step]:
    """List a functional model's calls of layers, each after those it reads from."""
    import tensorflow as tf

    found = []
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            inputs = [] if node.is_input else tf.nest.flatten(node.keras_inputs)
            found.append(Step(node.layer, tuple(inputs), tuple(tf.nest.flatten(node.outputs))))
    return found


def _walk(model: Any) -> Found:
    """Follow the channels from the input to the output."""
    model = functional(model)
    calls = steps(model)
    found, tensors = Found(), dict[int, Runs]()
    repeated = {call.layer.name for call in calls if sum(call.layer is other.layer for other in calls) > 1}
    for call in calls:
        runs = [tensors[id(tensor)] for tensor in call.inputs]
        shared = call.layer.name in repeated and call.layer.weights
        answer = "its weights are used more than once" if shared else _apply(found, call, runs)
        outputs = _leave_alone(found, call, runs, answer) if isinstance(answer, str) else [answer]
        tensors |= {id(tensor): out for tensor, out in zip(call.outputs, outputs, strict=True)}
    for tensor in model.outputs:
        found.freeze(tensors[id(tensor)], "the network's output")
    return found


def _apply(found: Found, call: Step, runs: list[Runs]) -> Runs | str:
    rule = RULES.get(call.kind)
    if rule is None or len(call.outputs) != 1:
        return f"how a {type(call.layer).__name__} treats channels is not known"
    if getattr(call.layer, "data_format", "channels_last") != "channels_last":
        return "its channels are not on the last axis"
    return rule(found, call, runs)


def _leave_alone(found: Found, call: Step, runs: list[Runs], reason: str) -> list[Runs]:
    for row in runs:
        found.freeze(row, f"read by {call.layer.name}: {reason}")
    outputs = [found.start(int((1, *tensor.shape)[-1] or 1), call.layer.name) for tensor in call.outputs]
    for row in outputs:
        found.freeze(row, reason)
    return outputs
