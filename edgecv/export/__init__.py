"""From a Keras network to the files that a runtime opens: TFLite and OpenVINO IR."""

from edgecv.export.exported import Exported
from edgecv.export.ir import to_openvino
from edgecv.export.ir_trained import to_openvino_trained
from edgecv.export.tflite import to_tflite
from edgecv.export.trained import matched, to_tflite_trained

__all__ = ["Exported", "matched", "to_openvino", "to_openvino_trained", "to_tflite", "to_tflite_trained"]
