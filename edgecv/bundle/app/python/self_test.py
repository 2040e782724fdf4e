"""Prove that app.py answers here as the model did where it was verified: golden/ holds photographs and what it gave."""

import hashlib
import json
import sys

import numpy as np
from app import BUNDLE, LABELS, SPEC, load, pixels

FOLDER = BUNDLE / "golden"
try:
    GOLDEN = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))
except OSError as error:
    sys.exit(f"FAILED: {error}")


def main():
    """Print each figure and what is wrong; return the exit code. A model of other bytes is not run."""
    wrong = changed()
    print("model, labels, preprocessing:", f"not golden.json's: {', '.join(wrong)}" if wrong else "as in golden.json")
    if not wrong:
        run = load()
        try:
            wrong = sorted({what for entry in GOLDEN["images"] for what in compare(entry, run)})
        except (OSError, ValueError) as error:  # a golden file is gone, or cut
            wrong = [str(error)]
    wrong += [f"golden.json has no {key}" for key in ("files", "images") if not GOLDEN[key]]
    print("FAILED: " + ", ".join(wrong) if wrong else "passed")
    return 1 if wrong else 0


def changed():
    """Name what is not as golden.json has it: the model's files by SHA-256, labels, keys of preprocess.json."""
    model = [name for name, digest in GOLDEN["files"].items() if sha256(BUNDLE / name) != digest]
    labels = [] if GOLDEN["labels"] == LABELS else ["labels"]
    return model + labels + [key for key, value in GOLDEN["preprocess"].items() if SPEC.get(key) != value]


def sha256(path):
    """The digest of a file's bytes; None where there is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def compare(entry, run):
    """Compare the model's outputs, this app's pixels and its answer with a golden photograph's; name what is wrong."""
    expected = np.array(entry["outputs"], np.float32)
    given = np.fromfile(FOLDER / entry["input"], SPEC["input"]["dtype"]).reshape(SPEC["input"]["shape"])
    own = pixels(FOLDER / entry["image"])
    off = np.abs(run(given) - expected).max()
    drift = np.abs(own.astype(float) - given).mean()
    label = LABELS[int(run(own).argmax())]
    print(
        f"{entry['image']}: outputs differ by {off:.2g} (at most {GOLDEN['tolerance']:g}), pixels by {drift:.2g} "
        f"grey levels (at most {GOLDEN['pixel_tolerance']:g}), answer {label}, expected {entry['label']}"
    )
    good = {
        "model": off <= GOLDEN["tolerance"],
        "decoding": drift <= GOLDEN["pixel_tolerance"],
        "answer": label == entry["label"] == LABELS[int(expected.argmax())],
    }
    return [what for what in good if not good[what]]
