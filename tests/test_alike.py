"""Which photo a synthetic crop meets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simgan_aug.alike import layouts, most_alike
from simgan_aug.batch import Batch


def picture(*, left=0.0, top=0.0, size=32, channels=3):
    """Bright to the left and at the top by so much."""
    rows, columns = torch.meshgrid(
        torch.linspace(1, -1, size), torch.linspace(1, -1, size), indexing="ij"
    )
    return (left * columns + top * rows).expand(channels, -1, -1)


LEFT, TOP = picture(left=0.5), picture(top=0.5)


def chosen(synthetic, candidates):
    """The index of the candidate that each synthetic image meets."""
    numbers = torch.arange(len(candidates) * len(candidates[0])).view(-1, 1, 1).float()
    real = Batch(
        images=torch.stack([each for own in candidates for each in own]), reference=numbers
    )

    met = most_alike(Batch(images=torch.stack(synthetic)), real)

    assert all(
        torch.equal(image, real.images[int(number)])
        for image, number in zip(met.images, met.reference.flatten(), strict=True)
    )
    return [int(n) % len(candidates[0]) for n in met.reference.flatten()]


def test_a_crop_meets_the_photo_that_is_laid_out_as_it_is():
    assert chosen([LEFT, TOP], [[TOP, LEFT], [TOP, LEFT]]) == [1, 0]


def test_each_crop_has_candidates_of_its_own():
    assert chosen([LEFT, LEFT], [[LEFT, TOP, TOP], [TOP, TOP, LEFT]]) == [0, 2]


@given(
    gain=st.floats(0.4, 1.5).flatmap(lambda gain: st.sampled_from([gain, -gain])),
    shift=st.floats(-0.3, 0.3),
    tint=st.lists(st.floats(0.5, 1.0), min_size=3, max_size=3),
)
def test_neither_light_nor_contrast_nor_colour_decides(gain, shift, tint):
    shown = LEFT * gain * torch.tensor(tint).view(3, 1, 1) + shift

    assert chosen([LEFT], [[TOP, shown, torch.zeros_like(LEFT)]]) == [1]


def test_what_has_no_layout_takes_the_first():
    assert chosen([torch.full_like(LEFT, 0.7)], [[TOP, LEFT]]) == [0]


def test_a_batch_without_a_choice_is_left_as_it_is():
    real = Batch(images=torch.stack([TOP, LEFT]))

    assert most_alike(Batch(images=torch.stack([LEFT, TOP])), real) is real


@pytest.mark.parametrize("size", [4, 8, 9, 64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_and_any_channels_have_a_layout(size, channels):
    images = torch.stack([picture(left=0.5, size=size, channels=channels)] * 2)

    assert layouts(images).shape == (2, 64)
    assert layouts(images).isfinite().all()


def test_a_part_of_a_batch_meets_what_it_meets_in_the_whole():
    torch.manual_seed(0)
    synthetic = Batch(images=torch.rand(6, 3, 40, 24) * 2 - 1)
    real = Batch(images=torch.rand(6 * 5, 3, 40, 24) * 2 - 1)

    whole = most_alike(synthetic, real)
    parts = [
        most_alike(synthetic.rows(row, row + 2), real.rows(5 * row, 5 * (row + 2)))
        for row in (0, 2, 4)
    ]

    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
