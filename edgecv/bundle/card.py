"""The model card of a bundle, as Hugging Face reads it: a head in YAML, then what was measured, and what was not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from edgecv.bundle.about import IMAGENET_LICENCE, UNKNOWN, About, source_name
from edgecv.bundle.drift import Drift
from edgecv.config import VERSION
from edgecv.report import best

__all__ = ["card"]

LIBRARIES = {"litert": "tflite", "tflm": "tflite", "openvino": "openvino"}  # as Hugging Face calls them
ACCELERATORS = {"gpu": "GPU", "npu": "NPU", "nnapi": "NNAPI device", "edgetpu": "Edge TPU"}
# What proves a bundle right, and then runs it, by the app that its runtime has.
IN_PYTHON = """\
python app/python/app.py --self-test # labels, preprocessing and outputs are those of {count} golden photographs
python app/python/app.py photo.jpg"""
IN_C = """\
cp -r app/c ../classify              # what is built in the bundle was not made here
cd ../classify && make host          # for this computer; for a board see app/c/README.md
build/classify --self-test           # labels, preprocessing and outputs are those of a golden photograph
build/classify frame.ppm"""
NOT_MEASURED = "Not measured: `edgecv bundle` does, unless told `--no-drift`."


def card(about: About) -> str:
    """Write card.md."""
    head = "\n".join(_yaml(_metadata(about)))
    parts = [_title(about), _results(about), _classes(about), _preprocessing(about), _limits(about), _use(about)]
    return f"---\n{head}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _metadata(about: About) -> dict[str, Any]:
    row = about.row
    tags = ["edgecv", row.runtime, row.precision, row.target]
    entry = {
        **_licence_entry(about.licence),
        "library_name": LIBRARIES.get(row.runtime, row.runtime),
        "pipeline_tag": "image-classification",
        "tags": sorted(set(tags)),
    }
    if row.accuracy is None:
        return entry
    metrics = [{"type": "accuracy", "name": "top-1", "value": round(row.accuracy.value, 6)}]
    if row.accuracy.top5 is not None:
        metrics.append({"type": "accuracy", "name": "top-5", "value": round(row.accuracy.top5, 6)})
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": "imagefolder", "name": source_name(about.index.source), "split": "test"},
        "metrics": metrics,
    }
    return {**entry, "model-index": [{"name": about.name, "results": [result]}]}


def _licence_entry(spdx: str) -> dict[str, str]:
    """Name a licence as Hugging Face's model cards do."""
    _, own, name = spdx.lower().partition("licenseref-")
    return {"license": "other", "license_name": name} if own else {"license": spdx.lower()}


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Write a dict as YAML, a line each; JSON's strings and numbers are YAML's."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield f"{indent}{key}:"
            yield from _yaml(item, indent + "  ")
        elif isinstance(item, list):
            yield f"{indent}{key}:"
            for one in item:
                lines = list(_yaml(one, indent + "  ")) if isinstance(one, dict) else [f"{indent}  {_scalar(one)}"]
                yield f"{indent}- {lines[0].lstrip()}"
                yield from lines[1:]
        else:
            yield f"{indent}{key}: {_scalar(item)}"


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _title(about: About) -> str:
    row, results = about.row, about.results
    rows = [one for one in results.rows if one.target == row.target]
    what = f"{_text(row.model)}, version {_text(row.variant)}, for {_text(row.target)} ({row.runtime})."
    if row.status != "pass":
        state = f"**It did not pass the run's verification: {_text(row.status)}.** It was bundled because it was named."
    elif best(rows) == row:
        state = "It is the best version that passed the run's verification on this target."
    else:
        state = "It passed the run's verification. It is not the best version that did: it was bundled by name."
    return f"# {_text(about.name)}\n\nAn image classifier of {len(about.index.classes)} classes: {what} {state}"


def _results(about: About) -> str:
    row = about.row
    estimated = row.timing == "estimated"  # by a compiler, once: there was no process
    lines = [
        ("size", f"{row.artifact.size_bytes / 1e6:.3f} MB" if row.artifact else "-"),
        ("precision of the file", row.precision),
        ("precision that ran", row.executed_precision or "-"),
        ("parameters, multiply-accumulates", f"{_count(row.params)}, {_count(row.macs)}"),
    ]
    if row.accuracy:
        found = row.accuracy
        low, high = found.ci95
        lines.append(("top-1", f"{found.value:.1%} [{low:.1%}, {high:.1%}] of {found.n} test photographs"))
        if found.drop_pp is not None and found.drop_ci95:
            low, high = found.drop_ci95
            lines.append(("below the float network", f"{found.drop_pp:.2f} [{low:.2f}, {high:.2f}] percentage points"))
    if row.latency_ms:
        p50, p90 = (_ms(one) for one in (row.latency_ms.p50, row.latency_ms.p90))
        spread = f"p50 {p50}, p90 {p90}, in {row.latency_ms.processes} processes"
        lines.append((f"latency, {row.timing}", p50 if estimated else spread))
    if row.memory and row.memory.peak_rss_bytes is not None:
        lines.append(("largest resident set", f"{row.memory.peak_rss_bytes / 1e6:.0f} MB"))
    if row.memory and row.memory.arena_bytes is not None:
        lines.append(("SRAM, estimated" if estimated else "arena", f"{row.memory.arena_bytes:,} bytes"))
    machine = about.machine
    facts = [("ran on", ", ".join(_text(str(machine[key])) for key in ("cpu", "arch", "os") if machine.get(key)))]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(about.software.items()))
    facts += [("cores, flags", f"{machine.get('cores_usable', '-')}, {', '.join(machine.get('flags') or ['-'])}")]
    facts += [("software", _text(versions))]
    note = "In brackets: 95 % intervals. Accuracy is that of these bytes in this runtime. MB: 10^6 bytes."
    return f"## Measured\n\n{_table(('figure', 'value'), [*lines, *facts])}\n\n{note}"


