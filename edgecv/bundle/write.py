"""Write a bundle: a verified version of a model, and all that an app developer needs to run it and prove it right."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from packaging.licenses import canonicalize_license_expression

from edgecv.artifact import digest_files
from edgecv.bundle import verify_bundle
from edgecv.bundle.about import UNKNOWN, About, hits_by_class
from edgecv.bundle.apps import write_apps
from edgecv.bundle.bom import bom
from edgecv.bundle.card import card
from edgecv.bundle.drift import drift
from edgecv.bundle.golden import PIXEL_TOLERANCE, Golden, golden, preprocess_spec
from edgecv.bundle.sign import check_key, sign
from edgecv.config import VERSION
from edgecv.data import index_digest
from edgecv.devices import Device
from edgecv.errors import EdgecvError, ModelError, UsageError
from edgecv.recipe import recipe_digest
from edgecv.report import best
from edgecv.results import Results, Row
from edgecv.runtimes import model_files
from edgecv.stages import Stages
from edgecv.store import disk_errors, point, write_atomically

__all__ = ["Options", "remove_outdated", "write_bundle"]

LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")  # one id, no expression of several


@dataclass(frozen=True)
class Options:
    """How a bundle is made.

    `variant`: the version, whatever its status; the best that passes where it is left out. `count`: golden photographs.
    `drift`: measure what other decoders make of the test split. `key`: a private key (PEM) to sign with. `licence`: of
    the model, as its owner says; an SPDX id. Where it is left out it is that of the photographs, if that is known.
    """

    variant: str | None = None
    count: int = 5
    drift: bool = False
    key: Path | None = None
    licence: str | None = None


def write_bundle(stages: Stages, device: Device, results: Results, options: Options | None = None) -> Path:
    """Make the bundle of a target from what a run left; return its folder.

    It is `OUT/bundles/TARGET`, or `OUT/bundles/TARGET+VARIANT` for a version that is named, whole or not at all.

    Raises:
        UsageError: no version passes, or the results are of another recipe, or the key or licence can't be used.
        DataError: a photograph is gone, or none of the test split can be decoded.
        ModelError: the version's file is not the one that was verified.
        DeviceError: the device can't be reached.
        StoreError: the folder can't be written, or the disk is full.
        MissingError: it is to be signed, and model-signing is not installed.
    """
    options = options or Options()
    _check(options)
    _refuse_others(stages, results)
    target, variant = device.target.name, options.variant
    row = _row(results, target, variant)
    folder = stages.out / "bundles" / (target if variant is None else f"{target}+{variant}")  # "+": in no target's name
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()
    with stages.store.lock(f"bundle-{name}"), _whole(folder) as to:
        _fill(stages, device, results, row, options, to=to)
    return folder


def remove_outdated(out: Path, results: Results) -> list[Path]:
    """Remove bundles in `out` of targets that were run anew, where they are not of the version that the results name.

    Returns:
        Their folders. Those of other targets stay.
    """
    removed = []
    for target in {row.target for row in results.rows}:
        for folder in (out / "bundles" / target, *(out / "bundles").glob(f"{target}+*")):
            if folder.is_dir() and not _of_results(folder, results, target):
                shutil.rmtree(folder)
                removed.append(folder)
    return sorted(removed)


def _of_results(folder: Path, results: Results, target: str) -> bool:
    """Tell whether a bundle is of the version that one made now would have."""
    try:
        row = _row(results, target, folder.name.partition("+")[2] or None)
        assert row.artifact is not None
        files = model_files(folder / f"model{Path(row.artifact.path).suffix}")
        return digest_files(*files) == row.artifact.sha256
    except (EdgecvError, OSError):
        return False


def _fill(stages: Stages, device: Device, results: Results, row: Row, options: Options, *, to: Path) -> None:
    model = _copy_model(stages.out, row, to)
    recipe = stages.recipe
    found = golden(stages.index, device, model, row, preprocess=recipe.preprocess, count=options.count)
    spec = preprocess_spec(recipe.preprocess, input=found.input, output=found.output)
    about = About(
        row=row,
        accelerator=device.target.accelerator,
        results=results,
        recipe=recipe,
        index=stages.index,
        licence=_spelled(options.licence) or stages.index.spdx or UNKNOWN,
        files=model,
        spec=spec,
        tolerance=found.tolerance,
        count=len(found.images),
        hits=hits_by_class(stages.out / "measurements.json", row),
        drift=drift(stages, model) if options.drift else None,
    )
    _write_golden(about, found, to)
    labels = "".join(f"{label}\n" for label in about.index.classes)
    for file, text in {"labels.txt": labels, "card.md": card(about)}.items():
        (to / file).write_bytes(text.encode())
    for file, value in {"preprocess.json": spec, "bom.json": bom(about)}.items():
        (to / file).write_bytes(_json(value))
    write_apps(about, device, to)
    shutil.copyfile(verify_bundle.__file__, to / "verify_bundle.py")
    _write_manifest(to, signed=options.key is not None)
    if options.key is not None:
        sign(to, options.key)


def _check(options: Options) -> None:
    """Refuse what can't be used before anything is made."""
    if options.key is not None:
        check_key(options.key)
    _spelled(options.licence)


