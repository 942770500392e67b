"""Noise: by the seed of an image alone."""

import pytest
import torch

from simgan_aug import noise

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(1, 3, 5), (2, 17, 31)])
def test_the_noise_of_an_image_is_what_its_seed_draws_however_many_threads_draw(shape):
    seeds = [5, 2**63 + 5, 7, -1]
    alone = [torch.randn(shape, generator=torch.Generator().manual_seed(s % 2**63)) for s in seeds]

    for threads in (0, 1, 3):
        assert torch.equal(noise.drawn(seeds, shape, CPU, threads), torch.stack(alone))


def test_no_images_have_no_noise():
    assert noise.drawn([], (1, 4, 4), CPU).shape == (0, 1, 4, 4)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()

    noise.drawn([1, 2], (1, 4, 4), CPU, threads=2)

    assert torch.equal(torch.get_rng_state(), state)
