"""Intervals that hold what they promise, verdicts that follow from planted scores."""

import numpy as np
import pytest

from simgan_aug.audit.growth import Grown
from simgan_aug.study import HELPED, HURT, NOTHING, UNTOLD, gain, gain_over_best, verdict
from simgan_aug.study.arms import Arm
from simgan_aug.study.gains import chosen, halved, student
from simgan_aug.study.results import summarise


def draw(rng, seeds=3, images=60, mean=0.0, by_seed=0.0, by_image=0.0, noise=0.0):
    """Gaps of two arms, (S, n), whose true mean is known."""
    return (
        mean
        + by_seed * rng.normal(size=(seeds, 1))
        + by_image * rng.normal(size=(1, images))
        + noise * rng.normal(size=(seeds, images))
    )


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.706), (2, 4.303), (9, 2.262)])
def test_quantiles_are_those_of_students_tables(degrees, expected):
    assert student(degrees, 0.025) == pytest.approx(expected, abs=1e-3)


def test_quantiles_of_many_degrees_are_those_of_the_normal_distribution():
    assert student(100_000, 0.025) == pytest.approx(1.95996, abs=1e-3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(
    "parts",
    [
        {"by_seed": 0.03},
        {"by_image": 0.3},
        {"noise": 0.3},
        {"by_seed": 0.02, "by_image": 0.2, "noise": 0.3},
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, parts):
    rng, rounds, held = np.random.default_rng(0), 800, 0
    groups = np.arange(60)
    for _ in range(rounds):
        gaps = draw(rng, seeds, mean=0.05, **parts)
        found = gain(gaps, np.zeros_like(gaps), groups)
        held += found.low <= 0.05 <= found.high

    assert held / rounds >= 0.95 - 2 * (0.95 * 0.05 / rounds) ** 0.5


def test_test_images_that_belong_together_widen_the_interval():
    rng = np.random.default_rng(0)
    frames = np.repeat(draw(rng, images=20, by_image=0.3), 5, axis=1)  # each image five times

    alone = gain(frames, np.zeros_like(frames), np.arange(100))
    together = gain(frames, np.zeros_like(frames), np.repeat(np.arange(20), 5))

    assert together.high - together.low > 1.8 * (alone.high - alone.low)


def test_one_seed_has_no_interval():
    found = gain(np.ones((1, 9)), np.zeros((1, 9)), np.arange(9))

    assert (found.value, found.low, found.high) == (1, -np.inf, np.inf)


def scores(rng, means, seeds=3, images=200):
    """Right or wrong, by arm, for images of which some are hard for all arms."""
    hard = rng.random((1, images))
    return {
        name: (0.6 * hard + 0.4 * rng.random((seeds, images)) < mean).astype(float)
        for name, mean in means.items()
    }


@pytest.mark.parametrize(
    ("refined", "word"), [(0.75, HELPED), (0.58, NOTHING), (0.4, HURT)], ids=str
)
def test_a_planted_difference_gives_its_verdict(refined, word):
    means = {"raw": 0.45, "hm": 0.58, "default": refined}
    values = scores(np.random.default_rng(0), means)

    found = verdict("default", values, ["raw", "hm"], np.arange(200))

    assert found.word == word
    assert found.baseline == "hm"
    assert str(found).startswith(f"{word}: ")
    assert str(found).endswith(" over the best baseline (hm)")


def test_a_verdict_of_one_seed_is_none():
    values = scores(np.random.default_rng(0), {"raw": 0.2, "default": 0.9}, seeds=1)

    assert verdict("default", values, ["raw"], np.arange(200)).word == UNTOLD


def test_a_gain_with_labels_that_have_moved_says_so():
    values = scores(np.random.default_rng(0), {"raw": 0.45, "default": 0.75})

    moved = verdict("default", values, ["raw"], np.arange(200), drift=4.2)
    still = verdict("default", values, ["raw"], np.arange(200), drift=0.3)

    assert "labels have moved (p95 4.2 px)" in str(moved)
    assert "moved" not in str(still)


@pytest.mark.parametrize(
    ("grown", "said"),
    [((30, 100), "30 of 100 labels"), ((20, 100), ""), ((4, 4), ""), ((0, 0), "")],
)
def test_a_gain_with_labels_that_look_larger_than_their_boxes_says_so(grown, said):
    values = scores(np.random.default_rng(0), {"raw": 0.45, "default": 0.75})

    found = str(verdict("default", values, ["raw"], np.arange(200), grown=Grown(*grown)))

    assert ("look larger than their boxes" in found) == bool(said)
    assert said in found


def test_a_verdict_says_how_much_of_the_gap_to_the_oracle_is_closed():
    values = {name: np.full((3, 50), mean) for name, mean in (("raw", 0.5), ("oracle", 0.9))}
    values["default"] = np.full((3, 50), 0.7)

    found = verdict("default", values, ["raw"], np.arange(50), oracle="oracle")

    assert found.closed == pytest.approx(0.5)
    assert "50% of the gap from raw to oracle closed" in str(found)


def test_a_gap_to_the_oracle_that_cannot_be_told_is_not_divided_by():
    values = {name: np.full((3, 50), 0.5) for name in ("raw", "oracle", "default")}

    assert verdict("default", values, ["raw"], np.arange(50), oracle="oracle").closed is None


def test_choosing_the_best_of_many_baselines_does_not_make_verdicts_out_of_noise():
    rng, rounds, helped, hurt = np.random.default_rng(0), 600, 0, 0
    groups = np.arange(20)
    for _ in range(rounds):
        arms = {str(n): draw(rng, images=20, by_seed=0.02) for n in range(6)}
        _, found = gain_over_best(draw(rng, images=20, by_seed=0.02), arms, groups)
        helped += found.low > 0
        hurt += found.high < 0

    most = 0.025 + 2 * (0.025 * 0.975 / rounds) ** 0.5
    assert helped / rounds <= most
    assert hurt / rounds <= most


def test_a_gain_over_the_best_is_a_gain_over_each():
    rng = np.random.default_rng(1)
    arms = {str(n): draw(rng, mean=n / 5, by_seed=0.02, by_image=0.2) for n in range(4)}
    own = draw(rng, mean=0.8, by_seed=0.02, by_image=0.2)

    name, found = gain_over_best(own, arms, np.arange(60))

    each = [gain(own, values, np.arange(60)) for values in arms.values()]
    assert name == "3"
    assert found.value == pytest.approx(min(one.value for one in each))
    assert found.low == min(one.low for one in each)


def test_an_augmentation_is_never_scored_on_what_it_was_chosen_on():
    halves = np.arange(100) % 2 == 0
    values = {"light": np.zeros(100), "strong": np.zeros(100)}
    values["light"][halves] = 1  # splendid on the first half only
    values["strong"][~halves] = 1

    result, picked = chosen(values, halves)

    # Chosen on the half on which it shines, each is scored on the other one.
    assert result.mean() == 0
    assert picked == ("light", "strong")


def test_what_a_half_chooses_does_not_depend_on_its_own_values():
    rng, halves = np.random.default_rng(0), np.arange(100) % 2 == 0
    values = {"light": rng.random(100), "strong": rng.random(100)}
    before, picked = chosen(values, halves)
    for each in values.values():
        each[halves] = rng.random(50)

    after, again = chosen(values, halves)

    assert picked[1] == again[1]  # what the second half chose for the first one
    assert np.array_equal(after[~halves], before[~halves]) == (picked[0] == again[0])


def test_halves_share_no_group_and_are_even():
    groups = np.repeat(np.arange(30), np.arange(30) % 4 + 1)

    halves = halved(groups)

    assert not set(groups[halves]) & set(groups[~halves])
    assert abs(halves.mean() - 0.5) < 0.05
    assert np.array_equal(halved(groups), halves)


def cells_of(*every):
    """Cells of raw and of one's own arm by seed, the latter's with what is known of its labels."""
    cells = {}
    for seed, grown in enumerate(every):
        for arm in ("raw", "own"):
            cells[arm, seed] = {"values": {"light": [0.5, 0.7]}, "drift": None}
        cells["own", seed] |= {"grown": grown} if grown else {}
    return cells


@pytest.mark.parametrize(
    ("every", "worst"),
    [
        ([[0, 50], [1, 60], [40, 100]], (40, 100)),
        ([[1, 1], [0, 0], [90, 100]], (90, 100)),  # one of one is no worse
        ([None, [1, 60], [40, 100]], None),  # a cell of before it was measured
    ],
)
def test_of_several_seeds_the_one_counts_whose_labels_have_surely_grown_most(every, worst):
    arms = [Arm("raw", "raw"), Arm("own", "folder", "images")]

    found = summarise(arms, cells_of(*every), 3, np.arange(2), np.array([False, True]))

    assert found.rows[1].grown == worst
