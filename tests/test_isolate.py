import os
import sys
import time

import psutil

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
    child = python(code, timeout=2.0)
    assert child.problem == "hung: no answer in 2 s"
    assert child.seconds < 10
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
