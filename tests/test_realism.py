"""A distance to real that ranks, with its floor."""

import numpy as np
import pytest

from simgan_aug.errors import DataError
from simgan_aug.realism import features, kid


def textures(count, seed, tint=0, grain=10):
    rng = np.random.default_rng(seed)
    flat = 100 + tint + rng.normal(0, 12, (count, 1, 1, 3))
    noise = rng.normal(0, grain, (count, 24, 24, 3))
    return list((flat + noise).clip(0, 255).astype(np.uint8))


def test_two_halves_of_one_set_are_at_distance_zero_within_the_interval():
    distance = kid(features(textures(60, 0), 3), features(textures(60, 1), 3))

    assert distance.low <= 0.0 <= distance.high or abs(distance.value) < 0.05


@pytest.mark.parametrize("change", [{"tint": 30}, {"grain": 20}])
def test_a_tint_or_a_grain_is_further_than_the_floor(change):
    real = features(textures(60, 0), 3)
    floor = kid(features(textures(60, 1), 3), real)
    other = kid(features(textures(60, 2, **change), 3), real)

    assert other.low > floor.high


def test_the_interval_holds_the_value():
    distance = kid(features(textures(40, 0), 3), features(textures(40, 1, tint=20), 3))

    assert distance.low <= distance.value <= distance.high


def test_features_do_not_depend_on_the_neighbours():
    images = textures(4, 0)

    alone, together = features(images[:1], 3), features(images, 3)

    assert np.allclose(alone[0], together[0])


def test_a_handful_of_images_is_no_sample():
    few = features(textures(7, 0), 3)

    with pytest.raises(DataError, match="needs 8 images"):
        kid(few, few)
