"""Each measure sees its own fault, and none a change of appearance."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import (
    BOX,
    LOOKS,
    SECOND_DIGIT,
    as_bytes,
    crossing,
    erased,
    jpeg,
    label,
    noisy,
    outline,
    plain,
    plate,
    repainted,
    scene,
    shifted,
    swollen,
    texture,
    warped,
)

from simgan_aug.audit import MEASURES, Limits, audit
from simgan_aug.audit import measures as measured
from simgan_aug.audit.limits import LOW_IS_BAD, fails
from simgan_aug.audit.pair import Pair, View
from simgan_aug.audit.totals import value_of
from simgan_aug.coco import Annotation
from simgan_aug.geometry import mask_of

FAULTS = {
    "displacement": (scene, shifted),
    "local": (scene, warped),
    "contour": (plain, swollen),
    "content": (scene, repainted),
    "contrast": (scene, erased),
}


def of_disc(old, new, **more):
    (found,) = audit(old, new, [label(**more)]).labels
    return found


def pair_of(old, new):
    return Pair(View(old), View(new))


def boxed(*bbox):
    return Annotation(image_id=0, bbox=list(bbox))


# What is no fault


@pytest.mark.parametrize("seed", range(5))
def test_of_an_unchanged_image_every_measure_is_at_its_best(seed):
    found = of_disc(scene(seed), scene(seed), keypoints=[40, 40, 2])

    assert found.displacement == pytest.approx((0, 0), abs=0.02)
    assert found.local == pytest.approx(0, abs=0.05)
    assert found.keypoints == pytest.approx([0], abs=0.05)
    assert found.contour == 1
    assert found.content == pytest.approx(1, abs=0.01)
    assert found.contrast == pytest.approx(1, abs=0.05)
    assert found.colour == pytest.approx(0, abs=0.01)
    assert found.failures == []


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("old", [scene(0), scene(1), plain(), crossing()])
def test_no_look_is_a_fault(look, old):
    points = [56, 56, 2, 40, 40, 2]

    found = audit(old, LOOKS[look](old), [label(keypoints=points), boxed(50, 20, 20, 56)])

    assert [each.failures for each in found.labels] == [[], []]
    assert found.appeared == []


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    gamma=st.floats(0.5, 2),
    gains=st.tuples(*[st.floats(0.7, 1.3)] * 3),
    grain=st.floats(0, 10),
    blur=st.floats(0.1, 1.2),
)
def test_looks_together_are_no_fault(seed, gamma, gains, grain, blur):
    old = scene(seed)
    new = as_bytes(255 * (old / 255.0) ** gamma * gains)
    new = noisy(cv2.GaussianBlur(new, (0, 0), blur), grain, seed)

    found = audit(old, new, [label()])

    assert found.passes


# Faults


@pytest.mark.parametrize("look", ["the same", "darker", "a colour cast", "noise", "JPEG"])
@pytest.mark.parametrize("measure", FAULTS)
def test_each_measure_fails_for_its_own_fault_in_any_light(measure, look):
    make, plant = FAULTS[measure]
    old = make()

    found = of_disc(old, LOOKS[look](plant(old)))

    assert measure in found.failures


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    distance=st.floats(0.9, 9),
    angle=st.floats(0, 2 * np.pi),
    look=st.sampled_from(sorted(LOOKS)),
)
def test_a_shift_fails_by_displacement_and_is_told_to_a_third_of_a_px(seed, distance, angle, look):
    x, y = distance * np.cos(angle), distance * np.sin(angle)
    old = scene(seed)

    found = of_disc(old, LOOKS[look](shifted(old, x, y)))

    assert "displacement" in found.failures
    assert found.displacement == pytest.approx((x, y), abs=0.34)


@pytest.mark.parametrize("seed", range(4))
def test_a_lost_picture_is_a_failure_and_not_unmeasurable(seed):
    old = plain(seed)
    new = np.full_like(old, 80)

    found = of_disc(old, new)

    assert found.displacement is None
    assert "displacement" in found.failures
    assert not found.is_unmeasurable


LIGHT = boxed(50, 20, 20, 56)


def test_a_red_light_that_has_turned_green_fails_by_colour_alone():
    (found,) = audit(crossing(), crossing(lit=(40, 220, 60)), [LIGHT]).labels

    assert found.failures == ["colour"]


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 0, 1], [0, 0, 0]])
def test_a_red_light_that_is_green_in_a_world_of_turned_colours_passes(order):
    (found,) = audit(crossing(), crossing()[..., order], [LIGHT]).labels

    assert found.failures == []


@pytest.mark.parametrize(
    ("before", "after"), [("40", "41"), ("47", "40"), ("48", "41"), ("49", "43")]
)
def test_a_repainted_digit_fails_by_content(before, after):
    (found,) = audit(plate(before), plate(after), [boxed(*SECOND_DIGIT)]).labels

    assert "content" in found.failures


def test_chroma_that_is_off_everywhere_is_no_labels_fault():
    old = scene()
    new = as_bytes(old * 0.5 + 60 + texture(3, 0, 2, contrast=50))

    found = of_disc(old, new)

    assert pair_of(old, new).usual_off_colour > 45
    assert "colour" not in found.failures


def test_what_happens_beside_a_label_is_not_its_fault():
    old = plate("47")

    (found,) = audit(old, plate("17"), [boxed(*SECOND_DIGIT)]).labels

    assert found.failures == []


# Where nothing can be told


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_of_a_flat_image_nothing_but_content_and_colour_is_told_and_it_passes(kind):
    flat = np.full((64, 64, 3), 90, np.uint8)
    shape = [[10, 10, 40, 10, 40, 40, 10, 40]] if kind == "mask" else None

    (found,) = audit(
        flat, flat, [Annotation(image_id=0, bbox=[10, 10, 30, 30], segmentation=shape)]
    ).labels

    assert found.is_unmeasurable
    told = {name: value_of(found, name) for name in MEASURES}
    assert {name: value for name, value in told.items() if value is not None} == {
        "content": 1,
        "colour": 0,
    }


def test_of_a_label_too_small_to_tell_nothing_is_told_of_place_contour_and_content():
    small = [[60, 60, 65, 60, 65, 65, 60, 65]]

    (found,) = audit(
        scene(), erased(scene()), [Annotation(image_id=0, segmentation=small, bbox=[60, 60, 5, 5])]
    ).labels

    assert found.content is None
    assert found.contour is None


def test_a_box_has_no_contour_and_a_grey_image_no_colour():
    grey = scene()[..., 0]

    (found,) = audit(grey, grey, [boxed(*BOX)]).labels

    assert found.contour is None
    assert found.colour is None
    assert found.content == pytest.approx(1, abs=0.01)


def test_an_outline_that_lay_on_no_edge_tells_nothing():
    old = cv2.GaussianBlur(scene(), (0, 0), 12)  # no edge is left on a circle
    pair = pair_of(old, old)

    assert measured.contour(pair, BOX, np.zeros(old.shape[:2], bool)) is None
    assert measured.contour(pair, BOX, mask_of(label(segmentation=[outline(3)]), 128, 128)) is None


@pytest.mark.parametrize("box", [(-50, -50, 20, 20), (300, 10, 20, 20), (10, 10, -5, -5)])
def test_of_a_box_without_pixels_no_measure_tells_anything(box):
    pair = pair_of(scene(), scene())

    assert measured.local(pair, box, None) is None
    assert measured.content(pair, box, None) is None
    assert measured.contrast(pair, box) is None
    assert measured.colour(pair, box, None) is None


# What the numbers are


def test_parts_that_hardly_touch_the_mask_are_not_looked_at():
    old = scene()
    new = old.copy()
    new[:, :56] = np.roll(old, 4, axis=0)[:, :56]
    right = mask_of(
        Annotation(image_id=0, segmentation=[[56, 28, 84, 28, 84, 84, 56, 84]]), 128, 128
    )
    pair = pair_of(old, new)

    assert measured.local(pair, BOX, None) > 3
    assert measured.local(pair, BOX, right) < 0.3


@pytest.mark.parametrize(("share", "low", "high"), [(0.1, 0, 0.3), (0.5, 3.7, 4.3)])
def test_local_is_what_a_quarter_of_the_parts_have_moved(share, low, high):
    old = scene()
    new = old.copy()
    moved = round(share * 128)
    new[:, :moved] = np.roll(old, 4, axis=0)[:, :moved]

    assert low <= measured.local(pair_of(old, new), [4, 4, 120, 120], None) <= high


def test_grain_does_not_stand_for_the_contrast_that_has_gone():
    old = scene()

    clean, grainy = (of_disc(old, new).contrast for new in (erased(old), noisy(erased(old), 12)))

    assert clean < 0.3
    assert grainy == pytest.approx(clean, abs=0.1)


def test_the_less_contrast_is_left_the_lower_its_share():
    old = scene()

    def left(share):
        new = old.copy()
        new[40:72, 40:72] = as_bytes(old[40:72, 40:72] * share + 140 * (1 - share))
        return measured.contrast(pair_of(old, new), [48.0, 48.0, 16.0, 16.0])

    shares = [left(share) for share in (0.1, 0.25, 0.5, 0.75, 1)]

    assert shares == sorted(shares)
    assert shares[0] < 0.25
    assert shares[-1] == pytest.approx(1, abs=0.02)


@settings(max_examples=15, deadline=None)
@given(quality=st.integers(20, 95), seed=st.integers(0, 99))
def test_shares_and_distances_stay_within_their_range(quality, seed):
    found = of_disc(scene(seed), jpeg(swollen(scene(seed)), quality))

    assert 0 <= found.contour <= 1
    assert -1 <= found.content <= 1
    assert found.contrast >= 0
    assert found.colour >= 0


@pytest.mark.parametrize("measure", MEASURES)
def test_a_value_at_its_limit_passes_and_one_beyond_it_fails(measure):
    limits = Limits()
    limit = getattr(limits, measure)
    beyond = -0.01 if measure in LOW_IS_BAD else 0.01

    assert not fails(measure, limit, limits)
    assert not fails(measure, limit - beyond, limits)
    assert fails(measure, limit + beyond, limits)
    assert not fails(measure, None, limits)
