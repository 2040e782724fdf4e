"""The command line. Results go to stdout, progress and warnings to stderr; exit codes are those of `errors`."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from edgecv.printing import columns, exit_code, show, tell, words

if TYPE_CHECKING:
    from edgecv.stages import Stages
    from edgecv.target import Target

app = typer.Typer(
    name="edgecv",
    help="From a vision model and a folder of photographs to the best verified version for each device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
store_app = typer.Typer(help="Look after the store of finished steps.", no_args_is_help=True)
app.add_typer(store_app, name="store")

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


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False) -> None:
    """Take the options that come before a command."""
    _State.debug = debug


class _State:
    """The one option that outlives its command: whether `main` shows tracebacks."""

    debug = False


@app.command()
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
    with _prepared(recipe, names, data=data, out=out) as (stages, targets):
        command = shlex.join(["edgecv", *sys.argv[1:]])
        results = execute(stages, targets, quick=quick, bundles=bundle, command=command)
    show(results, as_json=json_, max_drop_pp=stages.recipe.limits.max_drop_pp)
    for warning in results.host["warnings"]:
        tell(f"note: {warning}")
    tell(f"report: {stages.out / 'report.html'}")
    raise typer.Exit(exit_code(results))


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def bundle(
    recipe: RecipeArg,
    target: TargetOpt = None,
    variant: Annotated[str | None, typer.Option("--variant", help="bundle this version, not the best")] = None,
    golden: Annotated[int, typer.Option("--golden", min=1, max=100, help="photographs to prove it right with")] = 5,
    drift: Annotated[bool, typer.Option(help="measure what OpenCV and TensorFlow make of the pixels")] = True,
    sign: Annotated[Path | None, typer.Option("--sign", help="sign it by this private key (PEM)")] = None,
    data: DataOpt = None,
    out: OutOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Write what an app developer needs of a finished run's best version: OUT/bundles/TARGET."""
    from edgecv.bundle import Options
    from edgecv.pipeline import bundle

    options = Options(variant=variant, count=golden, drift=drift, key=sign)
    with _prepared(recipe, target, data=data, out=out) as (stages, targets):
        folders = bundle(stages, targets, options)
    columns([{"bundle": str(folder)} for folder in folders], as_json=json_)


@app.command("verify-bundle")
def verify_bundle(
    folder: Annotated[Path, typer.Argument(help="a bundle's folder")],
    key: Annotated[Path | None, typer.Option("--key", help="check its signature by this public key (PEM) too")] = None,
    json_: JsonOpt = False,
) -> None:
    """Check that every file of a bundle is as it was made; no model is opened."""
    from edgecv.bundle import check_bundle

    found = check_bundle(folder, key=key)
    if json_:
        print(json.dumps({"bundle": str(folder), "problems": found}, indent=1))
    else:
        signed = ", and signed by this key" if key else ""
        print("\n".join(found) or f"{folder}: every file is as it was made{signed}")
    raise typer.Exit(1 if found else 0)


@app.command()
def bench(
    files: Annotated[list[Path], typer.Argument(help=".tflite, OpenVINO .xml or .onnx; the first is the baseline")],
    target: Annotated[str | None, typer.Option("--target", help="run all files as this target says")] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="threads, without a target")] = 1,
    quick: QuickOpt = False,
    json_: JsonOpt = False,
) -> None:
    """Measure model files made anywhere: latency, size, memory, and the precision that ran."""
    from edgecv.config import locate
    from edgecv.files import bench
    from edgecv.target import load_target
    from edgecv.terminal import Terminal

    found = load_target(locate(target, "targets")) if target else None
    with Terminal() as terminal:
        results = bench(files, target=found, threads=threads, brief=quick, progress=terminal.progress)
    show(results, as_json=json_, judged=False)
    for warning in results.host["warnings"]:
        tell(f"note: {warning}")
    raise typer.Exit(exit_code(results))


