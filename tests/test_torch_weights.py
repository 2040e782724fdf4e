import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.errors import ModelError
from edgecv.nets.torch_weights import MAGIC, MAX_OPCODES, PROTOCOL, read_tensors

ODICT = b"ccollections\nOrderedDict\n)R"
FACTS = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}
NUMBERS = np.arange(24, dtype="<f4")


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def counts(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(offset=0, size=(24,), stride=(1,), *, key="7", kind="FloatStorage", length=24):
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(length) + b"NtQ"
    rest = number(offset) + counts(size) + counts(stride) + b"\x89" + ODICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def state(**entries):
    return b"\x80\x02" + ODICT + b"(" + b"".join(text(k) + v for k, v in entries.items()) + b"u."


def file_of(pickled, storages=(("7", NUMBERS),), *, facts=FACTS):
    head = pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2) + pickle.dumps(facts, 2)
    keys = pickle.dumps([key for key, _ in storages], 2)
    return head + pickled + keys + b"".join(struct.pack("<q", a.size) + a.tobytes() for _, a in storages)


def read(content, folder):
    path = Path(folder) / "weights.pth"
    path.write_bytes(content)
    return read_tensors(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def test_tensors_come_back_by_name_with_their_numbers_and_types(folder):
    counter = np.array([5], "<i8")
    entries = {"a": tensor(size=(2, 3, 4), stride=(12, 4, 1)), "n": tensor(size=(), stride=(), key="8", length=1)}
    entries["n"] = entries["n"].replace(b"FloatStorage", b"LongStorage")
    got = read(file_of(state(**entries), [("7", NUMBERS), ("8", counter)]), folder)
    np.testing.assert_array_equal(got["a"], NUMBERS.reshape(2, 3, 4))
    assert got["a"].dtype == np.float32
    assert (got["n"].dtype, got["n"].shape, int(got["n"])) == (np.int64, (), 5)


def test_the_arrays_are_read_only(folder):
    got = read(file_of(state(a=tensor())), folder)
    with pytest.raises(ValueError, match="read-only"):
        got["a"][0] = 1


def test_metadata_set_on_the_dictionary_is_admitted_and_ignored(folder):
    pickled = state(a=tensor())[:-1] + b"}" + text("_metadata") + ODICT + b"sb."
    assert list(read(file_of(pickled), folder)) == ["a"]


class _Call:
    def __init__(self, function, *arguments):
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("where", ["alone", "inside"])
def test_a_call_of_os_system_is_refused_by_name_and_does_not_run(protocol, where, tmp_path):
    import os

    call = _Call(os.system, f"touch {tmp_path}/ran")
    hostile = pickle.dumps(call if where == "alone" else {"a": [({"b": call},)]}, protocol)
    with pytest.raises(ModelError) as error:
        read(file_of(hostile), tmp_path)
    assert error.value.got in ("posix.system", "nt.system")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "load"),
        ("torch.nn", "Module"),
        ("torch._utils", "_rebuild_tensor"),
        ("edgecv.nets.torch_weights", "_Tensor"),
        ("numpy", "load"),
    ],
)
def test_any_other_global_is_refused_by_name(module, name, folder):
    with pytest.raises(ModelError, match="asks for code") as error:
        read(file_of(state(a=f"c{module}\n{name}\n".encode())), folder)
    assert error.value.got == f"{module}.{name}"


def test_a_global_in_the_list_of_storages_is_refused(folder):
    head = file_of(state(a=tensor()))
    content = head[: head.rindex(b"\x80\x02")] + b"\x80\x02cbuiltins\neval\n."
    with pytest.raises(ModelError, match="asks for code"):
        read(content, folder)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (25,), (1,)),
        (1, (24,), (1,)),
        (-1, (4,), (1,)),
        (23, (2,), (-1,)),
        (0, (-2, -12), (1, 1)),
        (0, (2, 2), (23, 1)),
        (0, (1 << 40,), (0,)),
        (0, (1 << 62, 1 << 62), (1, 1)),
        (0, (4, 4), (1,)),
        (25, (1,), (1,)),
        (0, (True,), (1,)),
        (0, (0,), (1,)),
        (0, (1,) * 9, (1,) * 9),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(offset, size, stride, folder):
    with pytest.raises(ModelError, match="tensor"):
        read(file_of(state(a=tensor(offset, size, stride))), folder)


