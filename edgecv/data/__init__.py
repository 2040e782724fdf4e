"""Photographs with labels: found, split once and for all, and decoded into arrays."""

from edgecv.data.decode import decode, open_rgb
from edgecv.data.load import Loaded, all_test, index, index_digest, load
from edgecv.data.sources import SPLITS, Index, Sample
from edgecv.data.split import stratified

__all__ = [
    "SPLITS",
    "Index",
    "Loaded",
    "Sample",
    "all_test",
    "decode",
    "index",
    "index_digest",
    "load",
    "open_rgb",
    "stratified",
]
