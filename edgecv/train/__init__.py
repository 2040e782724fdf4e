"""Train a network, and run it: augmentation, the head, epochs that resume bit for bit, and predictions."""

from edgecv.train.forward import predict
from edgecv.train.trainer import EpochReport, FinalReport, Trainer

__all__ = ["EpochReport", "FinalReport", "Trainer", "predict"]
