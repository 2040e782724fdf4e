"""What the documentation must name, and what it must not hold."""

import re
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from benchmarks.readme import WRITTEN, rendered
from edgecv.cli import app
from edgecv.compress import STEPS
from edgecv.recipe import Recipe
from edgecv.target import Target
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = typer.main.get_command(app).commands
TEXT = README + "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))


def keys(model, prefix=""):
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("key", [*keys(Recipe), *keys(Target)])
def test_every_key_of_a_recipe_and_a_target_is_documented(key):
    assert f"`{key}`" in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command):
    assert re.search(rf"`(edgecv )?{command}\b", TEXT)


@pytest.mark.parametrize("command", COMMANDS["store"].commands)
def test_every_command_of_the_store_is_documented(command):
    assert f"`store {command}" in TEXT


def test_the_readme_is_short_enough_to_be_read():
    assert len(README.splitlines()) < 150


def test_what_explains_the_compression_steps_is_short_enough_to_be_read():
    assert len((ROOT / "docs" / "compression.md").read_text().partition("## Measured")[0].splitlines()) < 150


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_the_tables_are_those_of_the_measured_results(path):
    text = path.read_text()
    assert rendered(text) == text


def test_every_compression_step_is_explained():
    text = (ROOT / "docs" / "compression.md").read_text()
    for step in STEPS:
        assert f"**`{step}`**" in text, step


@pytest.mark.parametrize("path", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(path):
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_every_make_target_that_the_readme_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    devices = {path.stem for path in (ROOT / "targets").glob("*.toml")}
    for name in set(re.findall(r"`?make ([a-z0-9-]+)", README)):
        assert name in devices or re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_no_file_holds_a_registrys_address_or_a_machines_path():
    for path in [*ROOT.glob("[!.]*.*"), *(ROOT / "docs").glob("*"), *(ROOT / "benchmarks" / "results").glob("*")]:
        if path.is_file() and path.suffix != ".md":
            text = path.read_text(errors="replace")
            assert not re.search(r"(?:index-url|find-links|/root/|/home/)", text), path
    assert "://" not in (Path(ROOT) / "requirements.lock").read_text()
