"""The guard: what comes out passes, and no more is taken back than must be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import (
    BOX,
    LOOKS,
    SIDE,
    as_bytes,
    erased,
    label,
    repainted,
    scene,
    shifted,
    swollen,
    warped,
)

from simgan_aug.audit import Guard, Limits, audit
from simgan_aug.audit.guard import CELL, FEATHER, POLICIES, RIM, STEPS, cells
from simgan_aug.coco import Annotation
from simgan_aug.errors import ConfigError, ImageError
from simgan_aug.pixels import blend

FAULTS = {
    "shift": lambda image, by: shifted(image, 6 * by),
    "warp": lambda image, by: warped(image, 6 * by),
    "growth": lambda image, by: swollen(image, 7 * by),
    "erasure": lambda image, by: blend(image, erased(image), by),
    "repaint": lambda image, by: blend(image, repainted(image), by),
    "roll": lambda image, by: np.roll(image, round(5 * by), axis=1),
}

OTHER = Annotation(image_id=0, id="other", bbox=[96.0, 96.0, 24.0, 24.0])


def refined(fault="shift", look="darker", seed=0):
    """A scene in another light, in which the disc is not what it was."""
    return LOOKS[look](FAULTS[fault](scene(seed), 1.0))


# What comes out


@settings(max_examples=30, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    fault=st.sampled_from(sorted(FAULTS)),
    look=st.sampled_from(sorted(LOOKS)),
    by=st.floats(0, 1),
    seed=st.integers(0, 99),
    bound=st.booleans(),
)
def test_what_comes_out_passes_an_audit_by_the_same_limits(policy, fault, look, by, seed, bound):
    old = scene(seed)
    new = LOOKS[look](FAULTS[fault](old, by))
    limits = Limits(displacement=0.3, content=0.8) if bound else Limits()

    out, _ = Guard(policy, limits)(old, new, [label(), OTHER])

    assert audit(old, out, [label(), OTHER], limits=limits).passes


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("look", LOOKS)
def test_an_image_that_passes_is_the_same_object(policy, look):
    new = LOOKS[look](scene())
    before = new.copy()

    out, done = Guard(policy)(scene(), new, [label()])

    assert out is new
    assert np.array_equal(out, before)
    assert done.is_untouched
    assert (done.strength, done.labels, done.failures) == (1.0, [], [])


@pytest.mark.parametrize("policy", POLICIES)
def test_neither_image_is_written_to(policy):
    old, new = scene(), refined()
    for image in (old, new):
        image.flags.writeable = False

    out, _ = Guard(policy)(old, new, [label()])

    assert np.array_equal(old, scene())
    assert np.array_equal(new, refined())
    assert not np.array_equal(out, new)


# How much is taken back


@pytest.mark.parametrize("fault", FAULTS)
def test_of_a_whole_image_the_largest_strength_that_passes_is_taken(fault):
    old, new = scene(), refined(fault)

    out, done = Guard("image")(old, new, [label()])

    assert done.strength * STEPS in range(STEPS)
    assert np.array_equal(out, blend(old, new, done.strength))
    for more in np.arange(done.strength * STEPS + 1, STEPS + 1) / STEPS:
        assert not audit(old, blend(old, new, more), [label()]).passes


@pytest.mark.parametrize("policy", POLICIES)
def test_what_no_strength_lets_pass_is_the_original(policy):
    limits = Limits(contour=1.5)  # which nothing reaches

    out, done = Guard(policy, limits)(scene(), refined(), [label()])

    assert np.array_equal(out, scene())
    assert done.strength == 0
    assert {"contour", "displacement"} <= {*done.failures}
    assert not done.is_untouched


def away(*boxes):
    """(SIDE, SIDE) px from the nearest of some boxes."""
    rows, columns = np.indices((SIDE, SIDE))
    each = [
        np.hypot(
            np.maximum(0, np.maximum(x - columns, columns - (x + w - 1))),
            np.maximum(0, np.maximum(y - rows, rows - (y + h - 1))),
        )
        for x, y, w, h in boxes
    ]
    return np.min(each, axis=0)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("fault", ["shift", "warp", "growth"])
def test_far_from_labels_that_fail_every_bit_is_as_refined(fault, kind):
    scale = {"uint8": 1, "uint16": 257}.get(kind, 1 / 255)
    old, new = ((i * np.float64(scale)).astype(kind) for i in (scene(), refined(fault)))
    failing = Annotation(image_id=0, id=1, bbox=BOX)

    out, done = Guard("label")(old, new, [failing, OTHER])

    far = away(BOX) > RIM + FEATHER + 1  # distances are taken to a px
    assert done.strength == 1
    assert [name for name, _ in done.labels] == [1]
    assert far.sum() > 1000
    assert np.array_equal(out[far], new[far])
    near = away(BOX) <= RIM - 1
    assert not np.array_equal(out[near], new[near])


def test_under_a_label_and_on_its_rim_the_share_is_what_is_told():
    old, new = scene(), refined()
    failing = Annotation(image_id=0, id=1, bbox=BOX)

    out, done = Guard("label")(old, new, [failing])

    ((_, share),) = done.labels
    at = away(BOX) <= RIM - 1
    assert np.array_equal(out[at], blend(old, new, share)[at])
    assert audit(old, out, [failing]).passes


def test_a_smaller_share_of_the_label_is_taken_only_if_a_larger_one_fails():
    old, new = scene(), refined()

    _, done = Guard("label")(old, new, [label()])

    ((_, share),) = done.labels
    assert 0 < share < 1 or share == 0
    assert share * STEPS == int(share * STEPS)
    assert not audit(old, blend(old, new, share + 1 / STEPS), [label()]).passes


def test_only_the_label_that_fails_is_named():
    fine = Annotation(image_id=0, id="fine", bbox=[96.0, 96.0, 24.0, 24.0])

    _, done = Guard("label")(scene(), refined(), [fine, label(id=2**60)])

    assert [name for name, _ in done.labels] == [2**60]
    assert "displacement" in done.failures
    assert done.failures == sorted(done.failures)


@pytest.mark.parametrize(
    "where",
    [
        {"segmentation": [[]]},
        {"segmentation": None, "bbox": None, "keypoints": [36, 40, 2, 56, 70, 2, 76, 40, 2]},
    ],
)
def test_what_a_label_of_an_empty_mask_or_of_keypoints_alone_fails_by_is_taken_back(where):
    old = scene()
    new = LOOKS["darker"](shifted(old, 5, 0))

    guarded, done = Guard("label")(old, new, [label(**where)])

    ((id, strength),) = done.labels
    assert (id, done.strength) == (7, 1)
    assert strength < 0.7
    assert np.array_equal(guarded[-8:], new[-8:])


def test_labels_of_one_id_or_of_none_are_told_apart():
    old = scene()
    new = shifted(old, 3, 0, box=[4, 4, SIDE - 8, SIDE - 8])
    both = [label(id=None), Annotation(image_id=0, bbox=[92.0, 92.0, 28.0, 28.0])]

    out, done = Guard("label")(old, new, both)

    assert [name for name, _ in done.labels] == [None, None]
    assert audit(old, out, both).passes


def test_what_has_appeared_is_taken_back_too():
    old = as_bytes(scene() * 0.5 + 50.0)
    new = old.copy()
    new[98:122, 98:122] = np.where(np.indices((24, 24)).sum(0) // 6 % 2, 230, 20)[..., None]

    out, done = Guard("label")(old, new, [label()])

    assert done.failures == ["appeared"]
    assert [name for name, _ in done.labels] == ["new"]
    assert audit(old, out, [label()]).appeared == []
    assert np.array_equal(out[:60, :60], new[:60, :60])


# Without labels


def test_without_annotations_cells_stand_for_labels():
    old, new = scene(), refined()

    out, done = Guard("label")(old, new, None)

    assert not audit(old, new, cells(SIDE, SIDE)).passes
    assert audit(old, out, cells(SIDE, SIDE)).passes
    assert not done.is_untouched


def test_an_image_of_no_labels_is_held_only_against_what_has_appeared():
    new = np.roll(scene(), 1, axis=1)

    out, done = Guard("label")(scene(), new, [])
    caption, _ = Guard("label")(scene(), new, [Annotation(image_id=0)])

    assert out is new
    assert caption is new
    assert done.is_untouched


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 500), width=st.integers(1, 500))
def test_cells_cover_an_image_and_are_about_of_their_size(height, width):
    found = [each.bbox for each in cells(height, width)]

    assert sum(w * h for _, _, w, h in found) == pytest.approx(height * width)
    assert max(x + w for x, _, w, _ in found) == pytest.approx(width)
    assert max(y + h for _, y, _, h in found) == pytest.approx(height)
    assert all(w <= 1.5 * CELL and h <= 1.5 * CELL for _, _, w, h in found)


# Kinds of images


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32", "float64", ">u2"])
def test_dtype_shape_and_alpha_are_kept(policy, channels, kind):
    scale = {"uint8": 1, "uint16": 257, ">u2": 257}.get(kind, 1 / 255)
    alpha = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 1))

    def made(image):
        if channels in (None, 1, 2):
            image = image[..., 0] if channels is None else image[..., :1]
        if channels in (2, 4):
            image = np.concatenate([image, alpha], axis=2)
        return (image * np.float64(scale)).astype(kind)

    old, new = made(scene()), made(refined())

    out, done = Guard(policy)(old, new, [label()])

    assert not done.is_untouched
    assert (out.dtype, out.shape) == (new.dtype, new.shape)
    if channels in (2, 4):
        assert np.array_equal(out[..., -1], old[..., -1])


def test_images_of_two_sizes_or_kinds_are_an_error_that_says_both():
    old, new = scene(), refined()

    with pytest.raises(ImageError, match="one size"):
        Guard()(old, new[:-1], [label()])
    with pytest.raises(ImageError, match=r"uint8 of \(128, 128, 3\) and uint16"):
        Guard()(old, new.astype(np.uint16) * 257, [label()])
    with pytest.raises(ImageError, match=r"\(128, 128, 3\) and uint8 of \(128, 128\)"):
        Guard()(old, new[..., 0], [label()])


@pytest.mark.parametrize("policy", ["labels", "", None, "IMAGE"])
def test_another_policy_is_an_error_that_names_the_two(policy):
    with pytest.raises(ConfigError, match=f"one of image, label, got {policy!r}"):
        Guard(policy)