def test_attributes_set_on_a_tensor_after_it_was_made_are_refused(folder):
    change = b"}" + text("size") + counts((1 << 20,)) + b"sb"
    slots = b"N}" + text("size") + counts((1 << 20,)) + b"s\x86b"
    for attack in (change, slots):
        with pytest.raises(ModelError, match="damaged"):
            read(file_of(state(a=tensor() + attack)), folder)


def test_attributes_set_on_the_stand_ins_are_refused(folder):
    attack = b"ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__call__") + b"Ns\x86b"
    with pytest.raises(ModelError, match="damaged"):
        read(file_of(state(a=attack)), folder)


def test_a_method_replaced_on_the_dictionary_is_not_called(folder):
    pickled = state(a=tensor())[:-1] + b"}" + text("items") + b"Nsb."
    assert list(read(file_of(pickled), folder)) == ["a"]


@pytest.mark.parametrize(
    "attack",
    [
        b"}" + b")" + b"\x85" * 400_000 + b"Ns",  # a key that overflows the stack when hashed
        b"N" + b"r" + struct.pack("<I", 2**32 - 1),  # a memo of 64 GB
        b"\x96" + struct.pack("<Q", 2**50),  # a byte array of 1 PB
    ],
    ids=["nesting", "memo", "length"],
)
def test_a_pickle_that_asks_for_too_much_memory_or_stack_is_refused(attack, folder):
    with pytest.raises(ModelError):
        read(file_of(b"\x80\x02" + attack + b"."), folder)


def test_the_bound_on_opcodes_leaves_room_for_a_thousand_tensors(folder):
    one = tensor()
    assert len(read(file_of(state(**{f"t{i}": one for i in range(1000)})), folder)) == 1000
    assert MAX_OPCODES <= 100_000  # nesting of 200,000 is where the C stack ends


def test_a_storage_that_claims_more_numbers_than_the_file_has_is_refused(folder):
    with pytest.raises(ModelError, match="cut short"):
        read(file_of(state(a=tensor(length=1 << 50))), folder)


def test_bytes_after_the_last_storage_are_refused(folder):
    with pytest.raises(ModelError, match="after the last storage"):
        read(file_of(state(a=tensor())) + b"x", folder)


def test_a_storage_that_no_tensor_uses_is_refused(folder):
    with pytest.raises(ModelError, match="list of storages"):
        read(file_of(state(a=tensor()), [("7", NUMBERS), ("8", NUMBERS)]), folder)


def test_a_file_from_a_big_endian_machine_is_refused(folder):
    with pytest.raises(ModelError, match="little-endian"):
        read(file_of(state(a=tensor()), facts=FACTS | {"little_endian": False}), folder)


@pytest.mark.parametrize("value", [[1], {"a": 1}, "text", None])
def test_anything_but_a_state_dictionary_is_refused(value, folder):
    with pytest.raises(ModelError, match="state dictionary"):
        read(file_of(pickle.dumps(value, 2)), folder)


def test_a_zip_is_refused_with_the_reason(folder):
    with pytest.raises(ModelError, match=r"since 1\.6"):
        read(b"PK\x03\x04" + bytes(50), folder)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="can't read"):
        read_tensors(tmp_path / "none.pth")


def test_a_file_cut_short_anywhere_is_refused(folder):
    content = file_of(state(a=tensor(), b=tensor(4, (3,), (2,))))
    for length in range(len(content)):
        with pytest.raises(ModelError):
            read(content[:length], folder)


@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_values_only(folder, position, value):
    content = bytearray(file_of(state(a=tensor(), b=tensor(4, (3,), (2,)))))
    content[position % len(content)] = value
    try:
        got = read(bytes(content), folder)
    except ModelError:
        return
    assert all(array.size <= NUMBERS.size for array in got.values())


@given(pickled=st.binary(max_size=200))
def test_random_bytes_never_end_in_another_error(folder, pickled):
    with pytest.raises(ModelError):
        read(file_of(pickled), folder)


extents = st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 13)), max_size=4)


@given(offset=st.integers(-1, 26), dimensions=extents)
def test_a_view_is_refused_or_equals_its_definition(folder, offset, dimensions):
    size, stride = [d[0] for d in dimensions], [d[1] for d in dimensions]
    try:
        got = read(file_of(state(a=tensor(offset, size, stride))), folder)["a"]
    except ModelError:
        return
    expected = [NUMBERS[offset + int(np.dot(index, stride))] for index in np.ndindex(*size)]
    assert got.shape == tuple(size)
    assert got.ravel().tolist() == expected
