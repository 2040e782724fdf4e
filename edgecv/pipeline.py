"""From a recipe and targets to results: build, verify on the final bytes, measure, and write what a run leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv import compress, host, measure, report, runtimes
from edgecv.artifact import Artifact
from edgecv.bundle import Options, remove_outdated, write_bundle
from edgecv.causes import causes
from edgecv.config import VERSION, locate
from edgecv.data import index_digest
from edgecv.devices import Device, elsewhere, open_device, warned
from edgecv.errors import ConfigError, EdgecvError, EnvError, ModelError
from edgecv.evidence import made, measured, verified, verified_file
from edgecv.listener import Listener
from edgecv.nets.build import check_name
from edgecv.queues import at_once
from edgecv.recipe import Recipe, load_recipe, recipe_digest
from edgecv.results import RecipeEntry, Results, Row, dump_results, read_measurements, read_results
from edgecv.rows import Entry, make_rows
from edgecv.stages import Stages
from edgecv.stats import process_figure, spread_warning
from edgecv.store import Store, check_writable, default_root, point, write_atomically
from edgecv.target import Target, load_target

__all__ = ["DEFAULT_TARGETS", "build", "bundle", "check", "execute", "prepare", "run", "targets_of", "write_report"]

DEFAULT_TARGETS = ("linux-litert", "linux-openvino")
RESULTS, MEASUREMENTS = "results.json", "measurements.json"
FORMATS = ("tflite", "openvino")  # that `export` builds
BASELINE = "float32"  # the variant that every recipe has, and the others are compared with
Raw = list[dict[str, Any]]


def run(
    recipe: Recipe | str | Path,
    *,
    targets: Sequence[Target | str | Path] = DEFAULT_TARGETS,
    data: str | Path | None = None,
    out: str | Path | None = None,
    quick: bool = False,
    store: str | Path | None = None,
    listener: Listener | None = None,
    command: str = "",
) -> Results:
    """Build, verify and measure every variant of a recipe on each target; write results and report into `out`.

    `recipe`, `targets`: values, paths, or names of those that ship. `data`: photographs to use instead of the recipe's.
    `out`: `runs/<recipe>` where it is left out. `quick`: 5 processes of half a second, too few to compare latencies.
    `store`: `$EDGECV_STORE`, else a cache folder. `command`: how to reproduce, as the report prints it.

    Raises:
        EdgecvError: see `errors`. A model that crashes or breaks a limit is a row with that status, not an error.

    >>> results = run("recipe.toml", data="photos", targets=["linux-litert"], quick=True)
    >>> [row.variant for row in results.rows]
    ['float32', 'float16', 'int8', 'int8-dynamic']
    >>> {row.status for row in results.rows}
    {'pass'}
    """
    stages, found = prepare(recipe, targets=targets, data=data, out=out, store=store, listener=listener)
    return execute(stages, found, quick=quick, command=command)


def execute(
    stages: Stages, targets: Sequence[Target], *, quick: bool = False, bundles: bool = False, command: str = ""
) -> Results:
    """Do what `run` does with stages and targets that `prepare` gave; `bundles`: write each target's, where it can."""
    check_writable(stages.out)
    with stages.store.in_use(), _opened(tuple(map(measure.quick, targets)) if quick else targets) as devices:
        warnings = host.warnings()
        rows, raw, entries = _evidence(stages, devices)
        results = _results(stages, devices, rows, warnings=[*warnings, *warned(devices), *_spreads(raw)])
        _write(stages, results, {"rows": raw, **causes(stages, entries)}, command=command)
        for folder in remove_outdated(stages.out, results):
            stages.listener.note(f"removed {folder}: it held a version of an earlier run")
        for device in devices if bundles else ():
            try:
                stages.listener.note(f"bundle: {write_bundle(stages, device, results, Options(drift=True))}")
            except EdgecvError as error:
                stages.listener.note(f"no bundle for {device.target.name}: {error}")
        stages.store.keep(stages.out, stages.keys)
    return results


def bundle(stages: Stages, targets: Sequence[Target], options: Options | None = None) -> list[Path]:
    """Write a bundle for each target from what a run left in `stages.out`; return their folders. See `write_bundle`."""
    results = read_results(stages.out / RESULTS)
    with stages.store.in_use(), _opened(targets) as devices:
        return [write_bundle(stages, device, results, options) for device in devices]


