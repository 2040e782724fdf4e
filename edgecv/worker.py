"""Run one model on one machine: `python worker.py JOB.json`. Needs numpy and one runtime, nothing of edgecv.

The same file is the local child process and what is copied to a board. The job is JSON:

    {"files": [["model.tflite", "<sha256>"], ...],   the first is opened; all are hashed before a runtime sees them
     "runtime": "litert" | "openvino" | "onnxruntime" | "tflm", "accelerator": "cpu" | "gpu" | "npu",
     "threads": 1,
     "adapter": "NAME",                               the GPU that "facts" named; another one is refused
     "precision": "float32" | "default",              what float layers are asked to run in
     "do": "describe" | "predict" | "bench" | "graph" | "trace" | "facts",
     "images": "images.npy",                          uint8 (n, height, width, 3); null: seeded noise
     "outputs": "outputs.npy",                        predict: float32 (n, ...) is written here; trace: a folder
     "tensors": [7, 9], "outputs_bytes": 500000000,   trace: which tensors, by "graph"'s ids, and the most to write
     "warmup_seconds": 0.3, "seconds": 1.0,           bench
     "memory_bytes": 8000000000,                      limit on the process's data
     "timeout_seconds": 300.0,                        end by SIGALRM then, where nobody else could end it
     "answer": "answer.json"}

The answer is JSON too: what the model takes and gives, the precision that really ran, and for "bench" `init_ms` (load
until ready), `first_ms` and `latencies_ms`. A latency is from pixels in this process's memory to the outputs in it.
For "graph", `operators`: each one's kind, name, output's id and shape, the ids it reads, and the range that rounding
gives its output. For both "graph" and "trace" LiteRT runs its built-in kernels, since XNNPACK hides what is inside.
TFLM adds `arena_bytes`, what a microcontroller must set aside; a figure of this machine, whose pointers take 8 bytes.
For "facts", which takes no files: `machine`, what the kernel tells of it, `versions` of what runs models, why that is
`unusable` where it can't be imported, and `adapters`, its GPUs or NPUs there, the one that it takes first.
Nothing falls back to the CPU: a model of which a GPU does not run each operator is refused, `on_cpu` says which.
Exit code 0: answered. 3: refused, with the reason in the answer.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

NOISE_SEED = 0
MAX_SAMPLES = 100_000
ARENA_BYTES = 64_000_000  # more than any microcontroller has: what a file needs of it is measured
PACKAGES = {
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "tflm": ("tflite-micro",),
}
MODULES = {
    "litert": ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "tflm": ("tflite_micro",),
}
# Compute layers of TFLite, and which of their operands are the activation and the weight: a TRANSPOSE_CONV's first is
# its output's shape.
OPERANDS = {
    **dict.fromkeys(("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"), (0, 1)),
    "TRANSPOSE_CONV": (2, 1),
}
# What a layer computes in, by the types of the two, where that is not the activation's.
MIXED = {("int16", "int8"): "int16x8", ("float32", "int8"): "int8-dynamic"}
FACTS = {
    "cpuinfo": "/proc/cpuinfo",
    "meminfo": "/proc/meminfo",
    "os_release": "/etc/os-release",
    "board": "/proc/device-tree/model",
    "governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
}
# VkPhysicalDeviceType, in the order in which WebGPU takes them: discrete, integrated, virtual, other, a CPU.
VULKAN_KINDS = (2, 1, 3, 0, 4)
VULKAN_CPU, VULKAN_1_1 = 4, 1 << 22 | 1 << 12
# VkStructureType of VkPhysicalDeviceProperties2 and VkPhysicalDeviceDriverProperties.
VULKAN_PROPERTIES, VULKAN_DRIVER = 1000059001, 1000196000


class Refused(Exception):
    """Carries the reason why a job can't be done; it becomes the answer."""


class OnCPU(Refused):
    """Carries which operators a GPU leaves to the CPU."""


