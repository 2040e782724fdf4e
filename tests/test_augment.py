from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.recipe import Train
from edgecv.train.augment import draw_epoch, vary

STILL: dict[str, Any] = {
    "flip_horizontal": False,
    "flip_vertical": False,
    "crop": 0.0,
    "shift": 0.0,
    "rotate_deg": 0.0,
    "brightness": 0.0,
}


def photographs(count: int = 6, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def varied(images: np.ndarray, targets: np.ndarray | None = None, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    draw = draw_epoch(Train(**{**STILL, **changes}), images=len(images), size=images.shape[1], epoch=0)
    targets = np.eye(len(images), dtype=np.float32) if targets is None else targets
    pixels, labels = vary(images, targets, transforms=draw.transforms, gains=draw.gains, mixes=draw.mixes)
    return pixels.numpy(), labels.numpy()


def test_with_everything_off_the_pixels_stay_as_they_are() -> None:
    images = photographs()
    pixels, targets = varied(images)
    np.testing.assert_array_equal(pixels, images)
    np.testing.assert_array_equal(targets, np.eye(len(images)))


def test_a_horizontal_flip_mirrors_about_half_of_the_images_exactly() -> None:
    images = photographs(40)
    pixels, _ = varied(images, flip_horizontal=True)
    mirrored = [np.array_equal(after, before[:, ::-1]) for after, before in zip(pixels, images, strict=True)]
    unchanged = [np.array_equal(after, before) for after, before in zip(pixels, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, unchanged, strict=True))
    assert 10 < sum(mirrored) < 30


def test_a_vertical_flip_turns_images_upside_down_exactly() -> None:
    images = photographs(20)
    pixels, _ = varied(images, flip_vertical=True)
    turned = [np.array_equal(after, before[::-1]) for after, before in zip(pixels, images, strict=True)]
    assert 0 < sum(turned) < 20


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000), crop=st.floats(0, 0.9), degrees=st.floats(0, 180))
def test_zoom_and_rotation_keep_the_centre_and_scale_both_axes_alike(
    seed: int, epoch: int, crop: float, degrees: float
) -> None:
    chosen = Train(**{**STILL, "crop": crop, "rotate_deg": degrees, "flip_horizontal": True, "seed": seed})
    draw = draw_epoch(chosen, images=8, size=33, epoch=epoch)
    a, b, c, d, e, f = draw.transforms[:, :6].T
    np.testing.assert_allclose(a * 16 + b * 16 + c, 16, atol=1e-4)
    np.testing.assert_allclose(d * 16 + e * 16 + f, 16, atol=1e-4)
    scale = np.hypot(a, d)
    np.testing.assert_allclose(scale, np.hypot(b, e), rtol=1e-5)
    np.testing.assert_allclose(a * b + d * e, 0, atol=1e-5)
    assert (scale > 1 - crop - 1e-5).all()
    assert (scale < 1 + 1e-5).all()


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(0, 1), size=st.integers(16, 64))
def test_a_shift_moves_by_no_more_than_its_share_of_the_side(shift: float, size: int) -> None:
    draw = draw_epoch(Train(**{**STILL, "shift": shift}), images=16, size=size, epoch=0)
    assert (np.abs(draw.transforms[:, [2, 5]]) <= shift * size + 1e-3).all()


def test_brightness_scales_pixels_and_stays_within_0_to_255() -> None:
    images = np.full((32, 4, 4, 3), 200, np.uint8)
    pixels, _ = varied(images, brightness=0.5)
    assert pixels.min() >= 100.0
    assert pixels.max() == 255.0
    assert len(np.unique(pixels[:, 0, 0, 0])) > 5


def test_mixup_mixes_pixels_and_targets_in_the_same_share() -> None:
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 250)])
    pixels, targets = varied(images, mixup=1.0)
    np.testing.assert_allclose(pixels[:, 0, 0, 0] / 250, targets[:, 1], atol=1e-5)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert (np.diag(targets) >= 0.5).all()


def test_the_same_epoch_is_drawn_alike_and_another_is_not() -> None:
    first, again, later = (draw_epoch(Train(mixup=0.2), images=50, size=32, epoch=epoch) for epoch in (3, 3, 4))
    for name in ("order", "transforms", "gains", "mixes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(later, name))


def test_an_epoch_shows_each_image_once() -> None:
    assert sorted(draw_epoch(Train(), images=17, size=32, epoch=0).order) == list(range(17))


@pytest.mark.parametrize("changes", [{"rotate_deg": 30.0}, {"crop": 0.3}, {"shift": 0.2}])
def test_what_comes_in_from_outside_is_a_mirror_image_not_a_black_border(changes: dict[str, float]) -> None:
    pixels, _ = varied(np.full((16, 24, 24, 3), 90, np.uint8), **changes)
    np.testing.assert_allclose(pixels, 90, atol=1e-3)
