"""Read a state dictionary that PyTorch saved, without PyTorch and without running what is in the file.

The format before PyTorch 1.6, in one file: five pickles (magic number, protocol version, machine facts, the state
dictionary, the keys of the storages), then each storage as an int64 count and its raw little-endian numbers.

A pickle is a program. Here it can do four things: make an ordered dictionary, describe a tensor, name a storage type
and point to a storage. Any other name is refused before it is looked up, and nothing is allocated on the file's word
alone: a tensor is a read-only view into the bytes that were read.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import ModelError

__all__ = ["read_tensors"]

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_BYTES = 2**30
# Hashing tuples nested 200,000 deep overflows the C stack, and a large memo index allocates gigabytes: a bound on the
# opcodes bounds both. EfficientNet-Lite2, the largest file there is a package of, takes 13,931.
MAX_OPCODES = 50_000

STORAGES = {
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}


# Both are tuples and not dataclasses, because a pickle can set the attributes even of a frozen instance.
class _Storage(NamedTuple):
    """A run of numbers in the file, by the key it is listed under."""

    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    """A tensor as the pickle describes it: offset and strides count elements, not bytes."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _MakeDict:
    """Stand in for collections.OrderedDict, and make an empty one only: no copies."""

    __slots__ = ()

    def __call__(self) -> OrderedDict[str, Any]:
        return OrderedDict()


class _MakeTensor:
    """Stand in for torch._utils._rebuild_tensor_v2. Without attributes, so that a pickle can't set any."""

    __slots__ = ()

    def __call__(
        self, storage: object, offset: object, size: object, stride: object, requires_grad: object, hooks: object
    ) -> _Tensor:
        if isinstance(storage, _Storage) and type(offset) is int and _is_counts(size) and _is_counts(stride):
            return _Tensor(storage, offset, size, stride)
        raise _refusal("not a tensor: a storage, an offset, sizes and strides", got=repr((offset, size, stride))[:200])


class _Unpickler(pickle.Unpickler):
    """Admit ordered dictionaries, tensors and storage types; refuse any other global by name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _MakeDict()
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _MakeTensor()
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise _refusal("a pickle that asks for code", got=f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(dtype), str(key), str(), int(count), None) if (
                dtype in STORAGES.values() and count >= 0
            ):
                return _Storage(key, dtype, count)
        raise _refusal("a pointer that is not to a storage", got=repr(pid)[:200])


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read the tensors of a `.pth` file by name, as read-only arrays.

    Raises:
        ModelError: the file is not in this format, is damaged or cut short, or holds anything but named tensors.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _refusal("a file that is too large", got=f"{path.stat().st_size} bytes")
        return _read(path.read_bytes())
    except ModelError as error:
        raise ModelError(f"{path}: {error.what}", got=error.got, expected=error.expected, fix=error.fix) from error
    except OSError as error:
        raise ModelError(f"can't read {path}", got=error.strerror or str(error), fix="check the path") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        cause = _refusal("a damaged file", got=f"{type(error).__name__}: {error}"[:200])
        raise ModelError(f"{path}: {cause.what}", got=cause.got, expected=cause.expected, fix=cause.fix) from error


def _read(content: bytes) -> dict[str, NDArray[Any]]:
    if content.startswith(b"PK"):
        raise _refusal("a zip, the PyTorch format since 1.6", got=repr(content[:4]))
    stream = io.BytesIO(content)
    if _load(stream) != MAGIC or _load(stream) != PROTOCOL:
        raise _refusal("not a PyTorch file", got=repr(content[:16]))
    facts, state, keys = _load(stream), _load(stream), _load(stream)
    if type(facts) is not dict or facts.get("little_endian") is not True:
        raise _refusal("not from a little-endian machine", got=type(facts).__name__)
    tensors = _tensors(state)
    storages = _storages(content[stream.tell() :], {tensor.storage for tensor in tensors.values()}, keys)
    return {name: _view(tensor, storages[tensor.storage]) for name, tensor in tensors.items()}


def _load(stream: io.BytesIO) -> Any:
    """Read one pickle, and leave the stream at its end."""
    start = stream.tell()
    _check_opcodes(stream)
    stream.seek(start)
    return _Unpickler(stream).load()


def _check_opcodes(stream: io.BytesIO) -> None:
    """Walk one pickle without running it, and refuse what would take memory or stack out of proportion."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_OPCODES:
            raise _refusal("a pickle that is too long", got=f"over {MAX_OPCODES} opcodes")
        if "PUT" in opcode.name and isinstance(argument, int) and argument > MAX_OPCODES:
            raise _refusal("a pickle with an absurd memo", got=f"{opcode.name} {argument}")


def _tensors(state: object) -> dict[str, _Tensor]:
    if not isinstance(state, OrderedDict):
        raise _refusal("not a state dictionary", got=type(state).__name__)
    tensors = dict(dict.items(state))  # the file may have set an attribute called items
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _refusal("a state dictionary that holds more than named tensors", got=type(tensor).__name__)
    return tensors


def _storages(content: bytes, wanted: set[_Storage], keys: object) -> dict[_Storage, NDArray[Any]]:
    """Read the numbers behind the pickles: every storage that is wanted, and not a byte more."""
    by_key = {storage.key: storage for storage in wanted}
    if not isinstance(keys, list) or len(by_key) != len(wanted) or sorted(keys) != sorted(by_key):
        raise _refusal("a list of storages that is not the tensors' own", got=f"{len(wanted)} storages in use")
    storages, position = {}, 0
    for key in keys:
        storage = by_key[key]
        stop = position + 8 + storage.length * np.dtype(storage.dtype).itemsize
        count = int.from_bytes(content[position : position + 8], "little", signed=True)
        if stop > len(content) or count != storage.length:
            raise _refusal("a storage that is cut short", got=f"{count} numbers", expected=f"{storage.length} numbers")
        storages[storage] = np.frombuffer(content[position + 8 : stop], storage.dtype)
        position = stop
    if position != len(content):
        raise _refusal("bytes after the last storage", got=f"{len(content) - position} bytes")
    return storages


def _is_counts(values: object) -> TypeGuard[tuple[int, ...]]:
    """Whether these are at most 8 integers, none of them a truth value."""
    return type(values) is tuple and len(values) <= 8 and all(type(value) is int for value in values)


def _view(tensor: _Tensor, numbers: NDArray[Any]) -> NDArray[Any]:
    """View a storage as a tensor that stays inside it and does not repeat its numbers to grow larger than it."""
    storage, offset, size, stride = tensor
    fits = len(size) == len(stride) and min(offset, *size, *stride, 0) == 0 and math.prod(size) <= storage.length
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=False))
    if not fits or 0 in size or last >= storage.length:
        raise _refusal(
            "a tensor outside its storage, or empty",
            got=f"offset {offset}, size {size}, stride {stride}"[:200],
            expected=f"within {storage.length} numbers",
        )
    strides = [step * numbers.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(numbers[offset:], size, strides, writeable=False)


def _refusal(
    what: str, *, got: str, expected: str = "named tensors, as torch.save wrote them before 1.6"
) -> ModelError:
    return ModelError(what, got=got, expected=expected, fix="install the package that the file came in again")
