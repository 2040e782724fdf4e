from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecv.data.decode import decode
from edgecv.errors import DataError
from edgecv.recipe import Preprocess

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
STRETCH = Preprocess(size=16, resize="stretch")


def halves(left: tuple[int, ...], right: tuple[int, ...], *, mode: str = "RGB", side: int = 32) -> Image.Image:
    image = Image.new(mode, (side, side), left)
    image.paste(right, (side // 2, 0, side, side))
    return image


@pytest.mark.parametrize("kind", ["png", "bmp", "tif", "webp", "jpg", "ppm"])
def test_a_colour_image_gives_rgb_pixels_of_the_asked_size(tmp_path: Path, kind: str) -> None:
    halves(RED, BLUE).save(tmp_path / f"a.{kind}", quality=95)
    pixels = decode(tmp_path / f"a.{kind}", STRETCH)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[8, 2].astype(int) - RED).max() < 12
    assert np.abs(pixels[8, 13].astype(int) - BLUE).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (32, 32), WHITE)
    upright.paste(RED, (0, 0, 16, 16))
    upright.paste(BLUE, (16, 16, 32, 32))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "a.png", Preprocess(size=32)), np.asarray(upright))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_each_mode_of_a_grey_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    halves(WHITE, (0, 0, 0)).convert(mode).save(tmp_path / "a.tif")
    pixels = decode(tmp_path / "a.tif", STRETCH)
    assert pixels[8, 2].tolist() == [255, 255, 255]
    assert pixels[8, 13].max() < 2


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path: Path, kind: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16).repeat(8, axis=1).repeat(32, axis=0)
    Image.fromarray(values).save(tmp_path / f"a.{kind}")
    pixels = decode(tmp_path / f"a.{kind}", Preprocess(size=32))
    assert pixels[16, 4::8, 0].tolist() == [0, 1, 128, 255]
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_transparent_pixels_show_white(tmp_path: Path) -> None:
    halves((255, 0, 0, 255), (0, 0, 0, 0), mode="RGBA").save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", STRETCH)
    assert pixels[8, 2].tolist() == [255, 0, 0]
    assert pixels[8, 13].tolist() == [255, 255, 255]


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", STRETCH)[0, 0].tolist() == [127, 127, 127]


def test_a_transparent_palette_colour_shows_white(tmp_path: Path) -> None:
    halves(RED, BLUE).quantize(4).save(tmp_path / "a.png", transparency=halves(RED, BLUE).quantize(4).getpixel((31, 0)))
    pixels = decode(tmp_path / "a.png", STRETCH)
    assert pixels[8, 2].tolist() == [255, 0, 0]
    assert pixels[8, 13].tolist() == [255, 255, 255]


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (GREEN, RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "a.gif", STRETCH)[8, 8].tolist() == list(GREEN)


def test_crop_keeps_the_centre_square(tmp_path: Path) -> None:
    image = Image.new("RGB", (96, 32), RED)
    image.paste(GREEN, (32, 0, 64, 32))
    image.save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", Preprocess(size=32)) == GREEN).all()


def test_stretch_keeps_the_whole_picture(tmp_path: Path) -> None:
    halves(RED, BLUE).resize((96, 32)).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", STRETCH)
    assert pixels[8, 0].tolist() == list(RED)
    assert pixels[8, 15].tolist() == list(BLUE)


def test_crop_fraction_cuts_the_border(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 64), RED)
    image.paste(GREEN, (8, 8, 56, 56))
    image.save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", Preprocess(size=24, crop_fraction=0.5)) == GREEN).all()
    assert decode(tmp_path / "a.png", Preprocess(size=64))[0, 0].tolist() == list(RED)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_a_crop_equals_scaling_the_shorter_side_and_cutting_the_centre(tmp_path: Path, name: str) -> None:
    smooth = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    image = Image.fromarray(smooth).resize((256, 192), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    two_steps = image.resize((128, 96), Image.Resampling[name.upper()]).crop((32, 16, 96, 80))
    one_step = decode(tmp_path / "a.png", Preprocess(size=64, crop_fraction=64 / 96, filter=name))
    assert np.abs(one_step.astype(int) - np.asarray(two_steps)).max() <= 1


def test_downscaling_averages_instead_of_picking_pixels(tmp_path: Path) -> None:
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(decode(tmp_path / "a.png", STRETCH).astype(int) - 127).max() < 8


def test_a_very_long_picture_is_cropped_without_being_blown_up(tmp_path: Path) -> None:
    Image.new("RGB", (60_000, 1), RED).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", Preprocess(size=32)) == RED).all()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "gif"])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match="can't decode"):
        decode(path, STRETCH)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError) as refused:
        decode(tmp_path / "a.jpg", STRETCH)
    assert refused.value.got


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        decode(tmp_path / "gone.png", STRETCH)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [10_000, 20_000, 2_000_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, side: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    with pytest.raises(DataError, match="bomb") as refused:
        decode(tmp_path / "bomb.png", STRETCH)
    assert "pixels" in refused.value.got


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (32, 32), 1_000_000).save(tmp_path / "a.tif")
    with pytest.raises(DataError) as refused:
        decode(tmp_path / "a.tif", STRETCH)
    assert "range" in refused.value.got