@app.command()
def explain(
    file: Annotated[Path, typer.Argument(help="a .tflite or OpenVINO .xml that edgecv built")],
    against: Annotated[Path, typer.Option("--against", help="the model.safetensors that it was built of")],
    recipe: Annotated[str | None, typer.Option("--recipe", help="take the test photographs of this recipe")] = None,
    data: DataOpt = None,
    images: Annotated[int, typer.Option("--images", min=2, help="photographs to compare on")] = 32,
    json_: JsonOpt = False,
) -> None:
    """List a file's layers by the noise that each adds to the float network's, and name the first one apart."""
    from edgecv.explain import explain_file, worst

    found = explain_file(file, against, source=_source(recipe, data), images=images)
    ranked = [one.to_json() for one in worst(found.layers)]
    if json_:
        about = {"file": str(file), "images": found.images, "verdict": found.verdict, "missing": found.missing}
        print(json.dumps({**about, "note": found.note, "layers": ranked}, indent=1))
        return
    from edgecv.report import LAYER_COLUMNS, layer_cells

    columns([LAYER_COLUMNS, *map(layer_cells, ranked)], as_json=False)
    print(f"\n{found.verdict}")
    if found.missing:
        print(f"not found in the file: {', '.join(found.missing)}")
    tell(f"note: {found.note}; {found.images} photographs")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="what a run left, such as runs/efficientnet_lite0")],
    markdown: Annotated[bool, typer.Option("--markdown", help="print the table as Markdown")] = False,
    json_: JsonOpt = False,
) -> None:
    """Print a run's table again, and re-make its report.html."""
    from edgecv.pipeline import write_report
    from edgecv.report import render_markdown

    results = write_report(folder)
    if markdown:
        print(render_markdown(results), end="")
        return
    show(results, as_json=json_)


@app.command()
def models(json_: JsonOpt = False) -> None:
    """List the recipes."""
    from edgecv.recipe import load_recipe

    rows = [
        {"name": one.name, "net": one.model.net, "size": one.preprocess.size, "summary": one.summary, "path": str(path)}
        for path in _listing("models")
        for one in [load_recipe(path)]
    ]
    columns(rows, as_json=json_)


@app.command()
def targets(json_: JsonOpt = False) -> None:
    """List the targets, and whether each can be reached now."""
    rows = [
        {"name": one.name, "runtime": one.runtime, "summary": one.summary, "status": status}
        for one, status in _reached()
    ]
    columns(rows, as_json=json_)


@app.command("setup-device")
def setup_device(target: Annotated[str, typer.Argument(help="a target that is not this machine's own")]) -> None:
    """Install what runs models on a device: packages on a board, a tool on a phone, an emulator or LiteRT.js here."""
    from edgecv.config import locate
    from edgecv.devices import setup_device
    from edgecv.target import load_target

    for line in setup_device(load_target(locate(target, "targets"))):
        print(line)


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(help="a bundle's folder, or a run's with bundles in it")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="any free one where it is 0")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="open the page in your browser too")] = False,
    json_: JsonOpt = False,
) -> None:
    """Serve a bundle's web app on this machine, and print its address."""
    import time
    import webbrowser

    from edgecv.bundle.web import serve_web

    with serve_web(bundle, port=port) as url, contextlib.suppress(KeyboardInterrupt):
        print(json.dumps({"url": url}) if json_ else url, flush=True)
        tell("Ctrl-C ends it; add ?self-test to the address to prove the page right")
        if open_:
            webbrowser.open(url)
        while True:
            time.sleep(3600)


@app.command()
def doctor(json_: JsonOpt = False) -> None:
    """Show this machine, the CPU flags that matter, the runtimes found, and what to install."""
    from edgecv import host
    from edgecv.runtimes import RUNTIMES

    facts, missing = host.facts(), [runtime for runtime in RUNTIMES.values() if runtime.version is None]
    packages, warnings = host.runtime_versions(), host.warnings()
    install = {runtime.name: runtime.install for runtime in missing}
    if json_:
        found = {"machine": facts, "packages": packages, "warnings": warnings, "install": install}
        print(json.dumps(found, indent=1))
        return
    facts["memory"] = f"{facts.pop('memory_bytes') / 1e9:.1f} GB"
    rows = [{"what": key, "found": words(value)} for key, value in {**facts, **packages}.items()]
    rows += [{"what": "warning", "found": line} for line in warnings]
    rows += [{"what": f"{name} is missing", "found": command} for name, command in install.items()]
    columns(rows, as_json=False)


