"""The bill of materials of a bundle: CycloneDX 1.6 of the model, the photographs, and the software that made it."""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from typing import Any

from edgecv import data
from edgecv.bundle.about import About, source_name
from edgecv.config import VERSION

__all__ = ["bom"]

MODEL, PHOTOGRAPHS = "model", "photographs"
# What has a part in every file, in those of a format, and in those that steps made.
TRAINING = ("numpy", "pillow", "tensorflow", "tf-keras")
FORMATS = {"tflite": ("ai-edge-litert", "litert-quantizer"), "openvino": ("openvino", "nncf")}
OPTIMIZED = {"qat", "sparse", "cluster"}


def bom(about: About) -> dict[str, Any]:
    """Write bom.json: the same for the same inputs, with a serial number made of what it says, and no date."""
    libraries = _libraries(about)
    refs = [PHOTOGRAPHS, *(one["bom-ref"] for one in libraries)]
    body = {
        "metadata": {"tools": {"components": [_edgecv()]}, "component": _model(about)},
        "components": [_photographs(about), *libraries],
        "dependencies": [{"ref": MODEL, "dependsOn": refs}, *({"ref": ref} for ref in refs)],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    head = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
    }
    return {**head, "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def _edgecv() -> dict[str, Any]:
    return {
        "type": "application",
        "name": "edgecv",
        "version": VERSION,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }


def _model(about: About) -> dict[str, Any]:
    row, spec = about.row, about.spec
    parameters = {
        "approach": {"type": "supervised"},
        "task": "image classification",
        "modelArchitecture": f"{about.recipe.model.net}, width {about.recipe.model.width:g}",
        "datasets": [{"ref": PHOTOGRAPHS}],
        "inputs": [{"format": f"{spec['input']['dtype']} {spec['input']['shape']}, RGB"}],
        "outputs": [{"format": f"{spec['output']['dtype']} {spec['output']['shape']}, probabilities"}],
    }
    card: dict[str, Any] = {"modelParameters": parameters}
    if row.accuracy:
        low, high = row.accuracy.ci95
        interval = {"lowerBound": f"{low:.6f}", "upperBound": f"{high:.6f}"}
        metric = {"type": "top-1 accuracy", "value": f"{row.accuracy.value:.6f}", "confidenceInterval": interval}
        card["quantitativeAnalysis"] = {"performanceMetrics": [{**metric, "slice": "test"}]}
    facts = {"target": row.target, "status": row.status, "recipe sha256": about.results.recipe.sha256}
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": about.name,
        "version": about.digest[:12],
        "hashes": [{"alg": "SHA-256", "content": about.digest}],
        "properties": [{"name": f"edgecv:{name}", "value": value} for name, value in facts.items()],
        "modelCard": card,
    }


def _photographs(about: About) -> dict[str, Any]:
    index = about.index
    licence = [{"license": {"name": index.licence}}] if index.licence else []
    counts = {split: sum(sample.split == split for sample in index.samples) for split in data.SPLITS}
    facts = {
        "index sha256": data.index_digest(index),
        **{f"{split} photographs": str(n) for split, n in counts.items()},
    }
    return {
        "type": "data",
        "bom-ref": PHOTOGRAPHS,
        "name": source_name(index.source),
        **({"licenses": licence} if licence else {}),
        "properties": [{"name": f"edgecv:{name}", "value": value} for name, value in facts.items()],
    }


def _libraries(about: About) -> list[dict[str, Any]]:
    """List what made and ran the file: versions as the run noted them, else those here, and licences."""
    steps = about.recipe.variants.get(about.row.variant, ())
    more = ("tensorflow-model-optimization",) if OPTIMIZED & {*steps} else ()
    noted = {**about.results.host.get("runtimes", {}), **about.machine.get("runtimes", {})}
    own = about.results.devices.get(about.row.target, {}).get("runtimes", {})
    found = []
    for name in sorted({*TRAINING, *FORMATS.get(about.row.format, ()), *more, *own}):
        if version := noted.get(name) or _version(name):
            purl = f"pkg:pypi/{name}@{version}"
            entry = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
            licence = _licence(name)
            found.append({**entry, "licenses": [{"license": {"name": licence}}]} if licence else entry)
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _licence(package: str) -> str:
    """Give what a package's own metadata says of its licence, in a few words; nothing where it says nothing."""
    try:
        told = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
    classified = [one.rpartition(" :: ")[2] for one in told.get_all("Classifier") or [] if one.startswith("License ::")]
    fields = [*(told.get_all("License-Expression") or []), *(told.get_all("License") or []), ""]
    lines = fields[0].strip().splitlines()
    short = lines[0] if len(lines) == 1 and len(lines[0]) < 100 else ""
    return short or ", ".join(classified)
