"""Totals: what a data set's audit comes to."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug.audit import MEASURES, ImageAudit, LabelAudit, Limits, Totals
from simgan_aug.audit.limits import LOW_IS_BAD
from simgan_aug.audit.totals import KEPT, severity, value_of

px = st.floats(0, 12, width=32)
share = st.floats(0, 1, width=32)


def maybe(values):
    return st.one_of(st.none(), values)


@st.composite
def labels(draw):
    """What became of a label."""
    return LabelAudit(
        id=draw(st.one_of(st.integers(), st.text(max_size=3))),
        category=draw(st.sampled_from(["hand", "face", ""])),
        bbox=[1.0, 2.0, 3.0, 4.0],
        displacement=draw(maybe(st.tuples(px, px))),
        local=draw(maybe(px)),
        keypoints=draw(st.lists(maybe(px), max_size=3)),
        contour=draw(maybe(share)),
        content=draw(maybe(share)),
        contrast=draw(maybe(share)),
        colour=draw(maybe(st.floats(0, 255, width=32))),
        failures=draw(st.lists(st.sampled_from(MEASURES), unique=True, max_size=2)),
    )


def label(**values):
    return LabelAudit(**{"id": 1, "category": "hand", "bbox": [0.0, 0.0, 9.0, 9.0]} | values)


def totals_of(*images, limits=None):
    totals = Totals(limits or Limits())
    for number, found in enumerate(images):
        totals.add(f"{number}.png", ImageAudit(list(found)))
    return totals


def values_of(found, measure):
    if measure == "keypoints":
        return [each for label in found for each in label.keypoints if each is not None]
    every = [value_of(each, measure) for each in found]
    return [each for each in every if each is not None]


def test_labels_that_look_larger_than_their_boxes_are_counted_over_all_images():
    reach = [[0.0, 2.0, None], [], [1.0, 3.0, None, 9.0]]

    totals = totals_of(*([label(growth=px) for px in some] for some in reach))

    assert totals.grown == (3, 5)
    counts = totals.summary()["counts"]
    assert (counts["grown"], counts["grown_of"]) == (3, 5)


@settings(max_examples=60, deadline=None)
@given(images=st.lists(st.lists(labels(), max_size=6), max_size=4))
def test_quantiles_are_those_of_numpy_from_the_bad_side(images):
    told = totals_of(*images).summary()["overall"]

    found = [label for image in images for label in image]
    for measure in MEASURES:
        values = values_of(found, measure)
        assert told[measure]["measured"] == len(values)
        if not values:
            assert told[measure] == {"measured": 0}
            continue
        far = 5 if measure in LOW_IS_BAD else 95
        worst = min(values) if measure in LOW_IS_BAD else max(values)
        assert told[measure]["p50"] == pytest.approx(np.percentile(values, 50), abs=2e-3)
        assert told[measure]["p95"] == pytest.approx(np.percentile(values, far), abs=2e-3)
        assert told[measure]["worst"] == pytest.approx(worst, abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(images=st.lists(st.lists(labels(), max_size=6), max_size=4))
def test_categories_sum_to_all_and_all_is_what_was_added(images):
    told = totals_of(*images).summary()

    found = [label for image in images for label in image]
    expected = {
        "labels": len(found),
        "rejected": sum(bool(each.failures) for each in found),
        "unmeasurable": sum(each.is_unmeasurable for each in found),
    }
    for name, count in expected.items():
        assert told["counts"][name] == told["overall"][name] == count
        assert sum(each[name] for each in told["categories"].values()) == count
    for measure in MEASURES:
        parts = [each[measure]["measured"] for each in told["categories"].values()]
        assert sum(parts) == told["overall"][measure]["measured"]
    assert told["counts"]["images"] == len(images)
    assert list(told["categories"]) == sorted({each.category for each in found})


@settings(max_examples=40, deadline=None)
@given(images=st.lists(st.lists(labels(), max_size=4), max_size=4))
def test_a_summary_is_json(images):
    totals = totals_of(*images)
    totals.fail("b.png", "no such image file")

    told = totals.summary()

    back = json.loads(json.dumps(told, allow_nan=False))
    assert back["counts"] == told["counts"]
    assert back["failed"] == {"b.png": "no such image file"}


def test_the_worst_come_first_and_at_most_so_many_are_kept():
    far = np.random.default_rng(0).permutation(3 * KEPT) / 10

    told = totals_of(*([label(local=float(each))] for each in far)).summary()

    kept = [entry["local"] for entry in told["worst"]]
    assert kept == sorted(far, reverse=True)[:KEPT]
    assert told["worst"][0]["image"] == f"{int(far.argmax())}.png"
    assert told["counts"]["labels"] == 3 * KEPT


def test_of_equally_bad_ones_the_same_are_kept_whoever_was_first():
    found = ImageAudit([label(id=0, local=2.0), label(id=1, local=2.0)])
    names = [f"{number:04}.png" for number in range(KEPT)]

    def told(names):
        totals = Totals(Limits())
        for name in names:
            totals.add(name, found)
        return totals.summary()["worst"]

    kept = [(entry["image"], entry["id"]) for entry in told(names)]
    assert told(names[::-1]) == told(names)
    assert len(kept) == KEPT
    assert kept == sorted(kept)


def test_what_has_appeared_is_counted_and_the_strongest_kept():
    totals = Totals(Limits())
    for number in range(KEPT + 7):
        place = {"bbox": [1, 2, 30, 40], "score": float(number)}
        totals.add(f"{number}.png", ImageAudit([], [place]))

    told = totals.summary()

    assert told["counts"]["appeared"] == KEPT + 7
    assert len(told["appeared"]) == KEPT
    assert told["appeared"][0] == {
        "image": f"{KEPT + 6}.png",
        "bbox": [1, 2, 30, 40],
        "score": KEPT + 6.0,
    }


def test_an_image_that_failed_is_counted_apart():
    totals = totals_of([label()])
    totals.fail("b.png", "broken")
    totals.fail("a.png", "gone")

    told = totals.summary()

    assert (told["counts"]["images"], told["counts"]["failed"]) == (1, 2)
    assert list(told["failed"]) == ["a.png", "b.png"]


def test_of_nothing_there_is_a_summary():
    told = Totals(Limits()).summary()

    assert {*told["counts"].values()} == {0}
    assert told["worst"] == []
    assert told["categories"] == {}


# Severity


def at(measure, value):
    if measure == "displacement":
        return label(displacement=(value, 0.0))
    return label(**{measure: [value] if measure == "keypoints" else value})


@pytest.mark.parametrize("measure", MEASURES)
def test_severity_is_one_at_a_limit_more_beyond_and_less_before_it(measure):
    limits = Limits()
    limit = getattr(limits, measure)
    worse = limit - 0.1 if measure in LOW_IS_BAD else limit + 0.1
    better = limit + 0.1 if measure in LOW_IS_BAD else limit - 0.1

    assert severity(at(measure, limit), limits) == pytest.approx(1)
    assert severity(at(measure, worse), limits) > 1 > severity(at(measure, better), limits)


def test_a_label_is_as_bad_as_its_worst_measure():
    limits = Limits()

    assert severity(label(local=5.0, contour=0.9, keypoints=[0.1, None]), limits) == (
        severity(label(local=5.0), limits)
    )
    assert severity(label(), limits) == 0


@pytest.mark.parametrize("values", [{}, {"keypoints": [None, 0.2]}])
@pytest.mark.parametrize("measure", ["displacement", "keypoints"])
def test_what_is_not_to_be_found_any_more_is_beyond_what_is_found(measure, values):
    limits = Limits()
    lost = label(failures=[measure], **values)

    assert severity(lost, limits) > severity(label(displacement=(5.0, 0.0)), limits)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("limit", [0, 0.0, 1, -1.0, 1e6])
def test_any_limit_can_be_ranked_by(measure, limit):
    limits = Limits(**{measure: limit})

    for value in (0.0, 0.5, 1.0, 12.0):
        far = severity(at(measure, value), limits)
        assert far >= 0
        assert not math.isnan(far)
    lost = label(failures=["displacement", "keypoints"])
    assert severity(lost, limits) >= 0
