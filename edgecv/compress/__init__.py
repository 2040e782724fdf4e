"""Make a network smaller and faster: the steps that a variant may name, and what each does to a model."""

from edgecv.compress.cluster import cluster, clusters
from edgecv.compress.equalize import equalize
from edgecv.compress.hold import hold
from edgecv.compress.qat import quantize_aware, set_ranges, strip_ranges
from edgecv.compress.slim import check_reach, slim
from edgecv.compress.sparse import check_sparsity, sparsify, sparsity, strip
from edgecv.compress.steps import CALIBRATED, STEPS, Known, Precision, check_calibration, lacking, precision_of

__all__ = [
    "CALIBRATED",
    "STEPS",
    "Known",
    "Precision",
    "check_calibration",
    "check_reach",
    "check_sparsity",
    "cluster",
    "clusters",
    "equalize",
    "hold",
    "lacking",
    "precision_of",
    "quantize_aware",
    "set_ranges",
    "slim",
    "sparsify",
    "sparsity",
    "strip",
    "strip_ranges",
]
