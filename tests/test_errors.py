from __future__ import annotations

import pickle

import pytest

from edgecv import errors
from edgecv.errors import ConfigError, DeviceError, EdgecvError, EnvError, MissingError, UsageError

ALL = [getattr(errors, name) for name in errors.__all__]


def test_an_error_prints_what_got_expected_and_fix_a_line_each() -> None:
    error = ConfigError("x.toml: unknown key sise", got="sise = 224", expected="size", fix="did you mean size?")
    assert str(error).splitlines() == [
        "x.toml: unknown key sise",
        "  got:      sise = 224",
        "  expected: size",
        "  fix:      did you mean size?",
    ]


def test_an_error_leaves_out_the_lines_it_has_nothing_for() -> None:
    assert str(EdgecvError("the disk is full", fix="free 2 GB")) == "the disk is full\n  fix:      free 2 GB"


@pytest.mark.parametrize(("kind", "code"), [(EdgecvError, 4), (UsageError, 2), (EnvError, 3)])
def test_each_branch_of_the_tree_has_its_exit_code(kind: type[EdgecvError], code: int) -> None:
    assert {child.exit_code for child in kind.__subclasses__() if kind is not EdgecvError} <= {code}
    assert kind.exit_code == code


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_drawn_in_the_tree_with_its_exit_code(kind: type[EdgecvError]) -> None:
    drawn = next(line for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line.split())
    assert str(kind.exit_code) in drawn.split()


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_caught_as_an_edgecv_error(kind: type[EdgecvError]) -> None:
    with pytest.raises(EdgecvError, match="what failed"):
        raise kind("what failed")


def test_an_error_keeps_its_four_lines_on_the_way_from_a_child_process() -> None:
    error = MissingError("TensorFlow is not installed", got="no tensorflow", expected="2.21", fix="pip install it")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_error_from_another_keeps_it() -> None:
    cause = TimeoutError("60 s")
    with pytest.raises(DeviceError) as caught:
        raise DeviceError("the runtime hung") from cause
    assert caught.value.__cause__ is cause
