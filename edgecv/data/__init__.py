"""Photographs with labels: found, split once and for all, and decoded into arrays."""

from edgecv.data.load import Loaded, all_test, index, index_digest, load
from edgecv.data.sources import SPLITS, Index, Sample
from edgecv.data.split import stratified

__all__ = [
    "SPLITS",
    "Index",
    "Loaded",
    "Sample",
    "all_test",
    "index",
    "index_digest",
    "load",
    "stratified",
]
