"""Which layer of a compressed file was broken: each layer's noise against the float network, the worst first."""

from edgecv.explain.file import Explanation, explain_file
from edgecv.explain.graph import Quantised
from edgecv.explain.layers import NOTES, layer_noise, shown_by
from edgecv.explain.noise import LayerNoise, explain, verdict, worst

__all__ = [
    "NOTES",
    "Explanation",
    "LayerNoise",
    "Quantised",
    "explain",
    "explain_file",
    "layer_noise",
    "shown_by",
    "verdict",
    "worst",
]
