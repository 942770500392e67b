"""The forms of an image: as strong as asked, as many as asked, the same ones at every draw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug.errors import ConfigError
from simgan_aug.variety import Variety, check_probability, identity_of

SEEDS = st.integers(0, 2**63)
IDENTITIES = st.integers(-(2**63), 2**65)


@st.composite
def ranges(draw):
    """A strength: one number, or an ascending pair, of any kind of number."""
    kind = draw(st.sampled_from([float, np.float64, np.float32]))
    low, high = sorted(kind(draw(st.floats(0, 1, width=32))) for _ in range(2))
    return draw(st.sampled_from([low, (low, high), [low, high], 0, 1, (0, 1)]))


def forms(variety, identity, seed=0, draws=64):
    rng = np.random.default_rng(seed)
    return {variety.draw(rng, identity) for _ in range(draws)}


@settings(deadline=None)
@given(strength=ranges(), variants=st.integers(0, 4), identity=IDENTITIES, seed=SEEDS)
def test_a_form_is_within_the_range_and_its_seed_below_2_to_63(strength, variants, identity, seed):
    variety = Variety(strength, variants)

    form = variety.draw(np.random.default_rng(seed), identity)

    low, high = variety.range
    assert low <= form.strength <= high
    assert 0 <= form.seed < 2**63
    assert (type(form.strength), type(form.seed)) == (float, int)


def test_one_number_is_a_range_of_one():
    assert Variety(0.25).range == (0.25, 0.25)
    assert Variety((0.25, 0.5)).range == (0.25, 0.5)


def test_strengths_are_drawn_evenly_from_the_whole_range():
    rng = np.random.default_rng(0)
    variety = Variety((0.2, 0.6))

    strengths = [variety.draw(rng).strength for _ in range(4000)]

    counts, _ = np.histogram(strengths, bins=4, range=(0.2, 0.6))
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_without_variants_every_draw_is_a_new_form_of_one_image():
    assert len(forms(Variety((0, 1)), identity=7)) == 64


def test_without_variants_the_rng_alone_decides():
    variety = Variety((0, 1))

    assert forms(variety, identity=1) == forms(variety, identity=2)
    assert forms(variety, identity=1, seed=1).isdisjoint(forms(variety, identity=1, seed=2))


@settings(deadline=None, max_examples=50)
@given(variants=st.integers(1, 9), identity=IDENTITIES, seeds=st.tuples(SEEDS, SEEDS))
def test_an_image_has_the_same_forms_whatever_the_rng_and_no_more_than_its_variants(
    variants, identity, seeds
):
    variety = Variety((0, 1), variants)

    first, second = (forms(variety, identity, seed, draws=300) for seed in seeds)

    assert first == second  # 300 draws of at most 9: all of them but once in 10^14
    assert len(first) == variants


@settings(deadline=None, max_examples=50)
@given(identities=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2, unique=True))
def test_two_images_have_no_form_in_common(identities):
    variety = Variety(1.0, 4)

    first, second = (forms(variety, identity) for identity in identities)

    assert first.isdisjoint(second)


@pytest.mark.parametrize("number", range(1, 8))
def test_two_images_have_no_form_in_common_even_if_their_words_of_32_bits_are_alike(number):
    variety = Variety(1.0, 8)

    assert forms(variety, 5).isdisjoint(forms(variety, 5 + (number << 32)))


OUT_OF_RANGE = [-0.1, 1.1, np.nan, np.inf, (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (np.nan, 0.5)]
NO_RANGE = [(0.5,), (0.1, 0.2, 0.3), (), "0.5", "ab", None, ("a", "b")]


@pytest.mark.parametrize("strength", [*OUT_OF_RANGE, *NO_RANGE], ids=repr)
def test_an_impossible_strength_is_an_error_that_shows_it(strength):
    with pytest.raises(ConfigError, match=r"number in \[0, 1\] or two ascending ones") as caught:
        Variety(strength)

    assert repr(strength) in str(caught.value)


@pytest.mark.parametrize("variants", [-1, 1.5, "4"])
def test_a_number_of_variants_that_cannot_be_is_an_error(variants):
    with pytest.raises(ConfigError, match=f"must be 0 or more, and whole, got {variants!r}"):
        Variety(variants=variants)


@pytest.mark.parametrize("p", [-0.01, 1.01, np.nan, "0.5", None])
def test_a_number_outside_of_0_and_1_is_no_probability(p):
    with pytest.raises(ConfigError, match=r"p must lie in \[0, 1\], got"):
        check_probability(p)


@pytest.mark.parametrize("p", [0, 0.5, 1])
def test_a_number_from_0_to_1_is_a_probability(p):
    check_probability(p)


def test_the_identity_of_content_is_the_same_on_every_machine():
    # The first value is in xxhash's own test vectors (XXH3, 64 bits, seed 0, no input).
    assert identity_of([b""]) == 0x2D06800538D394C2
    assert identity_of([bytearray(b"image")]) == identity_of([b"image"])


@given(first=st.binary(max_size=64), second=st.binary(max_size=64))
def test_identities_are_equal_where_contents_are(first, second):
    assert (identity_of([first]) == identity_of([second])) == (first == second)
