"""An image before and after: which labels are looked at, of which images, and what is new."""

import json

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import BOX, LOOKS, SIDE, as_bytes, label, mixed, near, scene, shifted

from simgan_aug.audit import Limits, audit
from simgan_aug.audit.pair import View
from simgan_aug.coco import Annotation
from simgan_aug.errors import DataError, ImageError

# Any image, any label


@st.composite
def images(draw, least=1, most=48):
    """An image of any accepted kind and size."""
    height, width = draw(st.integers(least, most)), draw(st.integers(least, most))
    channels = draw(st.sampled_from([None, 1, 2, 3, 4]))
    shape = (height, width) if channels is None else (height, width, channels)
    values = np.random.default_rng(draw(st.integers(0, 99))).random(shape)
    if draw(st.booleans()):
        values = cv2.GaussianBlur(values, (0, 0), 2).reshape(shape)
    kind = draw(st.sampled_from(["uint8", "uint16", "float32", "float64"]))
    return (values * {"uint8": 255, "uint16": 65535}.get(kind, 1)).astype(kind)


sides = st.one_of(st.floats(-60, 120), st.integers(-5, 60))


@st.composite
def annotations(draw):
    """A label with a box, a mask, keypoints, or several of them, that may lie anywhere."""
    box = draw(st.one_of(st.none(), st.lists(sides, min_size=4, max_size=4)))
    polygon = st.lists(st.lists(sides, min_size=2, max_size=12), min_size=1, max_size=2)
    shape = draw(st.one_of(st.none(), polygon))
    points = draw(st.lists(st.tuples(sides, sides, st.integers(0, 2)), max_size=2))
    flat = [number for point in points for number in point]
    return Annotation(image_id=0, bbox=box, segmentation=shape, keypoints=flat)


@settings(max_examples=100, deadline=None)
@given(image=images(), labels=st.lists(annotations(), max_size=3), seed=st.integers(0, 9))
def test_any_image_with_any_labels_can_be_audited_and_told_as_json(image, labels, seed):
    other = image[np.random.default_rng(seed).permutation(len(image))]

    found = audit(image, other, labels)

    assert len(found.labels) == sum(
        bool(each.bbox or each.segmentation or 2 in (each.keypoints or ())[2::3]) for each in labels
    )
    assert msgspec.json.decode(msgspec.json.encode(found)) == json.loads(
        json.dumps(msgspec.to_builtins(found))
    )


@settings(max_examples=60, deadline=None)
@given(image=images(least=24), labels=st.lists(annotations(), max_size=3))
def test_an_image_that_is_what_it_was_passes(image, labels):
    found = audit(image, image.copy(), labels)

    assert [each.failures for each in found.labels] == [[] for _ in found.labels]
    assert found.appeared == []
    assert all(np.hypot(*(each.displacement or (0, 0))) < 0.5 for each in found.labels)


