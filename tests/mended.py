"""A repair of a digits network made hard for int8: `python -m tests.mended DIGITS OUT STORE` prints its trials."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from edgecv import keras_file, pipeline
from edgecv.devices import Local
from edgecv.listener import Listener
from edgecv.recipe import Recipe, load_recipe
from edgecv.repair import Repaired, repair
from edgecv.settings import Repair
from edgecv.stages import Stages
from edgecv.store import Step
from edgecv.target import Measure, Target
from tests.conftest import ROOT

LIMIT_PP = 2.0
MEASURE = Measure(processes=2, seconds=0.05, warmup_seconds=0.01)
LITERT, OPENVINO = (
    Local(Target(name=f"here-{name}", runtime=name, measure=MEASURE)) for name in ("litert", "openvino")
)


class Ears(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def recipe(**settings: object) -> Recipe:
    """The digits recipe with one variant to repair, under a limit of 2 points."""
    plain = load_recipe(ROOT / "tests" / "data" / "digits.toml")
    limits = plain.limits.model_copy(update={"max_drop_pp": LIMIT_PP})
    variants = {"float32": (), "mended": ("int8", "repair")}
    repair = Repair(**{"remedies": ("calibration", "equalize"), **settings})
    return plain.model_copy(update={"limits": limits, "variants": variants, "repair": repair})


def stages(digits: Path, out: Path, store: Path, *, activation: str = "relu", **settings: object) -> Stages:
    """Stages whose float model has one channel that is 300 times as loud as the others, undone by the next layer.

    `activation`: what is put in place of ReLU6.
    """
    found, _ = pipeline.prepare(recipe(**settings), data=digits, out=out, store=store, listener=Ears())
    trained = found.trained

    def work(folder: Path) -> object:
        keras_file.save_model(exploded(found.network(()), activation), folder / "model.safetensors")
        return trained.value

    found.__dict__["trained"] = found.do(
        Step("explode", {"activation": activation}, (trained.files["model.safetensors"],), {}), work
    )
    found._shaped.clear()
    return found


def exploded(model: object, activation: str) -> object:
    """Copy a separable network with another activation for ReLU6, and one channel of its second block made loud."""
    import tf_keras

    config = model.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "ReLU":
            settings = {"name": layer["config"]["name"], "activation": activation}
            layer |= {"class_name": "Activation", "config": settings}
    copy = tf_keras.Model.from_config(config)
    copy.set_weights(model.get_weights())
    gamma, beta, *statistics = copy.get_layer("pair1_depthwise_bn").get_weights()
    factors = np.ones_like(gamma)
    factors[np.argmax(gamma)] = 300.0
    copy.get_layer("pair1_depthwise_bn").set_weights([gamma * factors, beta * factors, *statistics])
    kernel, *rest = copy.get_layer("pair1_pointwise_conv").get_weights()
    copy.get_layer("pair1_pointwise_conv").set_weights([kernel / factors[:, np.newaxis], *rest])
    return copy


def outcome(found: Repaired) -> dict[str, object]:
    """What must be the same however often a repair was killed: all but the times."""
    trials = [dataclasses.asdict(trial) for trial in found.trials]
    for trial in trials:
        trial.pop("seconds")
        trial.pop("slower")
    return {"digest": found.artifact.digest, "best": found.best.remedy, "trials": trials}


if __name__ == "__main__":
    made = stages(*map(Path, sys.argv[1:4]))
    print(json.dumps(outcome(repair(made, LITERT, "mended"))))