@store_app.command("check")
def store_check(
    repair: Annotated[
        bool, typer.Option("--repair", help="remove what is damaged; the next run does it again")
    ] = False,
    json_: JsonOpt = False,
) -> None:
    """Hash every object again and read every record."""
    from edgecv.store import Store, default_root

    count, wrong = Store(default_root()).check(repair=repair)
    if json_:
        print(json.dumps({"checked": count, "wrong": wrong, "repaired": repair}))
    else:
        print("\n".join([*wrong, f"{count} checked, {len(wrong)} damaged" + (", removed" if wrong and repair else "")]))
    raise typer.Exit(3 if wrong and not repair else 0)


@store_app.command("gc")
def store_gc(json_: JsonOpt = False) -> None:
    """Remove what no run that is still there was made from: epochs of finished trainings, older settings."""
    from edgecv.store import Store, default_root

    files, freed = Store(default_root()).gc()
    print(
        json.dumps({"files": files, "bytes": freed}) if json_ else f"{files} files removed, {freed / 1e6:.1f} MB freed"
    )


@contextlib.contextmanager
def _prepared(
    recipe: str, targets: list[str] | None, *, data: str | None, out: Path | None
) -> Iterator[tuple[Stages, tuple[Target, ...]]]:
    """Read and check what a command was given, and show how the stages go while the block runs."""
    from edgecv.pipeline import DEFAULT_TARGETS, prepare
    from edgecv.terminal import Terminal

    with Terminal() as terminal:
        yield prepare(recipe, targets=targets or DEFAULT_TARGETS, data=data, out=out, listener=terminal)


def _source(recipe: str | None, photographs: str | None) -> Any:
    """Say where photographs come from: a recipe's test split, or all of a folder's."""
    from edgecv.config import locate
    from edgecv.errors import UsageError
    from edgecv.recipe import load_recipe

    if recipe is None and photographs is None:
        fix = "give --data FOLDER, or --recipe NAME for the recipe's own"
        raise UsageError("there are no photographs to compare on", expected="--data or --recipe", fix=fix)
    if recipe is None:
        return photographs
    spec = load_recipe(locate(recipe, "models")).data
    return spec.model_copy(update={"source": photographs}) if photographs else spec


def _reached() -> list[tuple[Target, str]]:
    """Reach every target's device, all at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    from edgecv.devices import reachable
    from edgecv.target import load_target

    found = [load_target(path) for path in _listing("targets")]
    with ThreadPoolExecutor(len(found) or 1) as pool:
        return list(zip(found, pool.map(reachable, found), strict=True))


def _within_reach() -> list[str]:
    """Name the targets that can be reached now, and tell of the others."""
    reached = _reached()
    for one, status in reached:
        if not status.startswith("ready"):
            tell(f"{one.name}: {status}")
    return [one.name for one, status in reached if status.startswith("ready")]


def _listing(folder: str) -> list[Path]:
    from edgecv.config import listing

    return listing(folder)


def main() -> NoReturn:
    """Run the command line; print an error's four lines and end with its exit code."""
    from edgecv.errors import EdgecvError

    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = app(standalone_mode=False) or 0
        if code == 130:
            tell("interrupted; the same command goes on from here")
    except EdgecvError as error:
        if _State.debug:
            raise
        tell(f"error: {error}")
        code = error.exit_code
    except typer.TyperException as error:
        tell(f"error: {error.format_message()}\n  fix:      see `edgecv --help`, or `edgecv COMMAND --help`")
        code = 2
    except Exception as error:
        if _State.debug:
            raise
        tell(f"error: {type(error).__name__}: {error}")
        tell("  fix:      this is a fault of edgecv; `edgecv --debug ...` shows where")
        code = 4
    sys.exit(code)