@pytest.mark.parametrize("shape", [(1, 7, 3), (3, 5, 3)])
def test_a_tiny_image_that_is_what_it_was_passes(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    whole = Annotation(image_id=0, bbox=[0, 0, shape[1], shape[0]])

    assert audit(image, image, [whole]).passes


@pytest.mark.parametrize("side", [6, 12])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_small_thing_on_black_that_is_what_it_was_passes(side, labelled):
    image = np.zeros((240, 320, 3), np.uint8)
    image[100 : 100 + side, 100 : 100 + side] = (200, 120, 40)
    labels = [Annotation(image_id=0, bbox=[100, 100, side, side])] if labelled else []

    assert audit(image, image, labels).passes


@pytest.mark.parametrize("square", [4, 6, 8, 10])
@pytest.mark.parametrize("look", ["the same", "darker", "noise", "blur", "JPEG"])
def test_a_chequered_floor_has_not_moved_by_a_square(square, look):
    rows, columns = np.indices((SIDE, SIDE)) // square
    image = np.where((rows + columns) % 2, 200, 60).astype(np.uint8)[..., None].repeat(3, 2)

    (found,) = audit(image, LOOKS[look](image), [label(segmentation=None)]).labels

    assert found.failures == []


def test_a_blown_out_sky_beside_edges_has_not_moved_by_itself():
    image = cv2.GaussianBlur(scene(), (0, 0), 2)
    image[:40] = 255
    places = np.random.default_rng(0).integers(0, 100, (100, 2)).tolist()
    labels = [Annotation(image_id=0, bbox=[x, y // 2, 8, 8]) for x, y in places]

    found = audit(image, image, labels)

    assert all(np.hypot(*(each.displacement or (0, 0))) < 0.5 for each in found.labels)
    assert not any({"displacement", "local"} & {*each.failures} for each in found.labels)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (3, 5, 3), (1, 200), (200, 1, 3)])
def test_images_smaller_than_the_windows_are_audited(shape):
    image = np.full(shape, 7, np.uint8)
    whole = Annotation(image_id=0, bbox=[0, 0, shape[1], shape[0]], keypoints=[0, 0, 2])

    found = audit(image, image, [whole])

    assert found.passes
    assert found.labels[0].is_unmeasurable


# Kinds of images


def kinds():
    """The same picture in each kind of image."""
    image = scene()
    alpha = np.full((SIDE, SIDE, 1), 200, np.uint8)
    return {
        "uint8": lambda i: i,
        "uint16": lambda i: i.astype(np.uint16) * 257,
        "10 bits": lambda i: i.astype(np.uint16) * 4,
        "big-endian": lambda i: (i.astype(np.uint16) * 257).astype(">u2"),
        "float16": lambda i: (i / 255).astype(np.float16),
        "float32": lambda i: (i / 255).astype(np.float32),
        "float64": lambda i: i / 255,
        "with alpha": lambda i: np.concatenate([i, alpha], axis=2),
        "grey": lambda i: cv2.cvtColor(i, cv2.COLOR_RGB2GRAY),
        "grey of one channel": lambda i: cv2.cvtColor(i, cv2.COLOR_RGB2GRAY)[..., None],
        "grey with alpha": lambda i: np.dstack([cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), alpha]),
        "read-only": lambda i: np.frombuffer(i.tobytes(), np.uint8).reshape(image.shape),
        "mirrored": lambda i: np.ascontiguousarray(i[:, ::-1])[:, ::-1],
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_image_is_measured_alike(kind):
    make = kinds()[kind]
    old = make(scene())

    (same,) = audit(old, old, [label()]).labels
    (moved,) = audit(old, make(shifted(scene(), 2, -1)), [label()]).labels

    assert same.failures == []
    assert "displacement" in moved.failures
    assert moved.displacement == pytest.approx((2, -1), abs=0.15)
    assert (moved.colour is None) == kind.startswith("grey")


@pytest.mark.parametrize("alpha", [np.uint8(0), np.uint8(255)])
def test_alpha_is_not_looked_at(alpha):
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    old = np.dstack([scene(), np.full((SIDE, SIDE), alpha)])
    new = np.dstack([shifted(scene()), noise])

    assert audit(old, new, [label()]) == audit(scene(), shifted(scene()), [label()])


def test_before_and_after_may_be_of_two_depths():
    new = (shifted(scene()) / 255).astype(np.float32)

    (found,) = audit(scene(), new, [label()]).labels

    assert found.displacement == pytest.approx((3, 0), abs=0.1)


def test_white_is_white_in_every_depth():
    for white in (np.uint8(255), np.uint16(65535), np.float32(1), np.float64(1)):
        for shape in ((4, 4), (4, 4, 3), (4, 4, 4)):
            assert np.allclose(View(np.full(shape, white)).smooth, 255)


def test_a_fourth_channel_that_has_changed_is_looked_at_and_alpha_is_not():
    flat, drawn = np.full_like(scene(), 90), scene()[..., :1]
    old = np.dstack([flat, drawn])

    (moved,) = audit(old, np.dstack([flat, shifted(scene())[..., :1]]), [label()]).labels
    (kept,) = audit(old, old, [label()]).labels
    (stayed,) = audit(View(old), np.dstack([flat, drawn // 2 + 60]), [label()]).labels

    assert moved.displacement == pytest.approx((3, 0), abs=0.1)
    assert kept.displacement is None
    assert stayed.displacement == pytest.approx((0, 0), abs=0.05)


def test_a_view_of_the_old_image_is_as_good_as_the_image():
    view = View(scene())

    for new in (scene(), shifted(scene())):
        assert audit(view, new, [label()]) == audit(scene(), new, [label()])


@pytest.mark.parametrize("swapped", [False, True])
def test_images_of_two_sizes_are_an_error_that_says_both(swapped):
    pair = [scene(), scene()[:-1, :-2]]

    with pytest.raises(ImageError, match=r"one size.*\(12[78], 12[68]\).*\(12[78], 12[68]\)"):
        audit(*(pair[::-1] if swapped else pair))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (scene().astype(np.int16), r"int16 of shape \(128, 128, 3\)"),
        (scene().astype(np.uint32), "uint32"),
        (scene() > 90, "bool"),
        (scene()[None], r"\(1, 128, 128, 3\)"),
        (scene()[:0], r"\(0, 128, 3\)"),
        (scene().astype(np.float32), r"in \[0, 1\], got values from .* divide"),
        (np.full((9, 9, 3), np.nan, np.float32), "nan"),
    ],
    ids=["int16", "uint32", "bool", "a batch", "empty", "floats to 255", "NaN"],
)
def test_what_is_no_image_is_an_error_that_says_what_came(image, message):
    fine = np.zeros((SIDE, SIDE, 3), np.uint8)

    for pair in ((image, image), (fine, image), (image, fine)):
        with pytest.raises(ImageError, match=message):
            audit(*pair)


# Labels


def test_a_label_is_told_with_its_id_its_category_and_its_box():
    anonymous = label(id=None, category_id=None)
    named, other = audit(scene(), scene(), [label(id="a"), anonymous], {1: "hand"}).labels

    assert (named.id, named.category, named.bbox) == ("a", "hand", BOX)
    assert (other.id, other.category) == (None, "")


def test_the_box_of_a_mask_without_one_is_what_it_covers():
    (found,) = audit(scene(), scene(), [label(bbox=None)]).labels

    assert found.bbox == pytest.approx(BOX, abs=1)


def test_captions_are_left_out():
    caption = Annotation(image_id=0, id=1)

    found = audit(scene(), shifted(scene()), [caption, label(), caption])

    assert [each.id for each in found.labels] == [7]


EMPTY = [
    [[]],
    [[60, 50, 159, 139]],
    [[40, 40, 40, 40, 40, 40]],
    {"size": [SIDE, SIDE], "counts": [SIDE * SIDE]},
]
"""Segmentations in which nothing is."""


@pytest.mark.parametrize("empty", EMPTY)
def test_a_label_whose_mask_is_empty_is_looked_at_by_its_box(empty):
    old = scene()
    new = shifted(old, 5, 0, box=[48, 28, 36, 56], by=2)

    found = [audit(old, new, [label(segmentation=each)]).labels for each in (None, empty)]

    assert found[0] == found[1]
    assert "local" in found[1][0].failures
    assert found[1][0].content is not None


def test_a_box_of_no_area_beside_a_mask_is_the_box_of_the_mask():
    (found,) = audit(scene(), shifted(scene(), 6, 0), [label(bbox=[0, 0, 0, 0])]).labels

    assert found.bbox == pytest.approx(BOX, abs=1)
    assert "displacement" in found.failures


@pytest.mark.parametrize("box", [None, [], [0, 0, 0, 0]])
def test_a_label_of_keypoints_alone_is_looked_at_around_them(box):
    joints = {"bbox": box, "segmentation": None, "keypoints": JOINTS}

    (found,) = audit(scene(), shifted(scene(), 5, 0), [label(**joints)]).labels

    assert found.bbox == [26, 30, 60, 50]
    assert {"displacement", "keypoints"} <= {*found.failures}
    assert found.displacement == pytest.approx((5, 0), abs=0.3)


@pytest.mark.parametrize(
    "where",
    [
        {"bbox": [-50, -50, 20, 20]},
        {"bbox": [500, 10, 20, 20]},
        {"bbox": [60, 60, 0, 0]},
        {"bbox": [60, 60, 1, 1]},
        {"bbox": [60, 60, -20, -20]},
        {"bbox": None, "segmentation": [[50, 50, 50, 50, 50, 50]]},
        {"bbox": None, "segmentation": [[50, 50]]},
        {"bbox": [60, 60, 0, 0], "segmentation": [[40, 40, 40, 40, 40, 40]]},
    ],
)
def test_a_label_of_hardly_a_px_passes_an_unchanged_image(where):
    (found,) = audit(scene(), scene(), [label(**{"segmentation": None} | where)]).labels

    assert found.failures == []
    assert found.content is None


@pytest.mark.parametrize(
    "box", [[-1000, -1000, 3000, 3000], [0, 0, SIDE, SIDE], [100, 100, 99, 99]]
)
def test_a_box_may_be_larger_than_the_image(box):
    old = scene()
    new = np.roll(old, (2, -1), axis=(1, 0))

    (found,) = audit(old, new, [label(bbox=box, segmentation=None)]).labels

    assert found.displacement == pytest.approx((2, -1), abs=0.35)


@pytest.mark.parametrize("box", [[1, 2], [1, 2, 3, float("nan")], [1, 2, float("inf"), 4]])
@pytest.mark.parametrize("shape", [None, [[1, 1, 9, 1, 9, 9]]])
def test_a_box_that_makes_no_sense_is_an_error_that_shows_it(box, shape):
    with pytest.raises(DataError, match="image 0: "):
        audit(scene(), scene(), [Annotation(image_id=0, bbox=box, segmentation=shape)])


# Keypoints

JOINTS = [36, 40, 2, 56, 70, 2, 76, 40, 2]


def test_one_joint_moved_fails_only_by_keypoints_and_is_the_one_that_is_told():
    old = scene()
    new = shifted(old, 3, 0, box=[41, 55, 30, 30], by=2)

    (found,) = audit(old, new, [label(keypoints=JOINTS)]).labels

    assert "keypoints" in found.failures
    assert {*found.failures} <= {"keypoints", "local"}
    first, second, third = found.keypoints
    assert second == pytest.approx(3, abs=0.4)
    assert max(first, third) < 0.2


@pytest.mark.parametrize("visibility", [0, 1])
def test_a_joint_that_cannot_be_seen_is_not_looked_at(visibility):
    old = scene()
    new = shifted(old, 3, 0, box=[44, 58, 24, 24], by=2)
    joints = [36, 40, 2, 56, 70, visibility, 76, 40, 2]

    (found,) = audit(old, new, [label(keypoints=joints)]).labels

    assert len(found.keypoints) == 2
    assert "keypoints" not in found.failures


def test_of_a_joint_whose_picture_is_gone_nothing_is_said():
    old = scene()
    new = mixed(old, np.full_like(old, 140), near([48, 62, 16, 16], by=8))

    (found,) = audit(old, new, [label(keypoints=JOINTS)]).labels

    assert found.keypoints[1] is None
    assert "keypoints" not in found.failures


@pytest.mark.parametrize("joints", [None, [], [0, 0, 0], [-99, -99, 2], [56.5, 1e9, 2]])
def test_joints_that_are_nowhere_are_no_fault(joints):
    (found,) = audit(scene(), scene(), [label(keypoints=joints)]).labels

    assert all(each is None for each in found.keypoints)
    assert found.failures == []


@pytest.mark.parametrize("joints", [5, [1, "x", 2], [[1], 2, 2], [float("inf"), 1, 2]])
def test_joints_that_are_no_numbers_are_an_error_that_shows_them(joints):
    with pytest.raises(DataError, match="expected keypoints as x, y, v"):
        audit(scene(), scene(), [label(keypoints=joints)])


# What has appeared


def pasted(image, left, top, side=24):
    """A checkered thing beside the label."""
    new = image.copy()
    tiles = np.indices((side, side)).sum(0) // 6 % 2
    new[top : top + side, left : left + side] = np.where(tiles, 230, 20)[..., None]
    return new


@pytest.mark.parametrize(("left", "top"), [(96, 96), (98, 20), (4, 100)])
@pytest.mark.parametrize("look", ["the same", "darker", "noise", "JPEG"])
def test_what_is_pasted_beside_a_label_is_found_where_it_is(left, top, look):
    old = scene()

    found = audit(old, LOOKS[look](pasted(old, left, top)), [label()])

    assert found.labels[0].failures == []
    x, y, width, height = found.appeared[0]["bbox"]
    assert len(found.appeared) == 1
    assert (x + width / 2, y + height / 2) == pytest.approx((left + 12, top + 12), abs=6)
    assert found.appeared[0]["score"] > 1
    assert not found.passes


def test_nothing_under_a_label_has_appeared():
    old = scene()

    found = audit(old, pasted(old, 44, 44), [label()])

    assert found.appeared == []
    assert "content" in found.labels[0].failures


def test_what_has_appeared_is_told_the_strongest_first():
    old = as_bytes(scene() * 0.5 + 60.0)
    weak = pasted(old, 98, 6)
    faint = as_bytes(old * 0.5 + weak * 0.5)

    found = audit(old, pasted(faint, 98, 98), [label()])

    scores = [each["score"] for each in found.appeared]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert found.appeared[0]["bbox"][1] > 80


def test_a_limit_that_nothing_reaches_looks_for_nothing():
    limits = Limits(appeared=1e6)

    assert audit(scene(), pasted(scene(), 96, 96), [label()], limits=limits).passes


def test_a_label_tells_how_sure_its_displacement_is():
    old = scene()
    noisy = np.clip(old + np.random.default_rng(0).normal(0, 20, old.shape), 0, 255)

    (same,) = audit(old, old, [label()]).labels
    (less,) = audit(old, noisy.astype(np.uint8), [label()]).labels
    (flat,) = audit(np.full_like(old, 90), old, [label()]).labels

    assert same.match == pytest.approx(1, abs=1e-3)
    assert 0.25 < less.match < 0.99
    assert flat.match is None


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_an_image_of_16_bits_counts_in_the_bits_that_it_uses(bits):
    image = scene()
    image[0, 0] = 255

    deep = View(image.astype(np.uint16) << (bits - 8))

    assert np.abs(deep.smooth - View(image).smooth).max() < 1
    assert View(np.zeros((9, 9), np.uint16)).smooth.max() == 0
