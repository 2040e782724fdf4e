"""Train a network, and run it: augmentation, the head, epochs that resume bit for bit, distillation, predictions."""

from edgecv.train.descent import EpochReport
from edgecv.train.forward import predict
from edgecv.train.loop import FinalReport, Loop
from edgecv.train.recovery import Recovery
from edgecv.train.trainer import Trainer

__all__ = ["EpochReport", "FinalReport", "Loop", "Recovery", "Trainer", "predict"]
