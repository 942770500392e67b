"""The geometry of labels: masks of every kind, and what a label weighs where."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools import mask as pycoco

from simgan_aug.coco import Annotation
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.geometry import check_weights, mask_of, weight_map

SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # columns 2 to 5, rows 1 to 3
OTHER = [8, 5, 10, 5, 10, 8, 8, 8]


def box(top, left, bottom, right, height=10, width=12):
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def label(segmentation=None, bbox=None, category=None):
    return Annotation(image_id=1, category_id=category, bbox=bbox, segmentation=segmentation)


def test_a_polygons_mask_is_its_inside():
    mask = mask_of(label([SQUARE]), 10, 12)

    assert mask.dtype == bool
    assert np.array_equal(mask, box(1, 2, 4, 6))


def test_the_parts_of_a_polygon_are_united():
    mask = mask_of(label([SQUARE, OTHER]), 10, 12)

    assert np.array_equal(mask, box(1, 2, 4, 6) | box(5, 8, 8, 10))


@pytest.mark.parametrize("degenerate", [[], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5]])
def test_a_polygon_of_less_than_three_points_has_no_area(degenerate):
    assert not mask_of(label([degenerate]), 10, 12).any()
    assert np.array_equal(mask_of(label([degenerate, SQUARE]), 10, 12), box(1, 2, 4, 6))


def test_a_polygon_may_stick_out_of_the_image():
    mask = mask_of(label([[-50, -50, 600, -50, 600, 5, -50, 5]]), 10, 12)

    assert np.array_equal(mask, box(0, 0, 5, 12))


@given(pixels=st_numpy.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_both_kinds_of_rle_are_the_mask_they_were_made_of(pixels):
    packed = pycoco.encode(np.asfortranarray(pixels.astype(np.uint8)))
    compressed = {"size": list(pixels.shape), "counts": packed["counts"].decode()}
    column_by_column = pixels.T.reshape(-1).astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], column_by_column])))
    runs = np.diff(np.concatenate([[0], changes, [pixels.size]])).tolist()
    uncompressed = {"size": list(pixels.shape), "counts": runs}

    for segmentation in (compressed, uncompressed):
        assert np.array_equal(mask_of(label(segmentation), *pixels.shape), pixels)


def test_a_crowds_mask_is_that_of_its_rle():
    mask = mask_of(label({"size": [2, 3], "counts": [1, 2, 3]}), 2, 3)

    assert mask.tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize("segmentation", [None, [], {}.get("x")])
def test_without_a_mask_the_box_counts(segmentation):
    mask = mask_of(label(segmentation, bbox=[2.2, 1.5, 3.0, 2.0]), 10, 12)

    assert np.array_equal(mask, box(1, 2, 4, 6))


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([-5, -5, 8, 7], box(0, 0, 2, 3)),
        ([10, 8, 50, 50], box(8, 10, 10, 12)),
        ([50, 50, 5, 5], box(0, 0, 0, 0)),
        ([3, 3, 0, 0], box(0, 0, 0, 0)),
        ([6, 6, -3, -3], box(0, 0, 0, 0)),
        ([1e300, 0, 1, 1], box(0, 0, 0, 0)),
    ],
)
def test_a_box_is_cut_at_the_border(bbox, expected):
    mask = mask_of(label(bbox=bbox), 10, 12)

    assert np.array_equal(mask, expected)


HOSTILE = [
    [[float("nan"), 1, 5, 6, 7, 8]],
    [[float("inf"), 1, 5, 6, 7, 8]],
    [[float("inf"), 1, float("inf"), 6, 7, 8]],
    [[1e308, 1, -1e308, 6, 7, 8]],
    [[1e9, 1, 5, 6, 7, 8]],
    [[10**400, 1, 5, 6, 7, 8]],
    [[0, 0, 1e6, 1e6] * 1000],
    [["a", 1, 5, 6, 7, 8]],
    [[None, 1, 5, 6, 7, 8]],
    [[[1, 2], [5, 6], [7, 8], [1, 1], [2, 2], [3, 3]]],
    [SQUARE, None],
    [5],
    SQUARE,
    [{"size": [10, 12], "counts": [120]}],
    "polygon",
    5,
    {"size": [10, 12]},
    {"counts": [120]},
    {"size": [10, 12], "counts": None},
    {"size": [10, 12], "counts": [60]},
    {"size": [10, 12], "counts": [60, 61]},
    {"size": [10, 12], "counts": []},
    {"size": [10, 12], "counts": ""},
    {"size": [10, 12], "counts": [-1, 121]},
    {"size": [10, 12], "counts": [59.5, 60.5]},
    {"size": [10, 12], "counts": [10**13]},
    {"size": [10, 12], "counts": [2**70]},
    {"size": [10, 12], "counts": ["120"]},
    {"size": [10, 12], "counts": "garbage"},
    {"size": [10, 12], "counts": "PPPPPP"},
    {"size": [10, 12], "counts": "\u00e9"},
    {"size": [12, 10], "counts": [120]},
    {"size": [10**6, 10**6], "counts": [10**12]},
    {"size": None, "counts": [120]},
]


@pytest.mark.parametrize("segmentation", HOSTILE, ids=lambda value: str(value)[:40])
def test_a_segmentation_that_makes_no_sense_is_an_error_and_no_crash(segmentation):
    with pytest.raises(DataError, match="image 1: an annotation cannot be decoded: "):
        mask_of(label(segmentation), 10, 12)


@pytest.mark.parametrize(
    "bbox", [None, [], [1, 2, 3], [float("nan"), 1, 2, 3], [1, 2, float("inf"), 3]], ids=str
)
def test_a_label_without_a_place_is_an_error(bbox):
    with pytest.raises(DataError, match="image 1: an annotation cannot be decoded: "):
        mask_of(label(bbox=bbox), 10, 12)


def test_points_far_away_are_no_crash():
    mask = mask_of(label([[1e300, 1e300] * 3]), 10, 12)

    assert mask.shape == (10, 12)


NAMES = {1: "hand", 2: "ring", "3": "cup"}


def test_weights_are_drawn_by_category_and_the_larger_holds():
    labels = [
        label([SQUARE], category=1),
        label(bbox=[4, 2, 4, 4], category=2),
        label(bbox=[10, 8, 2, 2], category="3"),
    ]

    weights = weight_map(labels, NAMES, {"hand": 2, "ring": 5, "background": 0.5}, 10, 12)

    expected = np.full((10, 12), 0.5, dtype=np.float32)
    expected[1:4, 2:6] = 2
    expected[8:, 10:] = 1
    expected[2:6, 4:8] = 5
    assert weights.dtype == np.float32
    assert np.array_equal(weights, expected)


def test_labels_that_lie_nowhere_have_no_weight():
    labels = [label(None, category=2), label([SQUARE], category=1)]

    weights = weight_map(labels, NAMES, {"hand": 2, "ring": 5}, 10, 12)

    assert weights.max() == 2


def test_the_order_of_overlapping_labels_does_not_matter():
    labels = [label([SQUARE], category=1), label(bbox=[4, 2, 4, 4], category=2)]

    maps = [
        weight_map(each, NAMES, {"hand": 2, "ring": 5}, 10, 12) for each in (labels, labels[::-1])
    ]

    assert np.array_equal(*maps)


def test_categories_that_are_not_named_have_the_weight_of_labels():
    labels = [label([SQUARE], category=1), label([OTHER], category=99), label(bbox=[0, 9, 1, 1])]

    weights = weight_map(labels, NAMES, {"labels": 3}, 10, 12)

    everywhere = box(1, 2, 4, 6) | box(5, 8, 8, 10) | box(9, 0, 10, 1)
    assert np.array_equal(weights, np.where(everywhere, 3, 1))


def test_a_label_may_weigh_nothing():
    weights = weight_map([label([SQUARE], category=1)], NAMES, {"hand": 0}, 10, 12)

    assert np.array_equal(weights, np.where(box(1, 2, 4, 6), 0, 1))


def test_an_image_without_labels_is_background():
    weights = weight_map([], NAMES, {"background": 0.25}, 2, 3)

    assert np.array_equal(weights, np.full((2, 3), 0.25))


def test_a_weight_of_an_unknown_category_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        check_weights({"background": 1, "labels": 1, "hans": 2}, NAMES)

    assert str(caught.value) == (
        "regularization.labels: no category 'hans' "
        "(known: background, cup, hand, labels, ring); did you mean 'hand'?"
    )


def test_weights_of_known_categories_are_accepted():
    check_weights({"background": 0, "labels": 1, "hand": 2, "cup": 3}, NAMES)
