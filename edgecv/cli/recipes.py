"""Commands about a recipe: what a run does, whole or in parts, and what it left."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.machine import reached
from edgecv.cli.options import DataOpt, JsonOpt, OutOpt, QuickOpt, RecipeArg, TargetOpt
from edgecv.cli.printing import columns, exit_code, show, tell

if TYPE_CHECKING:
    from edgecv.stages import Stages
    from edgecv.target import Target

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def run(
    recipe: RecipeArg,
    target: TargetOpt = None,
    all_targets: Annotated[bool, typer.Option("--all-targets", help="every target that can be reached now")] = False,
    data: DataOpt = None,
    out: OutOpt = None,
    quick: QuickOpt = False,
    bundle: Annotated[bool, typer.Option("--bundle", help="write the bundle of each target too")] = False,
    json_: JsonOpt = False,
) -> None:
    """Build, verify and measure every variant of a recipe on each target, and write the report."""
    from edgecv.pipeline import execute

    names = [*(target or ()), *(_within_reach() if all_targets else ())]
    with _prepared(recipe, names or None, data=data, out=out) as (stages, targets):
        command = shlex.join(["edgecv", *sys.argv[1:]])
        results = execute(stages, targets, quick=quick, bundles=bundle, command=command)
    show(results, as_json=json_, max_drop_pp=stages.recipe.limits.max_drop_pp)
    for warning in results.host["warnings"]:
        tell(f"note: {warning}")
    tell(f"report: {stages.out / 'report.html'}")
    raise typer.Exit(exit_code(results))


@commands.command()
def train(recipe: RecipeArg, data: DataOpt = None, out: OutOpt = None, json_: JsonOpt = False) -> None:
    """Train the float model of a recipe, or go on with it; write it to OUT/model.safetensors."""
    with _prepared(recipe, None, data=data, out=out) as (stages, _), stages.store.in_use():
        value = stages.trained.value
        path = stages.place_model()
    if json_:
        print(json.dumps({"path": str(path), **value}, indent=1))
        return
    accuracy, params, macs = value["final"]["val_accuracy"], value["params"], value["macs"]
    print(f"{path}: validation accuracy {accuracy:.1%}, {params:,} parameters, {macs:,} MACs")


@commands.command()
def export(
    recipe: RecipeArg,
    target: TargetOpt = None,
    data: DataOpt = None,
    out: OutOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Build the files of every variant for the targets' formats into OUT/models."""
    from edgecv.pipeline import build

    with _prepared(recipe, target, data=data, out=out) as (stages, targets):
        built = build(stages, targets)
    if json_:
        print(
            json.dumps([{"path": str(path), "sha256": one.digest, "size_bytes": one.size_bytes} for path, one in built])
        )
        return
    for path, one in built:
        print(f"{path}  {one.size_bytes / 1e6:.2f} MB  {one.digest[:12]}")


@commands.command()
def verify(
    recipe: RecipeArg,
    target: TargetOpt = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", help="verify this file instead; may be given again")
    ] = None,
    data: DataOpt = None,
    out: OutOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Compare every variant with the float model on the test photographs, in the runtime that will run it."""
    from edgecv.pipeline import check

    with _prepared(recipe, target, data=data, out=out) as (stages, targets):
        results = check(stages, targets, files=file or ())
    show(results, as_json=json_, max_drop_pp=stages.recipe.limits.max_drop_pp)
    raise typer.Exit(exit_code(results))


@commands.command()
def bundle(
    recipe: RecipeArg,
    target: TargetOpt = None,
    variant: Annotated[str | None, typer.Option("--variant", help="bundle this version, not the best")] = None,
    golden: Annotated[int, typer.Option("--golden", min=1, max=100, help="photographs to prove it right with")] = 5,
    drift: Annotated[bool, typer.Option(help="measure what OpenCV and TensorFlow make of the pixels")] = True,
    sign: Annotated[Path | None, typer.Option("--sign", help="sign it by this private key (PEM)")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="the model's, as you say: an SPDX id")] = None,
    data: DataOpt = None,
    out: OutOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Write what an app developer needs of a finished run's best version: OUT/bundles/TARGET."""
    from edgecv.bundle import Options
    from edgecv.pipeline import bundle, targets_of

    options = Options(variant=variant, count=golden, drift=drift, key=sign, licence=licence)
    written: list[dict[str, str]] = []
    try:
        with _prepared(recipe, target or [], data=data, out=out) as (stages, targets):
            for one in targets or targets_of(stages):
                written += [{"bundle": str(folder)} for folder in bundle(stages, [one], options)]
    finally:  # those before one that fails are there
        columns(written, as_json=json_)


@commands.command()
def report(
    folder: Annotated[Path, typer.Argument(help="what a run left, such as runs/efficientnet_lite0")],
    markdown: Annotated[bool, typer.Option("--markdown", help="print the table as Markdown")] = False,
    json_: JsonOpt = False,
) -> None:
    """Print a run's table again, and re-make its report.html."""
    from edgecv.pipeline import MEASUREMENTS, write_report
    from edgecv.report import render_markdown
    from edgecv.results import read_measurements

    results = write_report(folder)
    if markdown:
        print(render_markdown(results), end="")
        return
    show(results, as_json=json_, max_drop_pp=read_measurements(folder / MEASUREMENTS)["max_drop_pp"])


@contextlib.contextmanager
def _prepared(
    recipe: str, targets: list[str] | None, *, data: str | None, out: Path | None
) -> Iterator[tuple[Stages, tuple[Target, ...]]]:
    """Read and check what a command was given, and show how the stages go while the block runs.

    `targets`: the default ones where it is None.
    """
    from edgecv.pipeline import DEFAULT_TARGETS, prepare
    from edgecv.terminal import Terminal

    given = DEFAULT_TARGETS if targets is None else targets
    with Terminal() as terminal:
        yield prepare(recipe, targets=given, data=data, out=out, listener=terminal)


def _within_reach() -> list[str]:
    """Name the targets that can be reached now and that files are built for, and tell of the others."""
    from edgecv.pipeline import FORMATS
    from edgecv.runtimes import RUNTIMES

    names = []
    for name, one, status in reached():
        if not one or not status.startswith("ready"):
            tell(f"{name}: {status}")
        elif RUNTIMES[one.runtime].format not in FORMATS:
            tell(f"{name}: no files are built for {one.runtime}")
        else:
            names.append(name)
    return names
