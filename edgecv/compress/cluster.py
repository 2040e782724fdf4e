"""Weight clustering: each kernel keeps a few different values, which then train."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Skipped
from edgecv.compress.hold import FEWEST_ZEROS, Hook, hold
from edgecv.compress.kernels import kernel_of, load_tfmot, rebuild, set_aside, walk
from edgecv.quiet import quiet
from edgecv.settings import Cluster

__all__ = ["cluster", "clusters"]

Floats = NDArray[np.float32]

# Lloyd's steps from the library's start; one dimension settles fast.
ROUNDS = 20


def cluster(model: Any, settings: Cluster) -> tuple[Any, Hook, tuple[Skipped, ...]]:
    """Copy a network with at most `settings.clusters` different values in each kernel.

    Returns the copy, of plain layers; the hook that keeps it so after each step of training; and the layers left
    alone. A kernel of a sparse network keeps its zeros, one of its clusters. The same model gives the same values.

    The start is k-means++ of tensorflow-model-optimization (Arthur and Vassilvitskii 2007), refined by Lloyd's
    algorithm (1982). The library's own training wrapper is not used: it moves weights between clusters at every step
    by a search over weights x clusters, and keeps the graph's tensors in the layers.
    """
    copy = rebuild(model, lambda layer: layer)
    skipped = []
    for layer in walk(copy):
        kernel = kernel_of(layer)
        if reason := set_aside(layer, copy):
            skipped.append(Skipped(layer.name, reason))
        elif kernel is not None and kernel.shape.num_elements() < 2 * settings.clusters:
            count = kernel.shape.num_elements()
            skipped.append(Skipped(layer.name, f"{count} weights are too few for {settings.clusters} clusters"))
        elif kernel is not None:
            kernel.assign(_clustered(kernel.numpy(), settings.clusters))
    return copy, hold(copy) or (lambda: None), tuple(skipped)


def clusters(model: Any) -> dict[str, int]:
    """Count the different values of each kernel, by layer name."""
    kernels = {layer.name: kernel_of(layer) for layer in walk(model)}
    return {name: len(np.unique(kernel.numpy())) for name, kernel in kernels.items() if kernel is not None}


def _clustered(kernel: Floats, count: int) -> Floats:
    """Replace each weight by the centroid of its cluster; zeros of a sparse kernel stay and take up one cluster."""
    rest = kernel[kernel != 0.0]
    sparse = 1.0 - rest.size / kernel.size >= FEWEST_ZEROS
    weights = rest if sparse else kernel.reshape(-1)
    if not weights.size:
        return kernel
    centroids = _centroids(weights, count - 1 if sparse else count)
    result = centroids[_nearest(kernel, centroids)]
    return np.where(kernel == 0.0, np.float32(0.0), result) if sparse else result


def _centroids(weights: Floats, count: int) -> Floats:
    """Find at most `count` centroids, sorted, for float32 `(n,)`."""
    import tensorflow as tf

    load_tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras import cluster_config, clustering_centroids

    method = cluster_config.CentroidInitialization.KMEANS_PLUS_PLUS
    start = clustering_centroids.CentroidsInitializerFactory.get_centroid_initializer(method)
    with quiet():
        found = start(tf.constant(weights), min(count, weights.size)).get_cluster_centroids().numpy()
    centroids = np.unique(found).astype(np.float64)
    for _ in range(ROUNDS):
        index = _nearest(weights, centroids)
        sums = np.bincount(index, weights, minlength=len(centroids))
        sizes = np.bincount(index, minlength=len(centroids))
        centroids = np.unique(np.where(sizes > 0, sums / np.maximum(sizes, 1), centroids))
    return centroids.astype(np.float32)


def _nearest(weights: Floats, centroids: NDArray[Any]) -> NDArray[np.int64]:
    """Give the index of the nearest of the sorted centroids, in memory of the order of the weights alone."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2.0, weights)
