"""Tell what a photograph shows: `python app.py PHOTO`, or prove this bundle right: `python app.py --self-test`.

Needs numpy, Pillow, and the runtime: ai-edge-litert for a .tflite, openvino for an .xml. Copy what you need.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

BUNDLE = Path(__file__).resolve().parents[2]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SPEC = json.loads((BUNDLE / "preprocess.json").read_text(encoding="utf-8"))
GOLDEN = json.loads((BUNDLE / "golden" / "golden.json").read_text(encoding="utf-8"))
LABELS = (BUNDLE / "labels.txt").read_text(encoding="utf-8").splitlines()


def load(path):
    """Load the model; return a function from an input array to probabilities, float32 (classes,)."""
    if path.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda array: compiled(array)[0][0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(array):
        interpreter.set_tensor(taken, array)
        interpreter.invoke()
        return interpreter.get_tensor(given)[0]

    return run


def pixels(path):
    """Decode a photograph, upright, and resize it to the model's input. The model itself subtracts mean and divides."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    box = (0, 0, image.width, image.height)
    if SPEC["resize"] == "crop":
        side = min(image.size) * SPEC["crop_fraction"]
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
    image = image.resize((SPEC["size"], SPEC["size"]), FILTERS[SPEC["filter"]], box=box)
    return np.asarray(image, SPEC["input"]["dtype"])[None]


def self_test(run):
    """Compare labels, preprocessing and model with golden.json; print each figure, return what is wrong."""
    wrong = [key for key, value in GOLDEN["preprocess"].items() if SPEC.get(key) != value]
    wrong += [] if GOLDEN["labels"] == LABELS else ["labels"]
    print("labels.txt, preprocess.json:", "not golden.json's: " + ", ".join(wrong) if wrong else "as in golden.json")
    for entry in [] if wrong else GOLDEN["images"]:
        path, expected = BUNDLE / "golden" / entry["image"], np.array(entry["outputs"], np.float32)
        data = np.fromfile(BUNDLE / "golden" / entry["input"], SPEC["input"]["dtype"])
        off = np.abs(run(data.reshape(SPEC["input"]["shape"])) - expected).max()
        own = pixels(path)
        drift = np.abs(own.ravel().astype(float) - data).mean()
        label = LABELS[int(run(own).argmax())]
        print(
            f"{entry['image']}: outputs differ by {off:.2g} (at most {GOLDEN['tolerance']:g}), pixels by {drift:.2g} "
            f"grey levels (at most {GOLDEN['pixel_tolerance']:g}), answer {label}, expected {entry['label']}"
        )
        wrong += ["model"] if not off <= GOLDEN["tolerance"] else []
        wrong += ["decoding"] if not drift <= GOLDEN["pixel_tolerance"] else []
        wrong += ["answer"] if not label == entry["label"] == LABELS[int(expected.argmax())] else []
    return wrong


def main():
    """Run what the command line asks for; return the exit code."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    run = load(BUNDLE / GOLDEN["model"])
    if sys.argv[1] == "--self-test":
        wrong = self_test(run)
        print("FAILED: " + ", ".join(sorted(set(wrong))) if wrong else "passed")
        return 1 if wrong else 0
    found = run(pixels(sys.argv[1]))
    for i in found.argsort()[::-1][:5]:
        print(f"{found[i]:6.1%}  {LABELS[i]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
