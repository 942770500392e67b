"""Whether a label looks larger than its box is told from colours, and only where it can be."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgan_aug.audit.growth import Grown, grown, growth, growths
from simgan_aug.audit.pair import Pair, View

BOX = (40, 30, 30, 24)


def scene(*boxes, paint=(200, 120, 90), ground=(60, 80, 60), size=(96, 128), seed=0):
    """Ellipses that fill their boxes, on a ground with grain; (H, W, 3) uint8."""
    pixels = np.random.default_rng(seed).normal(0, 6, (*size, 3)) + ground
    for x, y, width, height in boxes:
        at, axes = (x + width / 2, y + height / 2), (width / 2, height / 2)
        angles, shift = (0, 0, 360), 4  # sixteenths of a px
        fixed = [tuple(round(v * 16) for v in pair) for pair in (at, axes)]
        cv2.ellipse(pixels, fixed[0], fixed[1], *angles, paint, -1, shift=shift)
    return pixels.clip(0, 255).astype(np.uint8)


def grown_by(old, new, box=BOX):
    return growth(Pair(View(old), View(new)), box)


def extended(pixels, box, side, px, paint=(200, 120, 90)):
    """Paint over most of a side's length, so many px outwards."""
    x, y, width, height = box
    strip = {
        "left": np.s_[y + 4 : y + height - 4, x - px : x + 4],
        "right": np.s_[y + 4 : y + height - 4, x + width - 4 : x + width + px],
        "top": np.s_[y - px : y + 4, x + 4 : x + width - 4],
        "bottom": np.s_[y + height - 4 : y + height + px, x + 4 : x + width - 4],
    }[side]
    new = pixels.copy()
    new[strip] = paint
    return new


@given(
    side=st.sampled_from(["left", "right", "top", "bottom"]),
    px=st.integers(2, 12),
    channels=st.sampled_from([1, 3]),
)
def test_what_is_painted_on_beyond_a_side_is_told_in_px(side, px, channels):
    old = scene(BOX)
    new = extended(old, BOX, side, px)

    found = grown_by(old[..., :channels], new[..., :channels])

    assert found == pytest.approx(px, abs=1)


CHANGES = {
    "nothing": lambda image: image,
    "tone curve": lambda image: 255 * (image / 255) ** 0.6,
    "colour cast": lambda image: image * np.array([1.2, 0.8, 1.0]) + [10, 0, -20],
    "negative": lambda image: 255 - image,
    "blur": lambda image: cv2.GaussianBlur(image, (0, 0), 1.5),
    "noise": lambda image: image + np.random.default_rng(1).normal(0, 12, image.shape),
    "another ground": lambda image: np.where(image[..., :1] < 120, [20, 160, 40], image),
}


@pytest.mark.parametrize("change", CHANGES)
def test_light_colour_and_another_backdrop_are_no_growth(change):
    old = scene(BOX)
    new = CHANGES[change](old.astype(np.float32)).clip(0, 255).astype(np.uint8)

    assert grown_by(old, new) == 0


def test_growth_on_top_of_a_change_of_light_is_told():
    old = scene(BOX)
    new = 255 - extended(old, BOX, "top", 8) // 2

    assert grown_by(old, new) == pytest.approx(8, abs=1)


def test_what_turns_the_colour_of_the_object_all_over_is_not_its_growth():
    old = scene(BOX, size=(160, 240))
    for more, expected in ((0.5, 0), (-0.3, None)):
        waves = np.sin(np.arange(240) / 4)[None, :, None] > more
        new = np.where(waves, np.array((200, 120, 90), np.uint8), old)
        assert grown_by(old, new) == expected


def test_an_object_in_the_colours_of_its_backdrop_cannot_be_told():
    for seed in range(20):
        old = scene(seed=seed)
        assert grown_by(old, extended(old, BOX, "top", 8)) is None


def test_an_object_that_has_lost_its_colours_cannot_be_told():
    assert grown_by(scene(BOX), scene()) is None


@pytest.mark.parametrize("box", [(10, 10, 7, 30), (-90, 10, 40, 30), (500, 500, 30, 30)])
def test_a_small_box_or_one_outside_cannot_be_told(box):
    assert grown_by(scene(BOX), scene(BOX), box) is None


def test_a_box_at_the_border_is_held_against_what_is_left_around_it():
    box = (0, 0, 30, 24)
    old = scene(box)

    assert grown_by(old, old, box) == 0
    assert grown_by(old, extended(old, box, "bottom", 8), box) == pytest.approx(8, abs=1)


def test_a_neighbour_that_is_labelled_is_no_growth():
    near = (40, 54, 30, 24)
    old = scene(BOX, near, paint=(200, 120, 90))
    faded = scene(near, ground=(60, 80, 60))
    faded[:54] = old[:54]

    assert list(growths(Pair(View(old), View(old)), [BOX, near])) == [0, 0]
    appeared = extended(scene(BOX), BOX, "bottom", 20)  # where the neighbour lies
    assert grown_by(scene(BOX), appeared) > 10
    first, _ = growths(Pair(View(scene(BOX)), View(appeared)), [BOX, near])
    assert first == 0


@pytest.mark.parametrize(
    ("number", "told", "much"),
    [(4, 4, False), (5, 6, True), (8, 30, False), (28, 140, False), (38, 140, True), (0, 0, False)],
)
def test_a_share_is_much_only_if_it_is_no_chance(number, told, much):
    assert Grown(number, told).is_much == much


def test_what_grows_in_a_fourth_channel_alone_is_told():
    depth, colour = scene(BOX, ground=(150, 150, 150))[..., :1], scene()
    old = np.dstack([colour, depth])
    new = np.dstack([colour, extended(depth, BOX, "left", 6, paint=(200,))])

    assert grown([old], [new], [[BOX]]).number == 1
    assert grown([old], [old], [[BOX]]).number == 0
