"""Train a network for its task: the head on frozen features, then the rest an epoch at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import ModelError
from edgecv.recipe import Preprocess, Train
from edgecv.train.descent import EpochReport, Labelled, Progress, weighted_loss
from edgecv.train.forward import forward_function, normalise
from edgecv.train.head import fit_layer
from edgecv.train.loop import Loop

__all__ = ["Trainer"]

Floats = NDArray[np.float32]


class Trainer(Loop):
    """Train a network on labels; see `Loop`.

    `model` has layers "pool" (features), "dropout" and "logits" (Dense). Only the layer named "dropout" may draw random
    numbers: another one's would not be the same after a resumption.

    Raises:
        ModelError: the model lacks one of the three layers.
    """

    def __init__(self, model: Any, settings: Train, preprocess: Preprocess, *, train: Labelled, val: Labelled) -> None:
        import tf_keras

        pool, self._dropout, self._head = (_layer(model, name) for name in ("pool", "dropout", "logits"))
        self._backbone = tf_keras.Model(model.input, pool.output)
        super().__init__(model, settings, preprocess, train=train, val=val)

    def features(self, images: NDArray[np.uint8]) -> Floats:
        """Compute "pool", float32 `(n, channels)`, for uint8 images `(n, height, width, 3)` as the network is now."""
        return forward_function(self._backbone, self._preprocess)(images)

    def fit_head(self, train: Floats, val: Floats, *, progress: Progress | None = None) -> EpochReport:
        """Train "logits" alone on the features of the training and validation images; keep and report its best epoch.

        Raises:
            EdgecvError: the loss is no longer finite.
        """
        report = fit_layer(
            self._head,
            self._settings,
            train=(train, self._train[1]),
            val=(val, self._val[1]),
            weights=self._class_weights,
            progress=progress,
        )
        self._keep_best((report.val_accuracy, -report.val_loss))
        return report

    def _loss(self, pixels: Any, targets: Any, seed: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        features = self._backbone(normalise(pixels, self._preprocess), training=True)
        # The layer's own random numbers would depend on what ran before in this process.
        dropped = tf.nn.experimental.stateless_dropout(features, self._dropout.rate, seed, rng_alg="philox")
        return weighted_loss(self._head(dropped), targets, tf.constant(self._class_weights))


def _layer(model: Any, name: str) -> Any:
    found = {layer.name: layer for layer in model.layers}
    if name not in found:
        raise ModelError(
            f"the network has no layer named {name}",
            got=", ".join(list(found)[-4:]),
            expected='layers "pool", "dropout" and "logits" at its end',
            fix="name them so where the network is built",
        )
    return found[name]
