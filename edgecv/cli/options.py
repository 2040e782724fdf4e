"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DataOpt", "JsonOpt", "OutOpt", "QuickOpt", "RecipeArg", "TargetOpt"]

RecipeArg = Annotated[str, typer.Argument(help="a recipe: a .toml file, or a name from `edgecv models`")]
TargetOpt = Annotated[
    list[str] | None, typer.Option("--target", help="a target: a .toml file or a name; may be given again")
]
DataOpt = Annotated[
    str | None, typer.Option("--data", help="your photographs: class folders, a CSV of image,label, or tfds:NAME")
]
OutOpt = Annotated[Path | None, typer.Option("--out", help="folder for what the run leaves [runs/RECIPE]")]
QuickOpt = Annotated[bool, typer.Option("--quick", help="5 processes of half a second: a look, not a comparison")]
JsonOpt = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
