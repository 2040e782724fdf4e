"""Make a network smaller and faster: the steps that a variant may name, and what each does to a model."""

from edgecv.compress.steps import STEPS, Known, Precision, check_calibration, lacking, precision_of

__all__ = ["STEPS", "Known", "Precision", "check_calibration", "lacking", "precision_of"]
