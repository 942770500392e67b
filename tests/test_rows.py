"""Images of a list or a batch: picked, replaced, put together."""

import numpy as np
import pytest
import torch

from simgan_aug.inference import ImageRefiner
from simgan_aug.rows import in_batches, rows_of, with_rows


@pytest.mark.parametrize(
    "images", [torch.arange(5), np.arange(5), list(range(5)), tuple(range(5))], ids=str
)
def test_what_is_picked_can_be_put_back(images):
    picked = rows_of(images, [3, 1])

    whole = with_rows(images, [3, 1], -torch.tensor([3, 1]))

    assert [int(each) for each in picked] == [3, 1]
    assert type(whole) is type(images)
    assert [int(each) for each in whole] == [0, -1, 2, -3, 4]
    assert [int(each) for each in images] == [0, 1, 2, 3, 4]


def test_rows_of_sixteen_bits_are_put_back():
    images = torch.tensor([1, 40_000, 65_535], dtype=torch.int32).to(torch.uint16)

    whole = with_rows(images, [0, 2], torch.tensor([50_000, 2], dtype=torch.int32).to(torch.uint16))

    assert (whole.dtype, whole.tolist()) == (torch.uint16, [50_000, 40_000, 2])


class Marked(torch.Tensor):
    """As a tv_tensor is: what is computed of it is a plain tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def mixed():
    """Of some, two are alike."""
    wide, tall = torch.rand(3, 6, 9), torch.rand(3, 9, 6)
    array = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    marked = torch.rand(3, 6, 9).as_subclass(Marked)
    return [
        wide,
        tall,
        array,
        wide + 0,
        marked,
        wide[0],
        array + 1,
        wide[0],
        (marked * 1).as_subclass(Marked),
        wide.half(),
    ]


def test_alike_images_go_together_and_others_alone_each_with_its_rows():
    calls = []

    in_batches(mixed(), lambda some, rows: calls.append((rows, some.ndim)) or some)

    assert calls == [([0, 3], 4), ([1], 3), ([2, 6], 4), ([4, 8], 4), ([5], 2), ([7], 2), ([9], 3)]


def test_a_list_in_batches_is_what_each_image_is_alone(refiner_file):
    refine, images = ImageRefiner.load(refiner_file, "cpu", precision="fp32"), mixed()
    seeds, strengths = list(range(10)), [number / 10 for number in range(10)]

    def some(image, rows):
        return refine._refine(image, [seeds[r] for r in rows], [strengths[r] for r in rows], "rgb")

    together, alone = in_batches(images, some), refine(images, seed=seeds, strength=strengths)

    for one, other, image in zip(together, alone, images, strict=True):
        assert type(one) is type(other) is type(image)
        assert one.dtype == other.dtype
        assert np.allclose(np.asarray(one).astype(float), np.asarray(other), atol=1e-5)


def test_no_images_are_no_batch():
    assert in_batches([], None) == []
