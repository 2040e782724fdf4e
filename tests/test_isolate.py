import os
import sys
import time
import tracemalloc

import psutil
import pytest

from edgecv import isolate
from edgecv.isolate import run_child


def python(code, timeout=20.0, **env):
    return run_child([sys.executable, "-c", code], timeout_seconds=timeout, env=env)


def test_a_child_that_ends_well_has_no_problem():
    child = python("print('out'); import sys; print('err', file=sys.stderr)")
    assert (child.problem, child.stdout, child.stderr) == (None, "out\n", "err\n")


def test_a_crash_is_named_by_its_signal_and_takes_down_only_the_child():
    assert python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").problem == "crashed: SIGSEGV"


def test_an_exit_code_is_named():
    assert python("raise SystemExit(7)").problem == "failed: exit code 7"


def test_a_child_that_hangs_is_killed_with_its_children():
    sleep = "import time; time.sleep(60)"
    code = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {sleep!r}]).pid, flush=True); {sleep}"
    )
    child = python(code, timeout=5.0)
    assert child.problem == "hung: no answer in 5 s"
    assert child.seconds < 15
    grandchild = int(child.stdout)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(grandchild) and psutil.Process(grandchild).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_environment_is_added_to():
    assert (
        python("import os; print(os.environ['A'], 'PATH' in os.environ)", A="b").stdout == f"b {'PATH' in os.environ}\n"
    )


def test_a_flood_on_stderr_is_cut_to_its_end():
    child = python("import sys; sys.stderr.write('x' * 10_000_000 + 'the end')")
    assert child.stderr.endswith("the end")
    assert len(child.stderr) < 10_000


def test_a_flood_is_not_kept_in_memory():
    tracemalloc.start()
    try:
        child = python("import os\nfor _ in range(50): os.write(1, bytes(1_000_000))\nos.write(1, b'the end')")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert child.stdout.endswith("the end")
    assert most < 5_000_000


LEAVE = "import subprocess, sys; subprocess.Popen(['sleep', '20'], start_new_session={new}); print('done', flush=True)"


def test_a_process_that_a_child_leaves_behind_does_not_make_it_hang(monkeypatch):
    monkeypatch.setattr(isolate, "REST_SECONDS", 0.5)
    child = python(LEAVE.format(new=False), timeout=15.0)
    assert (child.problem, child.hung, child.stdout) == (None, False, "done\n")


def test_what_a_child_that_hangs_left_in_a_session_of_its_own_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(isolate, "REST_SECONDS", 0.5)
    child = python(LEAVE.format(new=True) + "; import time; time.sleep(20)", timeout=5.0)
    assert (child.problem, child.hung, child.stdout) == ("hung: no answer in 5 s", True, "done\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the files of another process")
@pytest.mark.parametrize("grandchild", [False, True])
def test_a_child_that_writes_more_than_it_may_is_ended(tmp_path, grandchild):
    argv = ["sh", "-c", f"sleep 0.5; {'' if grandchild else 'exec '}head -c 3000000 /dev/zero >{tmp_path}/file"]
    child = run_child(argv, timeout_seconds=20.0, file_bytes=1_000_000)
    assert (tmp_path / "file").stat().st_size == 1_000_000
    assert child.problem == ("failed: exit code 153" if grandchild else "sent more than 1000000 bytes")