class LiteRT:
    """Runs a .tflite file by ai-edge-litert, or by tflite-runtime on boards that have only that."""

    def __init__(self, path: str, job: dict[str, Any]) -> None:
        litert = imported("litert")
        inside = {
            "experimental_op_resolver_type": litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            "experimental_preserve_all_tensors": True,
        }
        looks_inside = job["do"] in ("graph", "trace")
        self.interpreter = litert.Interpreter(path, num_threads=job["threads"], **(inside if looks_inside else {}))
        for detail in self.interpreter.get_input_details():
            shape = [1 if size == -1 else int(size) for size in detail["shape_signature"]]
            if shape != list(detail["shape"]):
                self.interpreter.resize_tensor_input(detail["index"], shape)
        self.interpreter.allocate_tensors()
        self.inputs = [self._spec(detail) for detail in self.interpreter.get_input_details()]
        self.outputs = [self._spec(detail) for detail in self.interpreter.get_output_details()]
        self._input_ids = [detail["index"] for detail in self.interpreter.get_input_details()]
        self._output_ids = [detail["index"] for detail in self.interpreter.get_output_details()]
        self._output_ids += job.get("tensors") or []

    @staticmethod
    def _spec(detail: dict[str, Any]) -> dict[str, Any]:
        scale, zero_point = detail["quantization"]
        spec = {
            "name": detail["name"],
            "shape": [int(n) for n in detail["shape"]],
            "dtype": np.dtype(detail["dtype"]).name,
        }
        return {**spec, "scale": float(scale), "zero_point": int(zero_point)}

    def invoke(self, arrays: list[Any]) -> list[Any]:
        """Run one inference: arrays in, arrays out."""
        for index, array in zip(self._input_ids, arrays):
            self.interpreter.set_tensor(index, array)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(index) for index in self._output_ids]

    def executed(self) -> list[str]:
        """Precision of each compute layer, by the types of its operands as the interpreter prepared them."""
        types = {detail["index"]: np.dtype(detail["dtype"]).name for detail in self.interpreter.get_tensor_details()}
        operators = [op for op in self.interpreter._get_ops_details() if op["op_name"] in OPERANDS]
        return [computed_in(op["op_name"], [types[int(i)] for i in op["inputs"] if i >= 0]) for op in operators]

    def operators(self) -> list[dict[str, Any]]:
        """What computes each tensor, in the order of execution."""
        tensors = {detail["index"]: detail for detail in self.interpreter.get_tensor_details()}
        found = []
        for op in self.interpreter._get_ops_details():
            spec, inputs = self._spec(tensors[op["outputs"][0]]), [int(i) for i in op["inputs"] if i >= 0]
            found.append({**spec, **_range(spec), "kind": op["op_name"], "id": int(op["outputs"][0]), "inputs": inputs})
        return found


