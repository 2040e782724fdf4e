"""Commands about what there is: recipes, targets, this machine and its store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.options import JsonOpt
from edgecv.cli.printing import columns, words

if TYPE_CHECKING:
    from pathlib import Path

    from edgecv.target import Target

__all__ = ["commands", "reached"]

commands = typer.Typer()
store = typer.Typer(help="Look after the store of finished steps.", no_args_is_help=True)
commands.add_typer(store, name="store")


@commands.command()
def models(json_: JsonOpt = False) -> None:
    """List the recipes."""
    from edgecv.config import listing
    from edgecv.recipe import load_recipe

    rows = [
        {"name": one.name, "net": one.model.net, "size": one.preprocess.size, "summary": one.summary, "path": str(path)}
        for path in listing("models")
        for one in [load_recipe(path)]
    ]
    columns(rows, as_json=json_)


@commands.command()
def targets(json_: JsonOpt = False) -> None:
    """List the targets, and whether each can be reached now."""
    rows = [
        {"name": name, "runtime": one.runtime if one else "", "summary": one.summary if one else "", "status": status}
        for name, one, status in reached()
    ]
    columns(rows, as_json=json_)


@commands.command("setup-device")
def setup_device(target: Annotated[str, typer.Argument(help="a target that is not this machine's own")]) -> None:
    """Install what runs models on a device: packages on a board, a tool on a phone, an emulator or LiteRT.js here."""
    from edgecv.config import locate
    from edgecv.devices import setup_device
    from edgecv.target import load_target

    for line in setup_device(load_target(locate(target, "targets"))):
        print(line)


@commands.command()
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


@store.command("check")
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


@store.command("gc")
def store_gc(json_: JsonOpt = False) -> None:
    """Remove what no run that is still there was made from: epochs of finished trainings, older settings."""
    from edgecv.store import Store, default_root

    files, freed = Store(default_root()).gc()
    print(
        json.dumps({"files": files, "bytes": freed}) if json_ else f"{files} files removed, {freed / 1e6:.1f} MB freed"
    )


def reached() -> list[tuple[str, Target | None, str]]:
    """Reach every target's device, all at the same time: its name, the target if its file is right, its status."""
    from concurrent.futures import ThreadPoolExecutor

    from edgecv.config import listing
    from edgecv.devices import reachable
    from edgecv.errors import ConfigError
    from edgecv.target import load_target

    def reach(path: Path) -> tuple[str, Target | None, str]:
        try:
            target = load_target(path)
        except ConfigError as error:
            return path.stem, None, " ".join(error.status.split())
        return path.stem, target, reachable(target)

    paths = listing("targets")
    with ThreadPoolExecutor(len(paths) or 1) as pool:
        return list(pool.map(reach, paths))
