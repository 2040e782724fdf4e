"""Real photographs that come with a package: 1,797 handwritten digits of scikit-learn, as class folders of PNGs."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(folder: Path) -> Path:
    """Write `folder/<digit>/<number>.png`, grey, 32x32."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9375).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    return folder
