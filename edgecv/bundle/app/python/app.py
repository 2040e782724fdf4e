"""Tell what a photograph shows: `python app.py PHOTO`, or prove this bundle right: `python app.py --self-test`.

Needs numpy, Pillow 9.1 or newer, and the runtime: openvino for an .xml; for a .tflite ai-edge-litert, or tflite-runtime
on 32-bit ARM. Copy what you need.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

BUNDLE = Path(__file__).resolve().parents[2]
SPEC = json.loads((BUNDLE / "preprocess.json").read_text(encoding="utf-8"))
LABELS = (BUNDLE / "labels.txt").read_text(encoding="utf-8").splitlines()


def load():
    """Load the model; return a function from an input array to probabilities, float32 (classes,)."""
    if (BUNDLE / "model.xml").exists():
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32"}  # as it was verified: bfloat16 is default where the CPU has it
        compiled = openvino.Core().compile_model(BUNDLE / "model.xml", "CPU", settings)
        return lambda array: compiled(array)[0][0]
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        from tflite_runtime.interpreter import Interpreter

    interpreter = Interpreter(str(BUNDLE / "model.tflite"))
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(array):
        interpreter.set_tensor(taken, array)
        interpreter.invoke()
        return interpreter.get_tensor(given)[0]

    return run


def pixels(photo):
    """Decode a photograph, upright and on white, and resize it to the model's input, which takes 0 to 255."""
    image = ImageOps.exif_transpose(Image.open(photo))
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip: 65535 = 255 * 257
        image = Image.fromarray(((np.asarray(image).astype(int) + 128) // 257).astype(np.uint8))
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    side = min(image.size) * SPEC["crop_fraction"]
    width, height = (side, side) if SPEC["resize"] == "crop" else image.size
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box, filter = (left, top, left + width, top + height), Image.Resampling[SPEC["filter"].upper()]
    return np.asarray(image.resize((SPEC["size"], SPEC["size"]), filter, box=box), SPEC["input"]["dtype"])[None]


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.dont_write_bytecode = True  # a file more would not be this bundle's
        import self_test

        sys.exit(self_test.main())
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        photo = pixels(sys.argv[1])
    except Exception as error:  # Pillow raises of every kind
        sys.exit(f"{sys.argv[1]}: {error}")
    found = load()(photo)
    sys.stdout.reconfigure(errors="replace")  # a label may have letters that a terminal has not
    for place in found.argsort()[::-1][:5]:
        print(f"{found[place]:6.1%}  {LABELS[place]}")
