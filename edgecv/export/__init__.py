"""From a Keras network to the files that a runtime opens: TFLite and OpenVINO IR."""

from edgecv.export.exported import Exported
from edgecv.export.ir import to_openvino
from edgecv.export.tflite import to_tflite

__all__ = ["Exported", "to_openvino", "to_tflite"]
