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
    Leash,
    between_looks,
    turned,
)

weights = st.floats(*RANGE)
distances = st.floats(0, 12)


@given(weights, distances, st.floats(0.01, 10))
def test_a_weight_never_leaves_its_range_nor_turns_too_quickly(weight, measured, target):
    new = turned(weight, measured, target)

    assert RANGE[0] <= new <= RANGE[1]
    assert QUICKEST[0] * weight - 1e-9 <= new <= QUICKEST[1] * weight + 1e-9


@pytest.mark.parametrize(("measured", "sign"), [(0.1, -1), (0.4, 0), (2.0, 1)])
def test_a_weight_is_raised_where_labels_drift_and_lowered_where_they_do_not(measured, sign):
    assert np.sign(turned(1.0, measured, 0.4) - 1.0) == sign


@given(st.floats(FROM, RANGE[1]), distances)
def test_a_tight_leash_is_drawn_in_slowly_and_let_out_as_ever(weight, measured):
    new = turned(weight, measured, 0.3)

    assert new <= SLOWLY * weight + 1e-9
    assert turned(weight, 0.0, 0.3) == pytest.approx(QUICKEST[0] * weight)
    assert turned(0.1, 12.0, 0.3) == pytest.approx(QUICKEST[1] * 0.1)


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