class LiteRTGPU:
    """Runs a .tflite file by LiteRT's WebGPU accelerator, every operator on the GPU."""

    def __init__(self, path: str, job: dict[str, Any]) -> None:
        from ai_edge_litert.compiled_model import CompiledModel, GpuOptions, HardwareAccelerator, Options

        self._path, self._job = path, job
        gpu = GpuOptions(enforce_f32=job["precision"] == "float32")
        options = Options(hardware_accelerators=HardwareAccelerator.GPU, gpu_options=gpu)
        log: list[str] = []
        try:
            with native_log(log):
                self.model = CompiledModel.from_file(path, options=options)
        except RuntimeError as error:
            raise self._refusal(log[0], str(error)) from error
        if not self.model.is_fully_accelerated():
            raise OnCPU("some operators run on the CPU")
        self._check_adapter(log[0])
        key = next(iter(self.model.get_signature_list()))
        names = self.model.get_signature_by_index(0)
        details = self.model.get_input_tensor_details(key), self.model.get_output_tensor_details(key)
        self.inputs = [self._spec(details[0][name]) for name in names["inputs"]]
        self.outputs = self._with_scales([details[1][name] for name in names["outputs"]])
        self._reads = self.model.create_input_buffers(0)
        self._writes = self.model.create_output_buffers(0)

    @staticmethod
    def _spec(detail: dict[str, Any]) -> dict[str, Any]:
        spec = {"name": detail["name"], "shape": [int(n) for n in detail["shape"]], "dtype": detail["dtype"]}
        return {**spec, "scale": 0.0, "zero_point": 0}

    def _with_scales(self, details: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Describe outputs, of integers with the scales that the interpreter alone tells."""
        specs = [self._spec(detail) for detail in details]
        if all(spec["dtype"].startswith("float") for spec in specs):
            return specs
        inside = LiteRT(self._path, {**self._job, "do": "graph"})
        known = dict(zip(inside._output_ids, inside.outputs))
        pairs = [(spec, known.get(detail["index"], spec)) for spec, detail in zip(specs, details)]
        return [{**spec, **{key: told[key] for key in ("scale", "zero_point")}} for spec, told in pairs]

    @staticmethod
    def _refusal(log: str, error: str) -> Refused:
        """Word what LiteRT wrote: the operators that the GPU lacks, or its last words."""
        if left := left_on_cpu(log):
            return OnCPU(left)
        warned = re.findall(r"^(?:ERROR|WARNING): (?:\[[^]]*\] )?(?!Logging before)(.+)", log, re.MULTILINE)
        last = re.sub(r"(ERROR: )?\[[^]]*\]", "", error.splitlines()[-1]).strip("└ ")
        return Refused(": ".join(filter(None, [last, *warned[-1:]])) or "it gave no reason")

    def _check_adapter(self, log: str) -> None:
        found = re.search(r"Selected adapter: (.*?), arch=", log)
        if found and self._job.get("adapter") not in (None, found[1]):
            raise Refused(f"LiteRT took the GPU {found[1]}, not {self._job['adapter']}: set VK_ICD_FILENAMES to one")

    def invoke(self, arrays: list[Any]) -> list[Any]:
        """Run one inference: arrays in, arrays out. Reading an output waits for the GPU."""
        for buffer, array in zip(self._reads, arrays):
            buffer.write(array)
        self.model.run_by_index(0, self._reads, self._writes)
        found = []
        for buffer, spec in zip(self._writes, self.outputs):
            values = buffer.read(int(np.prod(spec["shape"])), np.dtype(spec["dtype"]))
            found.append(values.reshape(spec["shape"]))
        return found

    def executed(self) -> list[str]:
        """Precision of each compute layer: float32 where it was asked for, else what is not told.

        Of a layer that the file has in int8 the GPU computes in float32 too, and rounds the result as int8 would.
        """
        if self._job["precision"] != "float32":
            return []
        kinds = LiteRT(self._path, {**self._job, "do": "graph"}).executed()
        return ["float32 rounded to int8" if kind == "int8" else "float32" for kind in kinds]


class OpenVINO:
    """Runs OpenVINO IR, .tflite or .onnx by OpenVINO."""

    def __init__(self, path: str, job: dict[str, Any]) -> None:
        openvino = imported("openvino")
        core = openvino.Core()
        model = core.read_model(path)
        if model.is_dynamic():
            model.reshape({port: _batch_of_one(port.partial_shape) for port in model.inputs})
        self._operators = model.get_ordered_ops()
        if job.get("tensors"):
            model.add_outputs([self._operators[index].output(0) for index in job["tensors"]])
        self._device = job["accelerator"].upper()
        settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if self._device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = job["threads"]
        if job["precision"] == "float32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        self.compiled = core.compile_model(model, self._device, settings)
        self._check_device(job["precision"])
        self.request = self.compiled.create_infer_request()
        self.inputs = [self._spec(port) for port in self.compiled.inputs]
        self.outputs = [self._spec(port) for port in self.compiled.outputs]
        self._input_views = [self.request.get_input_tensor(i).data for i in range(len(self.inputs))]

    def _check_device(self, precision: str) -> None:
        """Read back what runs it, and in what: another device or precision than was asked for is refused."""
        devices = self.compiled.get_property("EXECUTION_DEVICES")
        if any(name.partition(".")[0] != self._device for name in devices):
            raise Refused(f"runs on {', '.join(devices)}, not on {self._device} alone")
        if precision == "float32":
            hint = self.compiled.get_property("INFERENCE_PRECISION_HINT").to_dtype().name
            if hint != "float32":
                raise Refused(f"float layers run in {hint}, not in float32")

    @staticmethod
    def _spec(port: Any) -> dict[str, Any]:
        name = port.any_name if port.names else port.node.friendly_name
        shape = [dim.get_length() if dim.is_static else -1 for dim in port.partial_shape]
        return {"name": name, "shape": shape, "dtype": port.element_type.to_dtype().name, "scale": 0.0, "zero_point": 0}

    def invoke(self, arrays: list[Any]) -> list[Any]:
        """Run one inference: arrays in, arrays out."""
        for view, array in zip(self._input_views, arrays):
            view[...] = array
        self.request.infer()
        return [np.array(self.request.get_output_tensor(i).data) for i in range(len(self.outputs))]

    def executed(self) -> list[str]:
        """Precision of each compute layer: that of the kernel which the compiled graph reports, "brgconv_avx512_f32".

        Not `runtimePrecision`: that says float16 where float16 weights are widened and a float32 kernel runs. But a GPU
        tells it by that alone, and an NPU does not tell it at all.
        """
        names = {"u8": "int8", "i8": "int8", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
        key = "primitiveType" if self._device == "CPU" else "runtimePrecision"
        found: list[str] = []
        for node in self.compiled.get_runtime_model().get_ops() if self._device != "NPU" else ():
            info = node.get_rt_info()
            if info["layerType"].astype(str) in {"Convolution", "FullyConnected", "MatMul", "Deconvolution"}:
                precision = info[key].astype(str).rpartition("_")[2].lower()
                found.append(names.get(precision, precision))
        return found

    def operators(self) -> list[dict[str, Any]]:
        """What computes each tensor, in an order of execution; an id counts in it."""
        ids = {node.get_friendly_name(): index for index, node in enumerate(self._operators)}
        found = []
        for index, node in enumerate(self._operators):
            if node.get_output_size():
                inputs = [ids[value.get_node().get_friendly_name()] for value in node.input_values()]
                shape = [dim.get_length() if dim.is_static else -1 for dim in node.get_output_partial_shape(0)]
                spec = {"kind": node.get_type_name(), "name": node.get_friendly_name(), "id": index}
                found.append({**spec, "inputs": inputs, "shape": shape, "dtype": "float32", **self._range(node)})
        return found

    @staticmethod
    def _range(node: Any) -> dict[str, Any]:
        if node.get_type_name() != "FakeQuantize":
            return {}
        ends = [value.get_node() for value in node.input_values()[3:]]
        if any(end.get_type_name() != "Constant" for end in ends):
            return {}
        low, high = (np.array(end.data, np.float64).ravel().tolist() for end in ends)
        return {"low": low, "high": high, "levels": node.get_attributes()["levels"]}


class ONNXRuntime:
    """Runs an .onnx file by ONNX Runtime."""

    def __init__(self, path: str, job: dict[str, Any]) -> None:
        onnxruntime = imported("onnxruntime")
        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        options.inter_op_num_threads = 1

        def make() -> Any:
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        self._make = make
        self._options = options
        self.session = self._make()
        self.inputs = [self._spec(value) for value in self.session.get_inputs()]
        self.outputs = [self._spec(value) for value in self.session.get_outputs()]
        self._input_names = [spec["name"] for spec in self.inputs]

    @staticmethod
    def _spec(value: Any) -> dict[str, Any]:
        names = {"float": "float32", "double": "float64"}
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        shape = [
            size if isinstance(size, int) and size > 0 else 1 if axis == 0 else -1
            for axis, size in enumerate(value.shape)
        ]
        return {"name": value.name, "shape": shape, "dtype": names.get(kind, kind), "scale": 0.0, "zero_point": 0}

    def invoke(self, arrays: list[Any]) -> list[Any]:
        """Run one inference: arrays in, arrays out."""
        return list(self.session.run(None, dict(zip(self._input_names, arrays))))

    def executed(self) -> list[str]:
        """Precision of each compute layer, from ONNX Runtime's own profile of one more run."""
        self._options.enable_profiling = True
        with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
            self._options.profile_file_prefix = os.path.join(folder, "profile")
            self.session = self._make()
            self.invoke(make_inputs(self.inputs, None))
            with open(self.session.end_profiling()) as file:
                events = json.load(file)
        return [kind for event in events if (kind := self._operands(event.get("args", {})))]

    @staticmethod
    def _operands(args: dict[str, Any]) -> str | None:
        kernel = args.get("op_name", "")
        if not any(word in kernel for word in ("Conv", "Gemm", "MatMul")):
            return None
        types = [kind for entry in args.get("input_type_shape", [])[:1] for kind in entry]
        return {"float": "float32", "uint8": "int8"}.get(types[0], types[0]) if types else None


class TFLM:
    """Runs a .tflite file by the reference kernels of TensorFlow Lite for Microcontrollers, batch 1."""

    def __init__(self, path: str, job: dict[str, Any]) -> None:
        from tflite_micro.python.tflite_micro import runtime
        from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

        if job["do"] == "trace":
            raise Refused("TFLM keeps no tensor inside a network")
        with open(path, "rb") as file:
            content = file.read()
        self._model = schema.Model.GetRootAs(content, 0)
        self._graph = self._model.Subgraphs(0)
        self._kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        self._types = {v: name.lower() for name, v in vars(schema.TensorType).items() if isinstance(v, int)}
        self.interpreter, _ = _told(lambda: runtime.Interpreter.from_bytes(content, arena_size=ARENA_BYTES))
        self.inputs = [self._spec(self._graph.Inputs(i)) for i in range(self._graph.InputsLength())]
        self.outputs = [self._spec(self._graph.Outputs(i)) for i in range(self._graph.OutputsLength())]

    def _spec(self, index: int) -> dict[str, Any]:
        tensor = self._graph.Tensors(index)
        values, known = tensor.Quantization(), {"scale": 0.0, "zero_point": 0}
        if values is not None and values.ScaleLength() == 1:
            known = {"scale": float(values.Scale(0)), "zero_point": int(values.ZeroPoint(0))}
        shape = [int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength())]
        return {"name": tensor.Name().decode(), "shape": shape, "dtype": self._types[tensor.Type()], **known}

    def invoke(self, arrays: list[Any]) -> list[Any]:
        """Run one inference: arrays in, arrays out."""
        for index, array in enumerate(arrays):
            self.interpreter.set_input(array, index)
        _told(self.interpreter.invoke)
        return [self.interpreter.get_output(index) for index in range(len(self.outputs))]

    def arena_bytes(self) -> int:
        """Give what of the arena the network has taken, head and tail, after an invocation."""
        _, text = _told(self.interpreter.print_allocations)
        return int(re.findall(r"Arena allocation total (\d+) bytes", text)[0])

    def executed(self) -> list[str]:
        """Precision of each compute layer, by the types of its operands."""
        found = [(kind, operator) for kind, operator in self._read() if kind in OPERANDS]
        return [
            computed_in(kind, [self._spec(one.Inputs(i))["dtype"] for i in range(max(OPERANDS[kind]) + 1)])
            for kind, one in found
        ]

    def operators(self) -> list[dict[str, Any]]:
        """What computes each tensor, in the order of execution."""
        found = []
        for kind, operator in self._read():
            spec = self._spec(operator.Outputs(0))
            inputs = [operator.Inputs(i) for i in range(operator.InputsLength()) if operator.Inputs(i) >= 0]
            found.append({**spec, **_range(spec), "kind": kind, "id": operator.Outputs(0), "inputs": inputs})
        return found

    def _read(self) -> Any:
        """Give each operator, and its name in the schema; codes over 127 stand in the newer field."""
        for index in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(index)
            code = self._model.OperatorCodes(operator.OpcodeIndex())
            yield self._kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())], operator


