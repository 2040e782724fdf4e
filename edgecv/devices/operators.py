"""What a target says that it has, held against a file before it runs there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv.devices.device import Device, ask
from edgecv.errors import UnfitError

__all__ = ["check_operators", "not_integer"]

EIGHT_BITS = ("int8", "uint8")
# What an accelerator is there for: in float it would all be the CPU's.
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
NAMED = 4  # of the operators at fault


def check_operators(device: Device, files: tuple[Path, ...], digests: tuple[str, ...] | None = None) -> None:
    """Refuse a file with an operator that the target lacks, or that Coral's Edge TPU would compute in float.

    Raises:
        UnfitError: there is one; the error names it.
        MissingError, DeviceError: the file could not be looked at.
    """
    target = device.target
    if not target.operators and target.accelerator != "edgetpu":
        return
    graph = ask(device, files, do="graph", digests=digests)
    kinds = {one["kind"] for one in graph["operators"]}
    if target.operators and (lacking := sorted(kinds - set(target.operators))):
        raise UnfitError(f"{target.name} has no {', '.join(lacking)}", got=files[0].name)
    if target.accelerator == "edgetpu" and (found := tuple(not_integer(graph))):
        more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise UnfitError(f"{target.name} computes in 8 bits alone", got=", ".join(found[:NAMED]) + more)


def not_integer(graph: Mapping[str, Any]) -> Iterator[str]:
    """Name what is not in 8 bits though the Edge TPU would have to run it.

    An operator behind the last DEQUANTIZE runs on the CPU; it may be a softmax, but none with weights.
    Source: Coral, "TensorFlow models on the Edge TPU", model requirements: after the first operator that it does not
    run, all are the CPU's.
    """
    operators: Sequence[Mapping[str, Any]] = graph["operators"]
    ends = [place for place, one in enumerate(operators) if one["kind"] == "DEQUANTIZE"]
    last = max(ends, default=len(operators))
    for spec in graph["inputs"]:
        if spec["dtype"] not in EIGHT_BITS:
            yield f"input {spec['name']} is {spec['dtype']}"
    for place, one in enumerate(operators):
        if one["dtype"] not in EIGHT_BITS and (place < last or one["kind"] in WEIGHTED):
            yield f"{one['kind']} {one['name'].rpartition(';')[2]} is {one['dtype']}"  # of layers fused, the last
