"""A recipe: one TOML file that says what to train, which variants to build, and what they must keep."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgecv.config import NAME, Config, read
from edgecv.errors import ConfigError
from edgecv.settings import Calibration, Cluster, Distill, Qat, Repair, Seed, Share, Slim, Sparse

__all__ = ["Data", "Limits", "Network", "Preprocess", "Recipe", "Train", "load_recipe", "recipe_digest"]


class Data(Config):
    """Where the photographs come from, and how they are split.

    `source`: "elpv" (the demo set), "tfds:NAME", or the path of a folder or a CSV, relative to the current directory.
    `split`: fractions for train, validation and test. Used where the source has no split of its own.
    """

    source: str = Field(min_length=1)
    seed: Seed = 0
    split: tuple[Share, Share, Share] = (0.6, 0.1, 0.3)

    @field_validator("split")
    @classmethod
    def _sums_to_one(cls, split: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(split) - 1.0) > 1e-6 or min(split) <= 0.0:
            raise ValueError(f"three fractions above 0 that sum to 1, not {sum(split):g}")
        return split


class Preprocess(Config):
    """From a photograph to the network's input: one spec for training, calibration, verification, bench and bundle.

    Pixels are RGB in 0-255. `resize`: "crop" scales the shorter side to `size / crop_fraction` and cuts the centre
    square, "stretch" scales both sides to `size`. The network sees `(pixel - mean) / scale`, in all channels.
    """

    size: int = Field(ge=16, le=1024)
    resize: Literal["crop", "stretch"] = "crop"
    crop_fraction: float = Field(1.0, gt=0.0, le=1.0)
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    mean: float = 127.0
    scale: float = Field(128.0, gt=0.0)


class Network(Config):
    """Which network, how wide, and what it starts from."""

    net: str
    weights: Literal["imagenet", "none"] = "none"
    width: float = Field(1.0, gt=0.0, le=4.0)
    dropout: Share = 0.2


class Train(Config):
    """How to train: the head on frozen features first, then the network.

    Rates are at the peak of a cosine schedule. `freeze`: the share of the layers, counted from the input, that stay as
    they started; `freeze_batch_norm`: all batch norms do, so that the features stay what the head was fitted to (for
    good starting weights and few images). `shift` and `crop` are fractions of the side. `mixup`: alpha of its Beta
    distribution, 0 for none.
    """

    head_epochs: int = Field(20, ge=0)
    head_learning_rate: float = Field(1e-2, gt=0.0)
    epochs: int = Field(5, ge=0)
    learning_rate: float = Field(1e-3, gt=0.0)
    warmup_epochs: float = Field(0.5, ge=0.0)
    freeze: Share = 0.0
    freeze_batch_norm: bool = False
    weight_decay: float = Field(1e-4, ge=0.0)
    batch_size: int = Field(32, ge=2)
    label_smoothing: Share = 0.1
    class_weights: bool = True
    batch_norm_momentum: float = Field(0.9, gt=0.0, lt=1.0)
    flip_horizontal: bool = True
    flip_vertical: bool = False
    crop: Share = 0.1
    shift: Share = 0.05
    rotate_deg: float = Field(10.0, ge=0.0, le=180.0)
    brightness: Share = 0.1
    mixup: float = Field(0.0, ge=0.0, le=1.0)
    seed: Seed = 0


class Limits(Config):
    """What every variant must keep. `max_drop_pp`: percentage points of accuracy below the float Keras model."""

    max_drop_pp: float = Field(2.0, ge=0.0, le=100.0)


class Recipe(Config):
    """One recipe file. `variants` maps a name to the ordered compression steps that make it."""

    name: str = Field(pattern=NAME)
    summary: str = ""
    data: Data
    preprocess: Preprocess
    model: Network
    train: Train = Train()
    slim: Slim = Slim()
    distill: Distill = Distill()
    sparse: Sparse = Sparse()
    cluster: Cluster = Cluster()
    qat: Qat = Qat()
    calibration: Calibration = Calibration()
    repair: Repair = Repair()
    limits: Limits = Limits()
    variants: dict[Annotated[str, Field(pattern=NAME)], tuple[str, ...]]

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Recipe:
        if self.variants.get("float32") != ():
            raise ValueError("variants needs float32 = [], the version that the others are compared with")
        return self


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: it can't be read, or has an unknown, missing or ill-typed key.

    >>> load_recipe("models/separable_cnn.toml").name
    'separable_cnn'
    """
    path = Path(path)
    if path.suffix != ".toml":
        raise ConfigError(
            f"{path} is not a recipe", expected="a .toml file", fix="see `edgecv models` for those that ship"
        )
    return read(path, Recipe)


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 of the recipe's values but for where photographs lie; comments and the order of keys do not count."""
    values = recipe.model_dump(mode="json", exclude={"data": {"source"}})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