RUNTIMES: dict[str, Any] = {"litert": LiteRT, "openvino": OpenVINO, "onnxruntime": ONNXRuntime, "tflm": TFLM}


def _told(call: Any) -> Any:
    """Give what a call returns and what it writes to stderr, where TFLM names the operator that it can't run."""
    log: list[str] = []
    try:
        with native_log(log):
            found = call()
    except RuntimeError as error:
        lines = filter(None, map(str.strip, log[0].splitlines()))
        raise Refused("; ".join(lines)[:500] or "no reason given") from error
    return found, log[0]


def _range(spec: dict[str, Any]) -> dict[str, Any]:
    """Give the range that rounding leaves a tensor, and its levels, where it holds signed integers."""
    if not spec["scale"] or not spec["dtype"].startswith("int"):
        return {}
    info = np.iinfo(spec["dtype"])
    low, high = ([(end - spec["zero_point"]) * spec["scale"]] for end in (info.min, info.max))
    return {"low": low, "high": high, "levels": info.max - info.min + 1}


def _batch_of_one(shape: Any) -> list[Any]:
    """Fix a dynamic first dimension to 1; any other dynamic one is refused."""
    fixed = [1 if axis == 0 and dim.is_dynamic else dim for axis, dim in enumerate(shape)]
    if any(getattr(dim, "is_dynamic", False) for dim in fixed):
        raise Refused(f"an input has the dynamic shape {shape}: only the batch may be dynamic")
    return fixed


