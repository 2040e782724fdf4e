"""Commands about files: models made anywhere, and bundles."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.options import DataOpt, JsonOpt, QuickOpt
from edgecv.cli.printing import columns, exit_code, show, tell

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
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


@commands.command()
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


@commands.command("verify-bundle")
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


@commands.command()
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
