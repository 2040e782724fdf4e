"""The form of what a device tells, of itself and of a model: nothing of it is believed before it has this form."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from edgecv import worker
from edgecv.config import Config
from edgecv.errors import DeviceError
from edgecv.target import Target

__all__ = ["FORMS", "Told", "form_of", "hold"]

Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Bytes = Annotated[int, Field(ge=0, le=2**50)]
Milliseconds = Annotated[float, Field(ge=0.0, le=86_400_000.0)]  # a day
Latency = Annotated[Milliseconds, Field(ge=1e-6)]  # the worker's clock counts nanoseconds
Load = Annotated[float, Field(ge=0.0, le=1e6)]


class Told(Config):
    """What each answer may hold: why there is no other. Keys that edgecv does not read are let through."""

    model_config = ConfigDict(extra="ignore")

    refused: Text = ""
    on_cpu: Text = ""


class _Tensor(Told):
    name: Text
    shape: tuple[Annotated[int, Field(ge=-1, le=2**31)], ...]
    dtype: Text


class _Image(_Tensor):
    dtype: Literal["uint8", "float32"]


class _Operator(_Tensor):
    kind: Text
    id: Count
    inputs: tuple[Count, ...]
    scale: float = 0.0


class _Described(Told):
    executed_precision: Text | None
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    arena_bytes: Bytes | None = None


class _Predicted(_Described):
    inputs: tuple[_Image]
    outputs: tuple[_Tensor, ...] = Field(min_length=1)


class _Cost(Told):
    """What is known of a device that does not time, or is not reached."""

    init_ms: Milliseconds | None
    first_ms: Milliseconds | None
    latencies_ms: tuple[Latency, ...] = Field(max_length=worker.MAX_SAMPLES)
    peak_rss_bytes: Bytes | None
    arena_bytes: Bytes | None = None
    flash_bytes: Bytes | None = None
    left: tuple[tuple[Text, Text], ...] = ()


class _Measured(_Cost):
    init_ms: Milliseconds
    first_ms: Milliseconds
    latencies_ms: tuple[Latency, ...] = Field(min_length=1, max_length=worker.MAX_SAMPLES)


class _Graph(Told):
    inputs: tuple[_Tensor, ...]
    operators: tuple[_Operator, ...]


class _Machine(Told):
    """What `host.facts` gives, and the accelerator."""

    os: Text | None = None
    kernel: Text | None = None
    arch: Text | None = None
    python: Text | None = None
    cpu: Text | None = None
    cores_physical: Count | None = None
    cores_logical: Count | None = None
    cores_usable: Annotated[float, Field(ge=0.0, le=2**31)] | None = None
    flags: tuple[Text, ...] = ()
    memory_bytes: Bytes | None = None
    governor: Text | None = None
    virtualization: Text | None = None
    load_average: tuple[Load, ...] = Field((), max_length=3)
    accelerator: Text | None = None
    accelerator_driver: Text | None = None


class _Facts(Told):
    machine: _Machine
    versions: dict[Text, Text]


FORMS: dict[str, type[Told]] = {
    "describe": _Described,
    "predict": _Predicted,
    "bench": _Measured,
    "graph": _Graph,
    "trace": Told,
    "facts": _Facts,
}
T = TypeVar("T", bound=Told)


def form_of(do: str, target: Target) -> type[Told]:
    """Give the form of an answer to a job; what stands for a microcontroller times nothing."""
    return _Cost if (do, target.transport) == ("bench", "reference") else FORMS[do]


def hold(told: Mapping[str, Any], form: type[T], *, who: str) -> T:
    """Hold what `who` told to its form, and read it.

    Raises:
        DeviceError: a key is missing, of another type, out of its bounds, or no text that can be written.
    """
    try:
        # Through JSON, as a file of the user's (see `config.read`): it has no lone halves of a character.
        return form.model_validate_json(_text(told))
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{who} answered what can't be read"
        if not first["loc"]:
            raise DeviceError(what, got=first["msg"]) from error
        got = "nothing" if first["type"] == "missing" else repr(first["input"])[:60]
        expected = first["msg"].removeprefix("Input should be ")
        raise DeviceError(f"{what}: {'.'.join(map(str, first['loc']))}", got=got, expected=expected) from error


def _text(told: Mapping[str, Any]) -> str:
    with contextlib.suppress(RecursionError):  # no answer is nested as deep as that
        return json.dumps(told)
    return ""