def computed_in(kind: str, types: list[str]) -> str:
    """Name what a compute layer of TFLite computes in, by its kind and the types of its operands, in their order."""
    activation, weight = (types[place] for place in OPERANDS[kind])
    return MIXED.get((activation, weight), activation)


def summarise(executed: list[str]) -> str | None:
    """One phrase for the precisions of the compute layers: "int8", or "int8 14/27, float32 13/27"; None without any."""
    counts = collections.Counter(executed).most_common()
    if len(counts) <= 1:
        return counts[0][0] if counts else None
    return ", ".join(f"{kind} {count}/{len(executed)}" for kind, count in counts)


def make_inputs(specs: list[dict[str, Any]], image: Any) -> list[Any]:
    """Arrays for one invocation: `image` where the model takes one of its shape, else seeded noise."""
    rng = np.random.default_rng(NOISE_SEED)
    arrays: list[Any] = []
    for spec in specs:
        if min(spec["shape"], default=1) < 1:
            raise Refused(f"input {spec['name']} has the dynamic shape {spec['shape']}: only the batch may be dynamic")
        dtype = np.dtype(spec["dtype"])
        if image is not None and takes_pixels(spec, image.shape):
            arrays.append(np.ascontiguousarray(image[None], dtype))
        elif dtype.kind in "iu":
            info = np.iinfo(dtype)
            low, high = max(info.min, -128), min(info.max, 255)
            arrays.append(rng.integers(low, high, spec["shape"], dtype=dtype, endpoint=True))
        elif dtype.kind == "f":
            arrays.append(rng.random(spec["shape"], dtype=np.float32).astype(dtype))
        else:
            raise Refused(f"input {spec['name']} has the type {spec['dtype']}: only numbers can be made up")
    return arrays