def _classes(about: About) -> str:
    if not about.hits:
        return ""
    rows = [
        (_text(name), f"{hits} of {count}", f"{hits / count:.1%}" if count else "-") for name, hits, count in about.hits
    ]
    return f"## By class\n\n{_table(('class', 'right', 'share'), rows)}"


def _preprocessing(about: About) -> str:
    spec = about.spec
    how = (
        f"the centre square, {spec['crop_fraction']:.0%} of the shorter side,"
        if spec["resize"] == "crop"
        else "all of it"
    )
    text = (
        f"From an upright RGB photograph, {how} is resized to {spec['size']}x{spec['size']} by an antialiased "
        f"{spec['filter']} filter, and given as {spec['input']['dtype']} {spec['input']['shape']}. "
        f"The model itself takes off {spec['mean']:g} and divides by {spec['scale']:g}."
    )
    if about.drift is None:
        return f"## Preprocessing\n\n{text}\n\nOther decoders and resizers: {NOT_MEASURED}"
    header = ("way of decoding and resizing", "largest, grey levels", "mean", "top-1", "other answers")
    note = (
        "Each way's pixels of the whole test split beside training's, in grey levels of 0-255, and what this model "
        "makes of them on the machine that wrote the bundle."
    )
    return f"## Preprocessing\n\n{text}\n\n{_table(header, list(map(_drifted, about.drift)))}\n\n{note}"


def _drifted(one: Drift) -> Sequence[str]:
    if one.problem:
        return (one.name, one.problem, "-", "-", "-")
    return (one.name, str(one.largest), f"{one.mean:.2f}", f"{one.top1:.1%}", f"{one.changed} of {one.count}")


def _limits(about: About) -> str:
    row = about.row
    lines = [
        "Accuracy is that of one test split: photographs of another kind, camera or place are another matter.",
        "Every photograph gets one of the classes, also one that shows none of them.",
        _licence(about),
    ]
    if about.index.licence:
        lines.append(f"The photographs in `golden/` are of {_text(about.index.licence)}.")
    if row.timing in ("emulated", "estimated", "software-rendered"):
        lines.append(f"The latencies are {row.timing}: not the device's.")
    if about.accelerator != "cpu":
        lines.append(f"The apps run it on the CPU, not on the {_accelerator(about)}.")
    lines += [f"While it was measured: {_text(warning)}." for warning in about.warnings]
    for one in row.skipped[:10]:
        what = "Left to the CPU" if one.by_compiler else "In float"
        lines.append(f"{what}: {_text(one.layer)} ({_text(one.reason)}).")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licence(about: About) -> str:
    if about.licence == UNKNOWN:
        return "edgecv does not know the licence of this model. Photographs and starting weights have theirs."
    own = about.licence == about.index.spdx
    whose = "that of the photographs it was trained on" if own else "what its owner said"
    weights = f"; the weights that its training began with are {IMAGENET_LICENCE}" if about.from_imagenet else ""
    return f"Its licence, {_text(about.licence)}, is {whose}{weights}. edgecv gives no legal advice."


def _accelerator(about: About) -> str:
    """Name what the apps don't use; figures that are not the device's were not measured on it."""
    measured = about.row.latency_ms and about.row.timing in ("measured", "benchmark_model")
    name = ACCELERATORS.get(about.accelerator, about.accelerator.title())
    return f"{name} that {'was measured' if measured else 'it is for'}"


def _use(about: About) -> str:
    commands = IN_C if about.row.runtime == "tflm" else IN_PYTHON.format(count=about.count)
    return f"""## Check it, run it

```
python verify_bundle.py              # every file is as it was made
{commands}
```

Outputs may differ from the golden ones by {about.tolerance:g} in a probability. Made by edgecv {VERSION} of recipe
`{_text(about.results.recipe.name)}` ({about.results.recipe.sha256[:12]}); what it was made with is in `bom.json`."""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Write what a recipe, a folder or a machine is called so that Markdown takes it as it is, on one line."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(f"\\{c}" if c in "\\`*<>[]|" else c for c in plain)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"
