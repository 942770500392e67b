"""Tiles cover an image, know where they lie, and fit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simgan_aug.tiles import tiled, whole

SHAPE = {
    "height": st.integers(1, 300),
    "width": st.integers(1, 300),
    "margin": st.integers(0, 40),
    "budget": st.integers(1, 40_000),
    "multiple": st.sampled_from([1, 2, 4, 32]),
}


@given(**SHAPE)
def test_each_place_is_covered_once(height, width, margin, budget, multiple):
    covered = np.zeros((height, width), int)

    for tile in tiled(height, width, margin, budget, multiple):
        covered[tile.place] += 1

    assert (covered == 1).all()


@given(**SHAPE)
def test_what_is_inside_of_what_a_tile_sees_is_its_place(height, width, margin, budget, multiple):
    image = np.arange(height * width).reshape(height, width)

    for tile in tiled(height, width, margin, budget, multiple):
        np.testing.assert_array_equal(image[tile.seen][tile.inner], image[tile.place])


@given(**SHAPE)
def test_a_tile_sees_a_halo_on_every_side_but_beyond_the_border(
    height, width, margin, budget, multiple
):
    for tile in tiled(height, width, margin, budget, multiple):
        for seen, place, length in zip(tile.seen, tile.place, (height, width), strict=True):
            assert seen.start == max(0, place.start - margin)
            assert seen.stop == min(length, place.stop + margin)


@given(**SHAPE)
def test_tiles_begin_on_the_grid_of_the_network(height, width, margin, budget, multiple):
    for tile in tiled(height, width, margin, budget, multiple):
        assert all(axis.start % multiple == 0 for axis in tile.place)


@given(**SHAPE)
def test_a_tile_fits_the_budget_or_is_as_small_as_they_get(height, width, margin, budget, multiple):
    for tile in tiled(height, width, margin, budget, multiple):
        rows, columns = (axis.stop - axis.start for axis in tile.seen)
        least = max(16, multiple)
        fits = rows * columns <= budget
        assert fits or all(axis.stop - axis.start <= least for axis in tile.place)


def test_an_image_that_is_not_cut_is_one_tile():
    (tile,) = whole(3, 5)

    image = np.arange(15).reshape(3, 5)
    assert all((image[box] == image).all() for box in tile)