def takes_pixels(spec: dict[str, Any], shape: Any) -> bool:
    """Tell whether an input is one image's pixels, 0 to 255, as uint8 or as the same numbers in float32."""
    return spec["dtype"] in ("uint8", "float32") and list(spec["shape"]) == [1, *shape]


def run_images(model: Any, images: Any) -> Any:
    """Give the outputs for each image in turn, of a model that takes one image's pixels."""
    spec = model.inputs[0]
    if len(model.inputs) != 1 or not takes_pixels(spec, images.shape[1:]):
        raise Refused(f"takes {spec['dtype']} {spec['shape']}, not one uint8 image of {[1, *images.shape[1:]]}")
    for image in images:
        yield model.invoke([np.ascontiguousarray(image[None], spec["dtype"])])


def trace(model: Any, images: Any, job: dict[str, Any]) -> None:
    """Save what each of the `tensors` holds for every image, (n, ...) in the file's own type, as OUTPUTS/ID.npy."""
    os.makedirs(job["outputs"], exist_ok=True)
    kept: list[Any] = []
    for number, outputs in enumerate(run_images(model, images)):
        values = [value[0] for value in outputs[-len(job["tensors"]) :]]
        if (size := len(images) * sum(value.nbytes for value in values)) > job["outputs_bytes"]:
            raise Refused(f"the tensors take {size} bytes, over the {job['outputs_bytes']} allowed")
        for index, value in zip(job["tensors"], values) if not kept else ():
            path, shape = os.path.join(job["outputs"], f"{index}.npy"), (len(images), *value.shape)
            kept.append(np.lib.format.open_memmap(path, mode="w+", dtype=value.dtype, shape=shape))
        for array, value in zip(kept, values):
            array[number] = value


def predict(model: Any, images: Any, outputs: str) -> None:
    """Save the first output for every image as float32, of integers the numbers that they stand for."""
    results = None
    for number, (first, *_) in enumerate(run_images(model, images)):
        output = dequantized(first[0], model.outputs[0])
        if results is None:
            results = np.empty((len(images), *output.shape), np.float32)
        results[number] = output
    if results is None:
        raise Refused("there are no images to run")
    np.save(outputs, results, allow_pickle=False)


def dequantized(values: Any, spec: dict[str, Any]) -> Any:
    """Give the numbers that integers of a tensor with a scale stand for, float32; all others as they are."""
    if np.dtype(spec["dtype"]).kind not in "iu" or not spec["scale"]:
        return values
    return ((values.astype(np.float64) - spec["zero_point"]) * spec["scale"]).astype(np.float32)


def bench(model: Any, inputs: list[Any], job: dict[str, Any]) -> dict[str, Any]:
    """Time invocations: the first, a warm-up that is dropped, then steady ones for `seconds`."""
    first = _timed(model, inputs)
    end = time.perf_counter() + job["warmup_seconds"]
    while time.perf_counter() < end:
        model.invoke(inputs)
    latencies: list[float] = []
    end = time.perf_counter() + job["seconds"]
    while (time.perf_counter() < end or not latencies) and len(latencies) < MAX_SAMPLES:
        latencies.append(_timed(model, inputs))
    return {"first_ms": first, "latencies_ms": latencies}