def targets_of(stages: Stages) -> tuple[Target, ...]:
    """Read the targets that the run in `stages.out` was on, by the names in its results.

    Raises:
        UsageError: there is no run.
        ConfigError: one has a name that no target that ships has: its file is to be given.
    """
    names = dict.fromkeys(row.target for row in read_results(stages.out / RESULTS).rows)
    return tuple(load_target(locate(name, "targets")) for name in names)


def build(stages: Stages, targets: Sequence[Target]) -> list[tuple[Path, Artifact]]:
    """Export every variant for the targets' formats; return each one's main file and what it is."""
    check_writable(stages.out)
    found = {}
    with stages.store.in_use(), _opened(targets) as devices:
        stages.calibration  # noqa: B018 (too few images are refused before the training, not after)
        for device in devices:
            for variant in _variants(stages, device.target):
                built = made(stages, device, variant)
                found[stages.place(built.artifact, built.name)[0]] = built.artifact
    return list(found.items())


def check(stages: Stages, targets: Sequence[Target], *, files: Sequence[Path] = ()) -> Results:
    """Build and verify every variant, or the files given instead, on each target that opens them; measure nothing."""
    with stages.store.in_use(), _opened(targets) as devices:
        if not files:
            return _results(stages, devices, _evidence(stages, devices, timed=False)[0], warnings=[])
        _refuse_unopened(devices, files)
        rows: list[Row] = []
        for device in devices:
            suffixes = runtimes.RUNTIMES[device.target.runtime].suffixes
            mine = tuple(verified_file(stages, device, path) for path in files if path.suffix.lower() in suffixes)
            rows += _rows(stages, device.target, mine)
        return _results(stages, devices, tuple(rows), warnings=[])


def _refuse_unopened(devices: Sequence[Device], files: Sequence[Path]) -> None:
    """Refuse a file that would be verified nowhere."""
    known = {suffix for device in devices for suffix in runtimes.RUNTIMES[device.target.runtime].suffixes}
    for path in files:
        if path.suffix.lower() not in known:
            raise ModelError(
                f"none of the targets opens {path}",
                got=path.suffix or "no suffix",
                expected=", ".join(sorted(known)),
                fix="name a target that does by --target",
            )


@contextlib.contextmanager
def _opened(targets: Sequence[Target]) -> Iterator[tuple[Device, ...]]:
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(open_device(target)) for target in targets)


def _results(stages: Stages, devices: Sequence[Device], rows: tuple[Row, ...], *, warnings: list[str]) -> Results:
    facts = {**host.facts(), "runtimes": host.runtime_versions(), "warnings": warnings}
    recipe = RecipeEntry(
        name=stages.recipe.name,
        sha256=recipe_digest(stages.recipe),
        photographs_sha256=index_digest(stages.index),
    )
    return Results(edgecv=VERSION, recipe=recipe, host=facts, devices=elsewhere(devices), rows=rows)


def _spreads(raw: Raw) -> list[str]:
    """Warn of measurements whose processes differ much from each other."""
    found = []
    for one in raw:
        timed = [process["latencies_ms"] for process in one["processes"] if process["latencies_ms"]]
        figures = [process_figure(latencies) for latencies in timed]
        if len(figures) > 1 and (warning := spread_warning(figures)):
            found.append(f"{one['variant']} on {one['target']}: {warning}")
    return found


