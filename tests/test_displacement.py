"""Displacement: how far a picture has moved, whatever its light; and where that cannot be told."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug.displacement import (
    LEAST_MATCH,
    REACH,
    Displacement,
    displacement,
    locate,
    structure,
)
from simgan_aug.errors import ImageError

SIDE = 96
BOX = (24, 24, 48, 48)


def scene(seed=0, sigma=1.5):
    """A picture with structure everywhere, (96, 96, 3) uint8."""
    noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.clip(smooth / smooth.std() * 40 + 128, 0, 255).astype(np.uint8)


def moved(image, x, y):
    by = np.float32([[1, 0, x], [0, 1, y]])
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, by, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def jpeg(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)


def noisy(image):
    noise = np.random.default_rng(1).normal(0, 12, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


LIGHTS = {
    "the same": lambda image: image,
    "a tone curve": lambda image: (255 * (image / 255.0) ** 2).astype(np.uint8),
    "an inversion": lambda image: 255 - image,
    "a colour cast": lambda image: (image * [1.0, 0.6, 0.8] + [0, 40, 10]).astype(np.uint8),
    "less contrast": lambda image: (image * 0.2 + 100).astype(np.uint8),
    "noise": noisy,
    "blur": lambda image: cv2.GaussianBlur(image, (0, 0), 1.5),
    "JPEG": jpeg,
    "grey": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
}


def measured(old, new, box=BOX):
    return displacement(structure(old), structure(new), box)


@pytest.mark.parametrize("light", LIGHTS)
@settings(max_examples=15, deadline=None)
@given(x=st.floats(-8, 8), y=st.floats(-8, 8), seed=st.integers(0, 99))
def test_a_shift_is_found_to_a_fraction_of_a_pixel_in_any_light(light, x, y, seed):
    image = scene(seed)

    found = measured(image, LIGHTS[light](moved(image, x, y)))

    assert found is not None
    assert found.distance == pytest.approx(np.hypot(found.x, found.y))
    assert np.hypot(found.x - x, found.y - y) < 0.5


@pytest.mark.parametrize("light", LIGHTS)
def test_what_has_not_moved_has_not_moved_in_any_light(light):
    found = [measured(scene(seed), LIGHTS[light](scene(seed))) for seed in range(20)]

    assert all(each is not None and each.distance < 0.25 for each in found)


def test_an_image_is_where_it_is():
    found = measured(scene(), scene())

    assert found.distance < 0.02
    assert found.match == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_the_depth_of_an_image_does_not_matter(depth):
    scale = {np.uint8: 1.0, np.uint16: 257.0, np.float32: 1 / 255}[depth]
    image = (scene() * scale).astype(depth)

    found = measured(image, moved(image, 2, -1))

    assert (found.x, found.y) == pytest.approx((2, -1), abs=0.15)


def flat():
    return np.full((SIDE, SIDE, 3), 90, np.uint8)


def stripes():
    image = flat()
    image[:, 40:56] = 200  # edges in one direction only
    return image


@pytest.mark.parametrize("image", [flat(), stripes()], ids=["flat", "a straight edge"])
def test_where_there_is_too_little_structure_nothing_is_told(image):
    assert measured(image, moved(image, 3, 0)) is None


def test_where_the_picture_has_been_replaced_nothing_is_told():
    assert measured(scene(0), scene(1)) is None
    assert measured(scene(0), flat()) is None


def test_a_shift_out_of_reach_is_not_taken_for_a_small_one():
    image = scene()

    assert measured(image, moved(image, REACH + 6, 0)) is None


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (-50, -50, 20, 20), (200, 10, 20, 20)])
def test_a_box_without_pixels_tells_nothing(box):
    image = scene()

    assert measured(image, image, box) is None


@pytest.mark.parametrize("box", [(-10, -10, 60, 60), (60, 60, 200, 200), (0, 0, SIDE, SIDE)])
def test_a_box_may_stick_out_of_the_image(box):
    image = scene()

    found = measured(image, moved(image, 1.5, -2), box)

    assert (found.x, found.y) == pytest.approx((1.5, -2), abs=0.2)


def test_images_of_two_sizes_are_an_error():
    with pytest.raises(ImageError, match="one size"):
        displacement(structure(scene()), structure(scene()[:-1]), BOX)


def test_only_what_is_under_the_box_counts():
    image = scene()
    new = moved(image, 5, 0)
    new[10:90, 10:90] = image[10:90, 10:90]

    assert measured(image, new).distance < 0.1


def chequered(square):
    rows, columns = np.indices((SIDE, SIDE)) // square
    return np.where((rows + columns) % 2, 200, 60).astype(np.uint8)


@pytest.mark.parametrize("light", ["the same", "noise", "blur", "JPEG"])
@pytest.mark.parametrize("square", [4, 6, 8, 10])
def test_a_picture_that_repeats_itself_lies_where_it_is_nearest(square, light):
    image = chequered(square)

    found = measured(image, LIGHTS[light](image))

    assert found.distance < 0.2


def test_a_picture_that_nearly_repeats_itself_is_found_where_it_is():
    image = np.clip(chequered(8)[..., None] + (scene() - 128.0), 0, 255).astype(np.uint8)

    found = measured(image, moved(image, 8, 8))

    assert (found.x, found.y) == pytest.approx((8, 8), abs=0.2)


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("side", [0, 4, 8, 16])
def test_beside_a_flat_place_nothing_fits_better_than_what_is_the_same(side, level):
    image = cv2.GaussianBlur(scene(), (0, 0), 2)
    image[:40] = level
    image[:, 60:] = level
    field = structure(image)

    places = [(x, y, side, side) for x in range(0, 90, 9) for y in range(16, 48, 2)]
    found = [each for place in places if (each := locate(field, field, place)) is not None]

    assert found
    assert all(each.match <= 1.001 and each.distance < 0.5 for each in found)


def test_the_rounding_of_a_flat_place_is_no_structure():
    image = scene().astype(np.float32)
    image[:, :60] = 255 + np.random.default_rng(0).normal(0, 1e-4, (SIDE, 60, 3))

    assert locate(structure(image), structure(image), (16, 16, 24, 24)) is None


def test_what_is_not_found_is_still_located_and_says_so():
    old, new = structure(scene(0)), structure(scene(1))

    best = locate(old, new, BOX)

    assert best is not None
    assert not best.is_found
    assert displacement(old, new, BOX) is None


@pytest.mark.parametrize("image", [flat(), stripes()], ids=["flat", "a straight edge"])
def test_without_structure_nothing_is_located(image):
    assert locate(structure(image), structure(scene()), BOX) is None


def test_a_picture_is_found_if_it_fits_and_lies_within_reach():
    assert Displacement(1.0, -2.0, 0.9).is_found
    assert Displacement(0.0, 0.0, LEAST_MATCH).is_found
    assert not Displacement(0.0, 0.0, LEAST_MATCH - 0.01).is_found
    assert not Displacement(REACH, 0.0, 0.9).is_found  # at the end there may be better beyond it
    assert not Displacement(0.0, 0.5 - REACH, 0.9).is_found


@pytest.mark.parametrize("light", LIGHTS)
def test_where_it_is_found_is_what_is_located(light):
    old, new = structure(scene()), structure(LIGHTS[light](moved(scene(), 3, 1)))

    assert locate(old, new, BOX) == displacement(old, new, BOX) is not None


def test_locating_in_images_of_two_sizes_is_an_error():
    with pytest.raises(ImageError, match="one size"):
        locate(structure(scene()), structure(scene()[:, :-1]), BOX)