def _timed(model: Any, inputs: list[Any]) -> float:
    begin = time.perf_counter_ns()
    model.invoke(inputs)
    return (time.perf_counter_ns() - begin) / 1e6


def peak_rss_bytes() -> int:
    """Largest resident set of this process. VmHWM, since ru_maxrss also counts the parent's memory before exec."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_digests(files: list[list[str]]) -> None:
    """Hash every file before a runtime opens one."""
    for path, expected in files:
        with open(path, "rb") as file:
            got = hashlib.sha256(file.read()).hexdigest()
        if got != expected:
            raise Refused(
                f"{os.path.basename(path)} is not the file it was: SHA-256 {got[:12]}, expected {expected[:12]}"
            )


def facts(runtime: str, accelerator: str) -> dict[str, Any]:
    """Give what the kernel tells of this machine, unread, what runs models here, and on which GPU or NPU."""
    found: dict[str, Any] = {name: _text(path) for name, path in FACTS.items()}
    found.update(kernel=platform.release(), arch=platform.machine(), python=platform.python_version())
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found.update(cores=os.cpu_count(), cores_allowed=allowed, load=os.getloadavg())
    versions = {}
    for package in (*PACKAGES[runtime], "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    answer: dict[str, Any] = {"machine": found, "versions": versions, "unusable": "", "adapters": []}
    if set(versions) - {"numpy"}:
        try:
            imported(runtime)
        except Exception as error:
            return {**answer, "unusable": f"{type(error).__name__}: {error}"[:2000]}
        answer["adapters"] = adapters(runtime, accelerator)
    return answer


def imported(runtime: str) -> Any:
    """Import the module of a runtime; of LiteRT, its predecessor's where it is not installed itself."""
    modules: Any = sys.modules
    modules.setdefault("openvino_telemetry", None)  # with it, importing openvino sends usage data
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else ONNX Runtime sends some, and leaves a file with an id
    for name in MODULES[runtime]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error
            if error.name != name.partition(".")[0]:  # it is there, and lacks something
                raise
    raise missing


def adapters(runtime: str, accelerator: str) -> list[dict[str, Any]]:
    """Name the GPUs or NPUs that a runtime has, the one that it takes first, their drivers, and which are software."""
    if runtime == "litert" and accelerator == "gpu":
        return vulkan_adapters()
    if runtime == "openvino" and accelerator != "cpu":
        return openvino_adapters(accelerator.upper())
    return []


def openvino_adapters(device: str) -> list[dict[str, Any]]:
    """Ask OpenVINO for its GPUs or NPUs; it takes the first."""
    openvino = imported("openvino")
    core, found = openvino.Core(), []
    for name in core.available_devices:
        if name.partition(".")[0] == device:
            told = dict.fromkeys(("FULL_DEVICE_NAME", f"{device}_DRIVER_VERSION"), "")
            for key in told:
                with contextlib.suppress(RuntimeError):
                    told[key] = str(core.get_property(name, key))
            full_name, driver = told.values()
            found.append({"name": full_name, "driver": driver, "software": False})
    return found


