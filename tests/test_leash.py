import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from simgan_aug.config import Training
from simgan_aug.leash import (
    EVERY,
    FROM,
    LOOKS,
    QUICKEST,
    RANGE,
    SLOWLY,
    TIGHT,
    Leash,
    between_looks,
    looks_left,
    turned,
)

weights = st.floats(*RANGE)
distances = st.floats(0, 12)


@given(weights, distances, st.floats(0.01, 10), st.floats(-100, 100))
def test_a_weight_never_leaves_its_range_nor_turns_too_quickly(weight, measured, target, left):
    new = turned(weight, measured, target, left)

    assert RANGE[0] <= new <= RANGE[1]
    assert QUICKEST[0] * weight - 1e-9 <= new <= QUICKEST[1] * weight + 1e-9


@pytest.mark.parametrize(("measured", "sign"), [(0.1, -1), (0.4, 0), (2.0, 1)])
def test_a_weight_is_raised_where_labels_drift_and_lowered_where_they_do_not(measured, sign):
    assert np.sign(turned(1.0, measured, 0.4) - 1.0) == sign


@given(st.floats(FROM, RANGE[1]), distances, st.floats(-100, 100))
def test_a_tight_leash_is_drawn_in_slowly_and_let_out_as_ever(weight, measured, left):
    assert turned(weight, measured, 0.3) <= SLOWLY[0] * weight + 1e-9
    assert turned(weight, measured, 0.3, left) <= SLOWLY[1] * weight + 1e-9
    assert turned(weight, 0.0, 0.3) == pytest.approx(QUICKEST[0] * weight)
    assert turned(0.1, 12.0, 0.3) == pytest.approx(QUICKEST[1] * 0.1)


def drawn_in(steps, start):
    """The weight at each look from a share of a training on, where all labels have moved far."""
    weights, step = [FROM], round(start * steps)
    while step < steps:
        weights.append(turned(weights[-1], 12.0, 0.3, looks_left(step, steps)))
        step += between_looks(steps)
    return np.array(weights)


@pytest.mark.parametrize(("start", "factor"), [(0.1, SLOWLY[0]), (0.4, 1.09), (0.9, SLOWLY[1])])
def test_a_leash_that_is_late_is_drawn_in_more_quickly(start, factor):
    weights = drawn_in(1000, start)

    assert weights[1] == pytest.approx(factor, abs=0.01)


@pytest.mark.parametrize("steps", [100, 1000, 4000])
def test_a_leash_that_begins_in_time_is_tight_in_time(steps):
    weights = drawn_in(steps, 0.45)

    looks = round((TIGHT - 0.45) * steps / between_looks(steps))
    assert weights[looks] == pytest.approx(RANGE[1])


def blob(shift=0):
    image = np.zeros((48, 48, 3), np.float32)
    image[16:32, 16 + shift : 32 + shift] = 1
    return image


def leash(images, boxes, moved):
    def refine(network, before, seed):
        return [blob(moved) for _ in before]

    return Leash(images=images, boxes=boxes, refine=refine, target=0.4)


@pytest.mark.parametrize(("moved", "grows"), [(0, False), (2, True)])
def test_a_leash_is_drawn_in_only_where_labels_have_moved(moved, grows):
    held = leash([blob()] * 5, [[(16, 16, 16, 16)]] * 5, moved)

    weight, measured = held.turn(1.0, nn.Identity(), seed=0)

    assert measured == pytest.approx(moved, abs=0.2)
    assert (weight > 1) == grows


def test_a_weight_stays_where_nothing_can_be_told():
    flat = [np.full((48, 48, 3), 0.5, np.float32)] * 5

    def refine(network, before, seed):
        return before

    held = Leash(images=flat, boxes=[[(16, 16, 16, 16)]] * 5, refine=refine, target=0.4)

    assert held.turn(1.7, nn.Identity(), seed=0) == (1.7, None)


@given(st.integers(1, 10_000))
def test_a_short_training_is_looked_at_as_often_as_the_default(steps):
    every = between_looks(steps)

    assert 1 <= every <= EVERY
    assert steps // every >= min(steps, LOOKS)
    assert every == EVERY or steps // (every + 1) < LOOKS


def test_the_default_is_looked_at_every_25_steps():
    assert between_looks(Training().steps) == 25
