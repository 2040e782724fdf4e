from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from edgecv.config import Config, listing, locate, read
from edgecv.errors import ConfigError

settings.load_profile("ci")  # the same examples each time, and no deadline on a busy machine


class Inner(Config):
    """A table."""

    width: int = Field(1, ge=1)
    mode: Literal["crop", "stretch"] = "crop"
    rate: float = 0.5


class Outer(Config):
    """A file."""

    name: str
    inner: Inner = Inner()
    sides: tuple[int, ...] = ()
    steps: dict[str, tuple[str, ...]] = Field(default_factory=dict)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outer.toml"


def refusal(file: Path, text: str | bytes) -> ConfigError:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read(file, Outer)
    return caught.value


def test_a_file_is_read_into_its_value(file: Path) -> None:
    file.write_text('name = "a"\nsides = [1, 2]\n[inner]\nwidth = 3\nrate = 1\n[steps]\nint8 = ["int8"]\n')
    assert read(file, Outer) == Outer(name="a", sides=(1, 2), inner=Inner(width=3, rate=1.0), steps={"int8": ("int8",)})


def test_a_value_can_not_be_changed_after() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Inner().width = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ('name = "a"\n[inner]\nwdith = 3\n', "inner.wdith", "width"),
        ('name = "a"\nsidse = [1]\n', "sidse", "sides"),
        ('nmae = "a"\n', "nmae", "name"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest_right_name(file: Path, text: str, key: str, near: str) -> None:
    error = refusal(file, text)
    assert error.what.startswith(f"{file}: unknown key {key}")
    assert near in error.expected
    assert error.fix == f"did you mean {near}?"


def test_an_unknown_key_like_no_other_is_to_be_removed(file: Path) -> None:
    error = refusal(file, 'name = "a"\nzzz = 1\n')
    assert error.expected == "one of inner, name, sides, steps"
    assert (error.got, error.fix) == ("zzz = 1", "remove zzz")


def test_a_missing_key_is_named(file: Path) -> None:
    error = refusal(file, "sides = [1]\n")
    assert error.what == f"{file}: key name is missing"
    assert error.fix == "add name = ..."


@pytest.mark.parametrize(
    ("text", "key", "got", "expected"),
    [
        ("name = 1", "name", "1 (int)", "a valid string"),
        ("name = 2026-01-31", "name", "{'date': '2026-01-31'} (dict)", "a valid string"),
        ('name = "a"\ninner = 3', "inner", "3 (int)", "a table"),
        ('name = "a"\n[inner]\nwidth = "3"', "inner.width", "'3' (str)", "a valid integer"),
        ('name = "a"\n[inner]\nwidth = true', "inner.width", "True (bool)", "a valid integer"),
        ('name = "a"\n[inner]\nwidth = 0', "inner.width", "0 (int)", "greater than or equal to 1"),
        ('name = "a"\n[inner]\nrate = nan', "inner.rate", "nan (float)", "a finite number"),
        ('name = "a"\n[inner]\nrate = -inf', "inner.rate", "-inf (float)", "a finite number"),
        ('name = "a"\nsides = [1, 2.5]', "sides.1", "2.5 (float)", "a valid integer"),
    ],
)
def test_an_ill_typed_value_is_refused_with_its_key(file: Path, text: str, key: str, got: str, expected: str) -> None:
    error = refusal(file, text)
    assert error.what == f"{file}: wrong value for {key}"
    assert (error.got, error.expected, error.fix) == (got, expected, f"correct {key}")


def test_a_misspelt_choice_is_refused_with_the_nearest_right_one(file: Path) -> None:
    error = refusal(file, 'name = "a"\n[inner]\nmode = "crpo"')
    assert error.expected == "'crop' or 'stretch'"
    assert error.fix == "did you mean crop?"


def test_the_other_complaints_are_counted(file: Path) -> None:
    assert refusal(file, "name = 1\nsides = 2\nzzz = 3").what.endswith("unknown key zzz (2 more)")


def test_a_long_value_is_cut_short(file: Path) -> None:
    assert len(refusal(file, f"name = [{', '.join(['1'] * 500)}]").got) < 80


@pytest.mark.parametrize("text", ["name = ", b"\xff\xfe", "a = " + "[" * 5000, "name = 'a'\nname = 'b'"])
def test_a_file_that_is_not_toml_is_refused(file: Path, text: str | bytes) -> None:
    assert refusal(file, text).what == f"{file} is not TOML"


def test_an_absent_file_is_refused_with_its_path(file: Path) -> None:
    with pytest.raises(ConfigError, match="can't read") as caught:
        read(file, Outer)
    assert str(file) in caught.value.what


def test_a_folder_is_refused_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read"):
        read(tmp_path, Outer)


tables = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["inner", "width", "x"]), inner),
    max_leaves=8,
)


def as_toml(value: Any) -> str:
    """Write a value inline; JSON's numbers, strings and lists are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(st.dictionaries(st.sampled_from(["name", "inner", "sides", "steps", "zzz"]), tables))
def test_any_table_is_read_or_refused_with_a_fix(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text("\n".join(f"{key} = {as_toml(value)}" for key, value in values.items()), encoding="utf-8")
    refused = None
    try:
        value = read(file, Outer)
    except ConfigError as error:
        refused = error
    if refused is None:
        assert value.name == values["name"]
    else:
        assert refused.what.startswith(str(file))
        assert refused.fix


def test_a_name_is_looked_for_in_the_current_directory_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = listing("targets")
    own = tmp_path / "targets" / shipped[0].name
    own.parent.mkdir()
    own.touch()
    monkeypatch.chdir(tmp_path)
    assert locate(own.stem, "targets").resolve() == own
    assert [path.stem for path in listing("targets")].count(own.stem) == 1


def test_a_path_is_taken_as_it_is() -> None:
    assert locate("elsewhere/board.toml", "targets") == Path("elsewhere/board.toml")


def test_a_misspelt_name_is_refused_with_the_nearest_right_one() -> None:
    with pytest.raises(ConfigError, match="there is no linux-litrt in targets/") as caught:
        locate("linux-litrt", "targets")
    assert caught.value.fix == "did you mean linux-litert?"