def vulkan_adapters() -> list[dict[str, Any]]:
    """Ask Vulkan for its devices, those first that WebGPU prefers; none without a loader or a driver."""
    import ctypes

    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return []
    application = ctypes.create_string_buffer(struct.pack("@IPPIPII", 0, 0, 0, 0, 0, 0, VULKAN_1_1))
    create = struct.pack("@IPIPIPIP", 1, 0, 0, ctypes.addressof(application), 0, 0, 0, 0)
    instance, count = ctypes.c_void_p(), ctypes.c_uint32()
    if vulkan.vkCreateInstance(create, None, ctypes.byref(instance)):
        return []
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    devices = (ctypes.c_void_p * count.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
    found = sorted((_vulkan_device(vulkan, device) for device in devices), key=lambda one: one[0])
    vulkan.vkDestroyInstance(instance, None)
    return [one for _, one in found]


def _vulkan_device(vulkan: Any, device: Any) -> tuple[int, dict[str, Any]]:
    """Read a device's place in the order and what it is, from VkPhysicalDeviceProperties2 and ...DriverProperties."""
    import ctypes

    driver, properties = ctypes.create_string_buffer(1024), ctypes.create_string_buffer(4096)
    struct.pack_into("@IP", driver, 0, VULKAN_DRIVER, 0)
    struct.pack_into("@IP", properties, 0, VULKAN_PROPERTIES, ctypes.addressof(driver))
    vulkan.vkGetPhysicalDeviceProperties2(ctypes.c_void_p(device), properties)
    _, version, _, _, kind, name = struct.unpack_from("@5I256s", properties, struct.calcsize("@IP0Q"))
    texts = struct.unpack_from("256s256s", driver, struct.calcsize("@IPI"))
    name, *driver_texts = (text.partition(b"\0")[0].decode("utf-8", "replace") for text in (name, *texts))
    told = " ".join(filter(None, driver_texts)) or "driver"
    one = {"name": name, "driver": f"{told} ({version:#x})", "software": kind == VULKAN_CPU}
    return (VULKAN_KINDS.index(kind) if kind in VULKAN_KINDS else len(VULKAN_KINDS)), one


@contextlib.contextmanager
def native_log(log: list[str]) -> Iterator[None]:
    """Add to `log` what native code writes to stderr in the block; it is passed on afterwards."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            log.append(file.read().decode("utf-8", "replace"))
            sys.stderr.write(log[-1])


def left_on_cpu(log: str) -> str:
    """Word which operators LiteRT's GPU delegate left to the CPU, if its log tells of any.

    It has a line for each, such as "MATRIX_DIAG: Operation is not supported.".
    """
    count = re.search(r"(\d+) operations will run on the CPU", log)
    if not count:
        return ""
    told = log.partition("not supported by GPU delegate:\n")[2].partition(count[0])[0]
    names = sorted(set(re.findall(r"^([A-Z][A-Z0-9_]+): ", told, re.MULTILINE)))
    return f"{count[1]} operators run on the CPU: {', '.join(names) or 'unnamed'}"


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def limit(memory_bytes: int, timeout_seconds: float) -> None:
    """Bound this process's data and time, and die with the parent, where the system can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    except (ImportError, ValueError, OSError):
        pass
    if timeout_seconds:
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds)
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (ImportError, OSError, AttributeError):
        pass


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job and return its answer."""
    check_digests(job["files"])
    images = np.load(job["images"], mmap_mode="r", allow_pickle=False) if job.get("images") else None
    begin = time.perf_counter_ns()
    inside = job["do"] in ("graph", "trace")
    on_gpu = job["runtime"] == "litert" and job.get("accelerator") == "gpu" and not inside
    model: Any = (LiteRTGPU if on_gpu else RUNTIMES[job["runtime"]])(job["files"][0][0], job)
    answer = {"init_ms": (time.perf_counter_ns() - begin) / 1e6, "inputs": model.inputs, "outputs": model.outputs}
    if job["do"] == "predict":
        predict(model, images, job["outputs"])
    elif job["do"] == "trace":
        trace(model, images, job)
    elif job["do"] == "graph":
        answer["operators"] = model.operators()
    else:
        inputs = make_inputs(model.inputs, None if images is None else np.asarray(images[0]))
        if job["do"] == "bench":
            answer.update(bench(model, inputs, job))
        else:
            model.invoke(inputs)
        if hasattr(model, "arena_bytes"):
            answer["arena_bytes"] = model.arena_bytes()
    answer["peak_rss_bytes"] = peak_rss_bytes()
    if job["do"] in ("describe", "predict"):
        answer["executed_precision"] = summarise(model.executed())
    return answer


def main(path: str) -> int:
    """Read the job, do it, write the answer."""
    with open(path) as file:
        job = json.load(file)
    limit(job.get("memory_bytes", 0), job.get("timeout_seconds", 0.0))
    try:
        told = job["do"] == "facts"
        answer, code = facts(job["runtime"], job.get("accelerator", "cpu")) if told else run(job), 0
    except OnCPU as reason:
        answer, code = {"on_cpu": str(reason)}, 3
    except Refused as reason:
        answer, code = {"refused": str(reason)}, 3
    except Exception as error:
        answer, code = {"refused": f"{type(error).__name__}: {error}"[:2000]}, 3
    with open(job["answer"], "w") as file:
        json.dump(answer, file)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
