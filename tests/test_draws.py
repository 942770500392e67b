"""Draws: by seed and purpose alone."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simgan_aug import draws

MANY = range(20_000)


def test_the_hash_is_splitmix64():
    # The first three numbers that the authors' program gives for the seed 0.
    state = np.array([0, draws._STEP, 2 * draws._STEP % 2**64], dtype=np.uint64)

    assert [hex(each) for each in draws._mixed(state)] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


@given(st.lists(st.integers(-(2**70), 2**70), max_size=5), st.integers(1, 9))
def test_what_a_seed_draws_is_its_own_whatever_stands_beside_it(seeds, purpose):
    numbers = draws.uniforms(seeds, purpose)

    assert numbers.shape == (len(seeds),)
    assert ((numbers >= 0) & (numbers < 1)).all()
    for number, seed in zip(numbers, seeds, strict=True):
        assert draws.uniforms([seed], purpose)[0] == number
        assert draws.uniforms([seed + 2**64], purpose)[0] == number


def test_numbers_of_neighbouring_seeds_are_uniform_and_know_nothing_of_each_other():
    numbers = draws.uniforms(MANY, draws.TONE)

    counts = np.histogram(numbers, 100, (0, 1))[0]
    expected = len(MANY) / 100
    assert ((counts - expected) ** 2 / expected).sum() < 160  # chi square of 99: 1 of 10,000
    normal = (numbers - 0.5) * 12**0.5
    for step in (1, 2, 3, 16, 1000):
        assert abs((normal[step:] * normal[:-step]).mean()) * len(MANY) ** 0.5 < 4.5


def test_no_purpose_knows_another():
    purposes = range(draws.NOISE, draws.SEED + 1)
    normal = [(draws.uniforms(MANY, purpose) - 0.5) * 12**0.5 for purpose in purposes]

    for one, other in itertools.combinations(normal, 2):
        for step in (0, 1):
            apart = (one[step:] * other[: len(other) - step]).mean()
            assert abs(apart) * len(MANY) ** 0.5 < 4.5


NUMBERS = st.integers(-(2**70), 2**70)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5))
def test_a_key_is_that_of_its_own_parts_in_their_order(rows):
    keys = draws.keyed(*zip(*rows, strict=True))

    for key, parts in zip(keys, rows, strict=True):
        a, b, c = parts
        assert draws.keyed([a], [b], [c])[0] == key
        assert draws.keyed([a], [b], [c + 2**64])[0] == key
        assert draws.keyed([a], [c + 1], [b + 1])[0] != key


def test_keys_of_few_seeds_epochs_and_images_are_all_different():
    rows = list(itertools.product(range(4), range(50), range(100)))

    assert len(np.unique(draws.keyed(*zip(*rows, strict=True)))) == len(rows)
