"""From an image file to the network's input pixels: one way, for training, calibration, verification and bench."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from edgecv.errors import DataError
from edgecv.recipe import Preprocess

__all__ = ["decode", "open_rgb"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# A file that claims more pixels than this is refused: decoding it would take more than half a gigabyte.
_MAX_PIXELS = 89_478_485


def decode(path: str | Path, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Read an image file as uint8 `(size, size, 3)`, RGB in 0-255: what `open_rgb` gives, resized.

    Downscaling is antialiased: the filter widens with the factor.

    Raises:
        DataError: as `open_rgb` does.
    """
    return np.asarray(_read(path, lambda image: _fit(image, preprocess)))


def open_rgb(path: str | Path) -> Image.Image:
    """Read an image file in RGB, as large as it is.

    The EXIF orientation is applied. Grey, palette and CMYK become RGB; 16-bit grey is scaled to 8 bits; transparent
    pixels show white, as on a page; an animation gives its first frame. Colour profiles are not applied.

    Raises:
        DataError: the file is missing, truncated, damaged, too large or of no known type. `got` is the reason.
    """
    return _read(path, lambda image: image)


def _read(path: str | Path, then: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            image.load()
            return then(_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        raise _refusal(path, "not an image of a known type") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _refusal(path, f"more than {_MAX_PIXELS:,} pixels") from error
    # A damaged file can make Pillow's readers raise nearly anything: struct.error, IndexError, zlib.error, ...
    except Exception as error:
        raise _refusal(path, str(error) or type(error).__name__) from error


def _refusal(path: str | Path, reason: str) -> DataError:
    return DataError(
        f"can't decode {path}", got=" ".join(reason.split()), expected="a whole image file", fix="replace or remove it"
    )


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, 8 bits a channel."""
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range the file does not say")
    if image.mode.startswith("I"):
        return Image.fromarray(_from_16_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Scale 0-65535 to 0-255, rounded: 65535 = 255 * 257. Pillow's own conversion clips instead."""
    wide = pixels.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError("32-bit pixels, whose range the file does not say")
    return ((wide + 128) // 257).astype(np.uint8)


def _fit(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Resize an RGB image to `size` x `size`.

    "crop" samples the centre square straight from the source, which is scaling and cutting in one: a picture 1 pixel
    high and 60,000 wide is never blown up to its scaled width.
    """
    box = (0.0, 0.0, float(image.width), float(image.height))
    if preprocess.resize == "crop":
        side = min(image.size) * preprocess.crop_fraction
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
    return image.resize((preprocess.size, preprocess.size), _FILTERS[preprocess.filter], box=box)