def prepare(
    recipe: Recipe | str | Path,
    *,
    targets: Sequence[Target | str | Path] = (),
    data: str | Path | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    listener: Listener | None = None,
) -> tuple[Stages, tuple[Target, ...]]:
    """Read and check what `run` was given, before any work; return the stages and the targets.

    Raises:
        ConfigError: a recipe or a target is wrong, or names what does not exist.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(locate(recipe, "models"))
    check_name(recipe.model.net)
    for steps in recipe.variants.values():
        compress.precision_of(steps)
        if "sparse" in steps and (warning := compress.check_sparsity(recipe.sparse)):
            (listener or Listener()).note(warning)
    found = tuple(
        dict.fromkeys(one if isinstance(one, Target) else load_target(locate(one, "targets")) for one in targets)
    )
    names = [target.name for target in found]
    if len({*names}) < len(names):
        raise ConfigError("two targets have the same name", got=", ".join(names), fix="rename one of them")
    for target in found:
        if runtimes.RUNTIMES[target.runtime].format not in FORMATS:
            raise ConfigError(
                f"target {target.name}: no files are built for {target.runtime}",
                expected="runtime litert, openvino or tflm",
                fix="measure a file you have with `edgecv bench FILE`",
            )
    name = recipe.name
    if data is not None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": str(data)})})
        name = f"{name}-{Path(str(data)).stem.replace(':', '-')}"
    folder = Path(out) if out is not None else Path("runs") / name
    return Stages(recipe, out=folder, store=Store(store or default_root()), listener=listener), found


def _evidence(
    stages: Stages, devices: Sequence[Device], *, timed: bool = True
) -> tuple[tuple[Row, ...], Raw, list[tuple[Device, Entry]]]:
    """Verify and, if `timed`, measure every variant on each device; return rows, raw measurements and the entries."""
    stages.calibration  # noqa: B018 (too few images are refused before the training, not after)
    variants = {device.target.name: _variants(stages, device.target) for device in devices}

    def work(device: Device) -> tuple[Entry, ...]:
        entries = tuple(verified(stages, device, variant) for variant in variants[device.target.name])
        sound = {entry.variant: entry for entry in entries if entry.artifact and not entry.problem}
        found = measured(stages, sound, device) if sound and timed else {}
        return tuple(dataclasses.replace(entry, measurement=found.get(entry.variant)) for entry in entries)

    for device in devices:
        _build(stages, device, variants[device.target.name])
    entries = at_once(devices, work, abandon=stages.abandon)
    judged = [(device, entry) for device, found in zip(devices, entries, strict=True) for entry in found]
    rows = [_rows(stages, device.target, found) for device, found in zip(devices, entries, strict=True)]
    raw: Raw = [
        {
            "variant": entry.variant,
            "target": device.target.name,
            "processes": [dataclasses.asdict(one) for one in entry.measurement.processes],
        }
        for device, entry in judged
        if entry.measurement
    ]
    return tuple(row for found in rows for row in found), raw, judged


def _build(stages: Stages, device: Device, variants: Sequence[str]) -> None:
    """Build what a device is to run, where it is there: before other threads run, since TensorFlow wants the main one.

    What is mended needs its device; what fails here fails again where it becomes a row.
    """
    try:
        device.facts()
    except EnvError:
        return
    for variant in variants:
        with contextlib.suppress(EnvError):
            if "repair" not in stages.recipe.variants[variant]:
                stages.outputs(made(stages, device, variant).network.steps)


def _rows(stages: Stages, target: Target, entries: tuple[Entry, ...]) -> tuple[Row, ...]:
    baseline = next((entry.measurement for entry in entries if entry.variant == BASELINE), None)
    return make_rows(entries, model=stages.recipe.name, target=target, baseline=baseline)


def _variants(stages: Stages, target: Target) -> list[str]:
    """Names of the recipe's variants that the target's format has; the others are told to the listener."""
    format, found = runtimes.RUNTIMES[target.runtime].format, []
    for name, steps in stages.recipe.variants.items():
        precision = compress.precision_of(steps)
        reason = compress.lacking(format, precision)
        if target.precisions and precision not in target.precisions:
            reason = f"it takes {' and '.join(target.precisions)}, not {precision}"
        if reason:
            stages.listener.note(f"{name} is not built for {target.name}: {reason}")
        else:
            found.append(name)
    return found


def _write(stages: Stages, results: Results, more: Mapping[str, Any], *, command: str) -> None:
    """Write results.json, and beside it what the report needs more: raw measurements, causes, limit and command."""
    beside = {"command": command, "max_drop_pp": stages.recipe.limits.max_drop_pp, **more}
    write_atomically(stages.out / MEASUREMENTS, json.dumps(beside).encode())
    write_atomically(stages.out / RESULTS, dump_results(results).encode())
    point("results:written")
    write_report(stages.out)


def write_report(folder: Path) -> Results:
    """Re-make table.txt and report.html from the results.json and measurements.json that a run left in `folder`.

    Raises:
        UsageError: there is no results.json, or it does not follow the schema.
    """
    results = read_results(folder / RESULTS)
    beside = read_measurements(folder / MEASUREMENTS)
    table = report.render_table(results, width=None, color=False)
    write_atomically(folder / "table.txt", table.encode())
    page = report.render_html(results, beside, command=beside["command"], max_drop_pp=beside["max_drop_pp"])
    write_atomically(folder / "report.html", page.encode())
    return results
