"""A target: one TOML file that says what a device runs, how to reach it, and how long to measure."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from edgecv.config import NAME, Config, read
from edgecv.errors import ConfigError

__all__ = ["Chip", "Measure", "Npu", "Precision", "RuntimeName", "Target", "TargetLimits", "Tool", "load_target"]

RuntimeName = Literal["litert", "openvino", "onnxruntime", "tflm"]
Precision = Literal["float32", "float16", "int8", "int16x8", "int8-dynamic", "int8-weights"]
# Ethos-U by its multiply-accumulates in a cycle, as Arm's compiler names them.
EthosU = Literal[
    "ethos-u55-32",
    "ethos-u55-64",
    "ethos-u55-128",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u65-512",
    "ethos-u85-128",
    "ethos-u85-256",
    "ethos-u85-512",
    "ethos-u85-1024",
    "ethos-u85-2048",
]
ETHOS: tuple[str, ...] = get_args(EthosU)
# Which runtimes run on more than a CPU, and what is reached by which transport.
ACCELERATORS = {
    "gpu": ("litert", "openvino"),
    "npu": ("openvino",),
    "nnapi": ("litert",),
    "edgetpu": ("litert",),
    **dict.fromkeys(ETHOS, ("tflm",)),
}
REACHED = {
    **dict.fromkeys(("local", "ssh"), ("cpu", "gpu", "npu")),
    "emulated": ("cpu",),
    "browser": ("cpu", "gpu"),
    "adb": ("cpu", "gpu", "nnapi"),
    "reference": ("cpu", "edgetpu", *ETHOS),
}
# The runtime of those that have one alone.
ONLY_RUNTIME = dict.fromkeys(("emulated", "browser", "adb"), "litert")


class TargetLimits(Config):
    """What a variant may cost on this target; a limit that is left out does not apply."""

    max_latency_ms: float | None = Field(None, gt=0.0)
    max_size_bytes: int | None = Field(None, gt=0)
    max_memory_bytes: int | None = Field(None, gt=0)


class Npu(Config):
    """What Arm's compiler takes for given of an Ethos-U and what is around it: names of its own configurations.

    `system_config`: clock and memories. `memory_mode`: what lies in which.
    """

    system_config: str = Field("", pattern=r"^\w*$")
    memory_mode: str = Field("", pattern=r"^\w*$")


class Measure(Config):
    """How long to measure: `processes` fresh processes for each file, `seconds` of steady invocations in each."""

    processes: int = Field(12, ge=1, le=200)
    seconds: float = Field(1.0, gt=0.0, le=600.0)
    warmup_seconds: float = Field(0.3, ge=0.0, le=60.0)
    timeout_seconds: float = Field(300.0, gt=0.0, le=86_400.0)
    memory_bytes: int = Field(8_000_000_000, gt=0, le=2**50)


class Chip(Config):
    """Facts of a device, from its maker: `source` says where they stand.

    `units`: what its processor computes fast, besides float32, such as "int8 dot product" or "float16". A target may
    not ask for more threads than it has cores, nor a version take more memory than its RAM.
    """

    cores: int = Field(ge=1)
    ram_bytes: int = Field(gt=0)
    units: tuple[str, ...] = ()
    source: str = Field(min_length=8)


class Tool(Config):
    """Google's benchmark_model, which measures over adb: a path or an address, and its SHA-256."""

    source: str = ""
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")


class Target(Config):
    """One target file.

    `accelerator`: what all of a model runs on; nothing falls back to the CPU. `precision`: what the runtime is asked to
    run float layers in; what it did is read back.
    `transport`: how the device is reached: "local", this machine; "ssh", the board `host`, which is an entry of
    ~/.ssh/config or user@host, and the target's own name where it is left out; "emulated", the processor `host`;
    "browser", a page in Chromium on this machine; "adb", the device with the serial `host`, or the only one attached;
    "reference", not at all: kernels here compute what it would.
    `granularity`: how calibrated files are built, with a scale for each channel of a kernel or one for the kernel.
    `precisions`, `operators`: all that it has, operators by their names in TFLite; no bound where there are none.
    """

    name: str = Field(pattern=NAME)
    summary: str = ""
    runtime: RuntimeName
    accelerator: Literal["cpu", "gpu", "npu", "nnapi", "edgetpu"] | EthosU = "cpu"
    transport: Literal["local", "ssh", "emulated", "browser", "adb", "reference"] = "local"
    host: str = ""
    threads: int = Field(1, ge=1, le=256)
    precision: Literal["float32", "default"] = "float32"
    granularity: Literal["channel", "tensor"] = "channel"
    precisions: tuple[Precision, ...] = ()
    operators: tuple[str, ...] = ()
    npu: Npu = Npu()
    limits: TargetLimits = TargetLimits()
    measure: Measure = Measure()
    chip: Chip | None = None
    benchmark_model: Tool = Tool()

    @model_validator(mode="after")
    def _fits_its_chip(self) -> Target:
        if self.chip and self.threads > self.chip.cores:
            raise ValueError(f"threads = {self.threads}, and the chip has {self.chip.cores} cores")
        return self

    @model_validator(mode="after")
    def _within_reach(self) -> Target:
        accelerator, transport = self.accelerator, self.transport
        if accelerator not in REACHED[transport]:
            raise ValueError(f'accelerator = "{accelerator}" is not reached by transport = "{transport}"')
        own = "tflm" if (transport, accelerator) == ("reference", "cpu") else self.runtime
        if self.runtime != (only := ONLY_RUNTIME.get(transport, own)):
            raise ValueError(f'transport = "{transport}" takes runtime = "{only}"')
        if accelerator in ETHOS and not (self.npu.system_config and self.npu.memory_mode):
            raise ValueError(f"accelerator {accelerator} needs npu.system_config and npu.memory_mode")
        return self

    @field_validator("accelerator")
    @classmethod
    def _one_that_the_runtime_has(cls, value: str, info: ValidationInfo) -> str:
        runtimes = ACCELERATORS.get(value)
        if runtimes and "runtime" in info.data and info.data["runtime"] not in runtimes:
            raise ValueError(f"cpu, or runtime {' or '.join(runtimes)}")
        return value


def load_target(path: str | Path) -> Target:
    """Read a target file.

    Raises:
        ConfigError: it can't be read, has an unknown, missing or ill-typed key, or its name is not the file's.
    """
    path = Path(path)
    target = read(path, Target)
    if target.name != path.stem:
        raise ConfigError(
            f"{path}: the name is not the file's", got=target.name, expected=path.stem, fix="rename one of them"
        )
    return target
