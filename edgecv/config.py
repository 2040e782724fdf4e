"""Read a TOML file into a frozen, strictly checked value."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from edgecv.errors import ConfigError

__all__ = ["NAME", "VERSION", "Config", "cache_folder", "listing", "locate", "read"]

VERSION = "0.1.0"

# What a recipe, a variant or a target may be called: it becomes a folder, a file and a make target.
NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"


class Config(BaseModel):
    """Base of everything read from TOML: strict types, finite figures, no unknown keys, no changes after."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def read(path: Path, model: type[C]) -> C:
    """Read `path` as TOML into `model`.

    Raises:
        ConfigError: the file can't be read, is not TOML, or has an unknown, missing or ill-typed key. The error names
            the file, the key, what was got, what was expected and the nearest right name.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read {path}", got=error.strerror or str(error), fix="check the path") from error
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, or a number of 5000 digits
        raise ConfigError(
            f"{path} is not TOML", got=str(error), expected="https://toml.io, UTF-8", fix="correct the file"
        ) from error
    try:
        # Through JSON, because strict validation of Python values refuses a list where a tuple is declared.
        return model.model_validate_json(json.dumps(values, default=_date))
    except ValidationError as error:
        raise _explain(path, model, values, error) from error


def cache_folder() -> Path:
    """Return the user's cache folder: `$XDG_CACHE_HOME`, else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def locate(name: str | Path, folder: str) -> Path:
    """Find a file that was named by its path, or by its name alone in `folder` ("models", "targets").

    Looks in the current directory first, then where edgecv's own are.

    Raises:
        ConfigError: there is none; the error lists the names there are, and the nearest.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return path
    found = {path.stem: path for path in listing(folder)}
    if str(name) in found:
        return found[str(name)]
    names = sorted(found)
    near = difflib.get_close_matches(str(name), names, n=1)
    raise ConfigError(
        f"there is no {name} in {folder}/",
        got=str(name),
        expected="one of " + ", ".join(names) if names else "the path of a .toml file",
        fix=f"did you mean {near[0]}?" if near else "give the path of a .toml file",
    )


def listing(folder: str) -> list[Path]:
    """List the files in `folder` ("models", "targets"): the current directory's, then edgecv's own of other names."""
    found: dict[str, Path] = {}
    for place in _places(folder):
        for path in sorted(place.glob("*.toml")):
            found.setdefault(path.stem, path)
    return list(found.values())


def _places(folder: str) -> tuple[Path, ...]:
    """Where recipes and targets are: here, in the package (installed from a wheel), and beside it (a clone)."""
    package = Path(__file__).parent
    return Path(folder), package / folder, package.parent / folder


def _explain(path: Path, model: type[Config], values: dict[str, Any], error: ValidationError) -> ConfigError:
    """Turn pydantic's first complaint into a ConfigError, and say how many more there are."""
    # A misspelt key is also a missing one: its right name helps, "missing" does not.
    first = min(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
    where = tuple(part for part in first["loc"] if part != "[key]")
    key = ".".join(map(str, where))
    others = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = sorted(_fields(model, where[:-1]))
        near = difflib.get_close_matches(str(where[-1]), allowed, n=1)
        return ConfigError(
            f"{path}: unknown key {key}{others}",
            got=f"{where[-1]} = {_short(first['input'])}",
            expected="one of " + ", ".join(allowed),
            fix=f"did you mean {near[0]}?" if near else f"remove {where[-1]}",
        )
    if first["type"] == "missing":
        return ConfigError(
            f"{path}: key {key} is missing{others}", expected=f"a value for {key}", fix=f"add {key} = ..."
        )
    expected = (
        first["msg"].removeprefix("Input should be ").removeprefix("Value error, ").replace("an object", "a table")
    )
    if not where:
        return ConfigError(f"{path} is not a valid {model.__name__.lower()}", expected=expected, fix="correct the file")
    near = difflib.get_close_matches(str(first["input"]), _choices(first), n=1)
    return ConfigError(
        f"{path}: wrong value for {key}{others}",
        got=f"{_short(first['input'])} ({type(first['input']).__name__})",
        expected=expected,
        fix=f"did you mean {near[0]}?" if near else f"correct {key}",
    )


def _fields(model: Any, where: tuple[str | int, ...]) -> set[str]:
    """Names of the keys that the table at `where` may have."""
    for part in where:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        candidates = [annotation, *get_args(annotation)]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return set(getattr(model, "model_fields", {}))


def _choices(first: Any) -> list[str]:
    """Values that a Literal admits, as pydantic lists them ('a', 'b' or 'c')."""
    return str(first.get("ctx", {}).get("expected", "")).split("'")[1::2]


def _date(value: Any) -> dict[str, str]:
    """Stand in for TOML's dates and times, which JSON lacks and no key takes: as text, one would pass for a name."""
    return {type(value).__name__: str(value)}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
