"""Noise: by the seed of an image alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simgan_aug import noise

CPU = torch.device("cpu")
SHAPE = (2, 300, 400)


def drawn(seeds, shape, device=CPU):
    return noise.of_keys(noise.keys(seeds).to(device), shape)


def of_places_apart(one, other):
    """The correlation of two fields of noise, in standard deviations of chance."""
    return float((one * other).mean() * one.numel() ** 0.5)


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=4))
def test_the_noise_of_an_image_is_that_of_its_seed_whatever_stands_beside_it(seeds):
    together = drawn(seeds, (2, 17, 31))

    for each, seed in zip(together, seeds, strict=True):
        assert torch.equal(each, drawn([seed], (2, 17, 31))[0])


def test_the_noise_is_the_one_that_whole_numbers_of_32_bits_say():
    factor, offset = noise.keys([5])[0].numpy().view(np.uint32)
    values = np.arange(60, dtype=np.uint32) * factor + offset
    for shift, by in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        values = (values ^ (values >> np.uint32(shift))) * np.uint32(by)

    expected = noise.quantiles(CPU)[torch.from_numpy((values >> np.uint32(16)).astype(np.int64))]

    assert torch.equal(drawn([5], (3, 4, 5))[0].flatten(), expected)


@pytest.mark.parametrize("seed", [0, 1, 2, 12345])
def test_noise_is_standard_normal_and_no_place_knows_another(seed):
    (field,) = drawn([seed], SHAPE).double()

    count = field.numel() ** 0.5
    assert abs(field.mean()) * count < 4
    assert abs(field.var() - 1) * count < 4 * 2**0.5
    assert abs((field**3).mean()) * count < 4 * 15**0.5
    assert abs((field**4).mean() - 3) * count < 4 * 96**0.5
    for step in (1, 2, 3, 4, 8, 64):
        assert abs(of_places_apart(field[..., step:], field[..., :-step])) < 4
        assert abs(of_places_apart(field[:, step:], field[:, :-step])) < 4
    assert abs(of_places_apart(field[0], field[1])) < 4
    spectrum = torch.fft.rfft2(field).abs().square().mean(0)[1:, 1:-1] / field[0].numel()
    assert spectrum.max() < 20  # of 1 on average: a line in it is a pattern in the noise


def test_no_seed_knows_another():
    fields = drawn(range(40), SHAPE).flatten(1).double()

    known = fields @ fields.T / fields.shape[1] ** 0.5
    assert known.fill_diagonal_(0).abs().max() < 5


def test_no_images_have_no_noise():
    assert drawn([], (1, 4, 4)).shape == (0, 1, 4, 4)


def test_the_global_generators_are_left_alone():
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002

    drawn([1, 2], (1, 4, 4))

    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
