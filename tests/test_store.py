import json
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.errors import StoreError
from edgecv.store import Step, Store, write_atomically

POINTS = ("started", "computed", "stored", "recorded")


def write(text):
    def work(folder):
        (folder / "out.txt").write_text(text)
        return len(text)

    return work


def never(folder):
    raise AssertionError("a recorded step was done again")


def run_child(root, body, **env):
    code = "from edgecv.store import Step, Store\n" + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code, str(root)], env={**os.environ, **env}, capture_output=True, text=True
    )


def test_a_step_is_done_once_for_equal_inputs(tmp_path):
    store = Store(tmp_path)
    first = store.run(Step("write", {"n": 1}), write("abc"))
    again = Store(tmp_path).run(Step("write", {"n": 1}), never)
    assert (first.reused, again.reused) == (False, True)
    assert (again.value, again.files) == (3, first.files)
    assert store.path(again.files["out.txt"]).read_text() == "abc"


@pytest.mark.parametrize(
    "other",
    [
        Step("other", {"n": 1}, ("a",), {"tool": "1"}),
        Step("step", {"n": 2}, ("a",), {"tool": "1"}),
        Step("step", {"n": 1}, ("b",), {"tool": "1"}),
        Step("step", {"n": 1}, ("a",), {"tool": "2"}),
    ],
)
def test_a_key_depends_on_name_parameters_inputs_and_tools(other):
    assert Step("step", {"n": 1}, ("a",), {"tool": "1"}).key != other.key


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_a_key_does_not_depend_on_the_order_of_parameters(params):
    assert Step("step", params).key == Step("step", dict(reversed(params.items()))).key


def test_work_that_fails_leaves_nothing_recorded(tmp_path):
    store = Store(tmp_path)

    def fail(folder):
        (folder / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.run(Step("fail"), fail)
    assert not any(
        (tmp_path / name).glob("*") for name in ("objects", "steps", "tmp") if any((tmp_path / name).iterdir())
    )
    assert store.run(Step("fail"), write("ok")).value == 2


@pytest.mark.parametrize("phase", POINTS)
def test_a_store_killed_at_any_point_is_whole_and_goes_on(tmp_path, phase):
    body = """
        import sys
        def work(folder):
            (folder / "out.txt").write_text("abc")
            return 3
        print(Store(sys.argv[1]).run(Step("write"), work).reused)
    """
    killed = run_child(tmp_path, body, EDGECV_KILL_AT=f"write:{phase}")
    assert killed.returncode == -9
    assert Store(tmp_path).check() == (1 if phase == "stored" else 2 if phase == "recorded" else 0, ())
    resumed = run_child(tmp_path, body)
    assert resumed.stdout.strip() == str(phase == "recorded"), resumed.stderr
    assert Store(tmp_path).check()[1] == ()


def test_two_processes_with_the_same_step_do_it_once(tmp_path):
    body = """
        import sys, time
        def work(folder):
            time.sleep(0.5)
            return 1
        print(Store(sys.argv[1]).run(Step("slow"), work).reused)
    """
    code = "from edgecv.store import Step, Store\n" + textwrap.dedent(body)
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert sorted(child.communicate()[0].strip() for child in children) == ["False", "True", "True"]


def test_check_finds_a_flipped_bit_and_repair_lets_the_step_be_done_again(tmp_path):
    store = Store(tmp_path)
    done = store.run(Step("write"), write("abc"))
    path = store.path(done.files["out.txt"])
    path.chmod(0o644)
    path.write_bytes(b"abb")
    count, wrong = Store(tmp_path).check()
    assert count == 2
    assert "bytes do not match" in wrong[0]
    Store(tmp_path).check(repair=True)
    assert Store(tmp_path).run(Step("write"), write("abc")).reused is False


def test_a_damaged_object_is_refused_before_it_is_used(tmp_path):
    done = Store(tmp_path).run(Step("write"), write("abc"))
    path = tmp_path / "objects" / done.files["out.txt"]
    path.chmod(0o644)
    path.write_bytes(b"abb")
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path).path(done.files["out.txt"])


def test_a_record_that_was_edited_is_not_used(tmp_path):
    step = Step("write")
    Store(tmp_path).run(step, write("abc"))
    path = tmp_path / "steps" / f"{step.key}.json"
    entry = json.loads(path.read_text())
    entry["record"]["value"] = 4
    path.write_text(json.dumps(entry))
    assert Store(tmp_path).find(step) is None
    assert "record is damaged" in Store(tmp_path).check()[1][0]


def test_gc_keeps_what_a_run_noted_and_removes_the_rest(tmp_path):
    store = Store(tmp_path)
    kept = store.run(Step("keep"), write("keep"))
    store.run(Step("drop"), write("dropped"))
    store.keep(tmp_path, [kept.key])
    files, freed = store.gc()
    assert files == 2
    assert freed > len("dropped")
    assert store.find(Step("keep")) is not None
    assert store.find(Step("drop")) is None
    assert store.check()[1] == ()


def test_gc_drops_what_a_run_was_made_from_once_its_folder_is_gone(tmp_path):
    store = Store(tmp_path / "store")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store.keep(tmp_path / name, [store.run(Step(name), write(name)).key])
    (tmp_path / "one").rmdir()
    assert store.gc()[0] == 2
    assert store.find(Step("one")) is None
    assert store.find(Step("two")) is not None


def test_gc_is_refused_while_a_run_uses_the_store_and_works_after_it_was_killed(tmp_path):
    body = """
        import os, signal, sys
        with Store(sys.argv[1]).in_use():
            print("using", flush=True)
            sys.stdin.read()
    """
    code = "from edgecv.store import Step, Store\n" + textwrap.dedent(body)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "using\n"
        with pytest.raises(StoreError, match="a run is using"):
            Store(tmp_path).gc()
        child.kill()
    assert Store(tmp_path).gc() == (0, 0)


@pytest.mark.parametrize(
    "write", ["(folder / 'big').write_bytes(bytes(5000))", "np.save(folder / 'big.npy', np.zeros(5000))"]
)
def test_a_full_disk_is_an_error_with_the_space_left_and_leaves_no_part(tmp_path, write):
    # A limit on a file's size stands in for the full disk: the same writes fail in the same place.
    body = f"""
        import resource, signal, sys
        import numpy as np
        from edgecv.errors import StoreError
        store = Store(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        def work(folder):
            {write}
        try:
            store.run(Step("big"), work)
        except StoreError as error:
            print(error)
    """
    child = run_child(tmp_path, body)
    assert "MB free" in child.stdout, child.stderr
    assert "store gc" in child.stdout
    assert Store(tmp_path).check() == (0, ())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_with_a_fix(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="can't write") as caught:
        Store(tmp_path / "file" / "store")
    assert "EDGECV_STORE" in caught.value.fix


def test_an_atomic_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