def _spelled(licence: str | None) -> str | None:
    """Spell a licence's id as SPDX does; refuse what is none."""
    try:
        if licence is not None and not LICENCE.fullmatch(licence):
            raise ValueError(licence)
        return licence and canonicalize_license_expression(licence)
    except ValueError as error:
        raise UsageError(
            "that is not a licence's id",
            got=ascii(licence),
            expected="one of https://spdx.org/licenses, such as CC-BY-4.0, or LicenseRef-NAME for one of your own",
            fix="give its id alone: its terms belong beside the model",
        ) from error


def _refuse_others(stages: Stages, results: Results) -> None:
    """Refuse results whose labels and test split are not those of the recipe and photographs that were given."""
    noted = results.recipe
    for what, got, expected in (
        ("another recipe", noted.sha256, recipe_digest(stages.recipe)),
        ("other photographs, labels or splits", noted.photographs_sha256, index_digest(stages.index)),
    ):
        if got != expected:
            raise UsageError(
                f"the results in {stages.out} are of {what}",
                got=got[:12] or "no digest",
                expected=expected[:12],
                fix="give the RECIPE, --data and --out of the run, or do `edgecv run` again",
            )


def _row(results: Results, target: str, variant: str | None) -> Row:
    """Choose the version: the one that is named, else the best."""
    rows = [row for row in results.rows if row.target == target]
    have = ", ".join(f"{row.variant} ({row.status})" for row in rows) or "no version"
    if variant is None:
        row, problem = best(rows), f"no version passes on {target}"
    else:
        row, problem = next((row for row in rows if row.variant == variant), None), f"no {variant} on {target}"
    if row is None or row.artifact is None:
        made = [row.variant for row in rows if row.artifact is not None]
        fix = (
            f"`edgecv bundle ... --variant {made[0]}`, or another: its card says its status" if made else "`edgecv run`"
        )
        raise UsageError(problem, got=have, fix=fix)
    return row


def _copy_model(out: Path, row: Row, to: Path) -> tuple[Path, ...]:
    """Copy the version's files as `model.*`, once they are seen to be those that the results are about."""
    assert row.artifact is not None
    files = model_files(out / row.artifact.path)
    copies = tuple(to / f"model{file.suffix}" for file in files)
    for file, copy in zip(files, copies, strict=True):
        shutil.copyfile(file, copy)
    if (got := digest_files(*copies)) != row.artifact.sha256:
        raise ModelError(
            f"{files[0]} is not the file that was verified",
            got=f"SHA-256 {got[:12]}",
            expected=row.artifact.sha256[:12],
            fix="do `edgecv run` again",
        )
    return copies


def _write_golden(about: About, found: Golden, to: Path) -> None:
    """Write photographs, the inputs that training makes of them, and what the model gave."""
    (to / "golden").mkdir()
    images, labels = [], about.index.classes
    for number, (image, pixels, outputs) in enumerate(zip(found.images, found.pixels, found.outputs, strict=True)):
        (to / "golden" / f"{number}.png").write_bytes(image)
        (to / "golden" / f"{number}.input.bin").write_bytes(pixels.astype(found.input["dtype"]).tobytes())
        entry = {"image": f"{number}.png", "input": f"{number}.input.bin"}
        images.append({**entry, "outputs": outputs.tolist(), "label": labels[int(np.argmax(outputs))]})
    said = {
        "files": {file.name: digest_files(file) for file in about.files},
        "runtime": about.row.runtime,
        "tolerance": found.tolerance,
        "pixel_tolerance": PIXEL_TOLERANCE,
        "preprocess": {key: value for key, value in about.spec.items() if key not in ("output", "normalised_by")},
        "labels": labels,
        "images": images,
    }
    (to / "golden" / "golden.json").write_bytes(_json(said))


def _write_manifest(to: Path, *, signed: bool) -> None:
    paths = sorted(path for path in to.rglob("*") if path.is_file())
    files = {
        path.relative_to(to).as_posix(): {"sha256": digest_files(path), "size_bytes": path.stat().st_size}
        for path in paths
    }
    made = verify_bundle.make_manifest(files, version=VERSION, signed=signed)
    write_atomically(to / verify_bundle.MANIFEST, made)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` once the block has ended well, by renames."""
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.????????.part"):  # by one that was killed
            shutil.rmtree(left)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
        try:
            new, old = work / "new", work / "old"
            new.mkdir()
            yield new
            point("bundle:made")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            with contextlib.suppress(OSError):  # there are bundles in it
                folder.parent.rmdir()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
