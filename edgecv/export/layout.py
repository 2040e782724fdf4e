"""The layout of a TFLite file that every runtime opens, also those older than litert-quantizer."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["inline"]

# As the schema asks of stored weights: kernels read them by vectors of 16 bytes.
ALIGNMENT = 16
# The older field of an operator's code holds up to this; it then sends the reader to the newer one.
LARGEST_OLD_CODE = 127


def inline(content: bytes) -> bytes:
    """Write a TFLite file anew with its weights inside the flatbuffer and operator codes in both their fields.

    litert-quantizer puts weights behind the flatbuffer, which runtimes before 2.16 do not read, and the codes of the
    operators that it adds into the newer field alone, without which OpenVINO takes them for additions. Equal bytes give
    equal bytes.
    """
    import flatbuffers  # type: ignore[import-untyped,unused-ignore]
    from tensorflow.lite.python import schema_py_generated as schema

    class Builder(flatbuffers.Builder):  # type: ignore[misc,unused-ignore]
        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
            return super().StartVector(elemSize, numElems, ALIGNMENT if elemSize == 1 else alignment)

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, count=buffer.size, offset=buffer.offset)
            buffer.offset = buffer.size = 0
    for code in model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        code.deprecatedBuiltinCode = min(code.builtinCode, LARGEST_OLD_CODE)
    builder = Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
