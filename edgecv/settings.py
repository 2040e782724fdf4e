"""The settings of the compression steps, as a recipe writes them: one section a step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgecv.config import Config

__all__ = ["Calibration", "Cluster", "Distill", "Qat", "Repair", "Seed", "Share", "Slim", "Sparse"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
# What numpy, Python and TensorFlow all take.
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Calibration(Config):
    """The representative data set of int8, the same share of each class of the train split, and the ranges it gives.

    `method`: "min-max" takes the extremes of each activation, "percentile" cuts `100 - percentile` of its values (half
    at each end where it has a sign), "mse" takes the range with the least squared error of rounding and clipping.
    """

    images: int = Field(300, ge=1)
    allow_few: bool = False
    method: Literal["min-max", "percentile", "mse"] = "min-max"
    percentile: float = Field(99.99, gt=90.0, lt=100.0)
    seed: Seed = 0


class Slim(Config):
    """Remove channels: `keep` is the share of `budget` that stays, and `rounds` the steps in which it gets there.

    `budget`: "channels" (in every group), "macs", "params" or "latency" (of the int8 TFLite file, measured here).
    `ranking`: "uniform" keeps the same share in every group, "global" compares all channels by score and cost.
    `groups`: "expanded" are those inside blocks alone, "all" those joined by sums as well. `multiple`: channels stay
    multiples of it. `reconstruct`: fit the weights that are left to what the whole network computed. `epochs` of
    recovery training follow each round.
    """

    keep: float = Field(0.5, gt=0.0, lt=1.0)
    budget: Literal["channels", "macs", "params", "latency"] = "macs"
    score: Literal["batch_norm", "taylor"] = "taylor"
    ranking: Literal["uniform", "global"] = "global"
    groups: Literal["expanded", "all"] = "all"
    multiple: int = Field(8, ge=1, le=64)
    reconstruct: bool = True
    rounds: int = Field(1, ge=1, le=10)
    epochs: int = Field(2, ge=0)
    learning_rate: float = Field(1e-3, gt=0.0)


class Distill(Config):
    """Train on the float model's answers.

    `weight`: the share of the loss that comes from them, in this step and in the training of all other steps; 0 leaves
    the labels alone. `temperature` softens both sides' answers. `features`: weight of the distance between the pooled
    features, 0 for none. `mixup` and `crop` take the place of the float training's in all of these: a teacher has an
    answer for any mixture, so a student of few photographs gains by more of it than labels could bear (Beyer et al.
    2022, https://arxiv.org/abs/2106.05237).
    """

    epochs: int = Field(10, ge=0)
    learning_rate: float = Field(1e-3, gt=0.0)
    temperature: float = Field(4.0, ge=1.0, le=100.0)
    weight: Share = 0.9
    features: float = Field(0.0, ge=0.0)
    mixup: float | None = Field(None, ge=0.0, le=1.0)
    crop: Share | None = None


class Sparse(Config):
    """Set small weights to zero: `sparsity` of each kernel, along a cubic schedule over the first half of the epochs.

    `pattern`: "unstructured", "2:4" (two of four neighbours, whatever `sparsity`), or "block" (1x16 along the outputs).
    """

    sparsity: float = Field(0.8, gt=0.0, lt=1.0)
    pattern: Literal["unstructured", "2:4", "block"] = "unstructured"
    epochs: int = Field(6, ge=1)
    learning_rate: float = Field(1e-3, gt=0.0)


class Cluster(Config):
    """Give each kernel only `clusters` different values, and train those."""

    clusters: int = Field(16, ge=2, le=256)
    epochs: int = Field(3, ge=0)
    learning_rate: float = Field(3e-4, gt=0.0)


class Qat(Config):
    """Train with the rounding of int8 in the forward pass, and the ranges of all activations."""

    epochs: int = Field(3, ge=1)
    learning_rate: float = Field(1e-4, gt=0.0)


Remedy = Literal["calibration", "equalize", "bias", "int16", "float", "qat"]


class Repair(Config):
    """Remedies for an int8 file that breaks `limits.max_drop_pp`, in the order in which they are tried.

    It ends when the limit holds, after `minutes` in all, or with the remedies. `layers`: how many of the worst may be
    raised to int16 activations, or to float, one at a time.
    """

    remedies: tuple[Remedy, ...] = ("calibration", "bias", "equalize", "int16", "float", "qat")
    minutes: float = Field(20.0, gt=0.0)
    layers: int = Field(8, ge=1, le=100)

    @model_validator(mode="after")
    def _each_once(self) -> Repair:
        if len(set(self.remedies)) != len(self.remedies):
            raise ValueError("each remedy once")
        return self
