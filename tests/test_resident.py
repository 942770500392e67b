"""Crops that are cut on a device: those that a CPU cuts, bit for bit."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug.bank import Bank
from simgan_aug.config import Data
from simgan_aug.data import Crops, Resident, Source

CPU = torch.device("cpu")
DEVICES = pytest.mark.parametrize(
    "device", [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)], ids=str
)


def source(sizes, channels=3, weighed=False, dtype=np.uint8, **options):
    """Images of noise."""
    rng = np.random.default_rng(len(sizes))
    images = [rng.integers(0, 256, (*size, channels)).astype(dtype) for size in sizes]
    weights = [rng.random(size).astype(np.float16) for size in sizes] if weighed else None
    return Source(images, [f"{n}.png" for n in range(len(sizes))], weights, **options)


def take(crops, count=3, **options):
    return list(itertools.islice(crops.batches(**options), count))


def check_same(side, config, device, **options):
    """Batches with and without what is resident."""
    plain, cut = (
        take(Crops(side, config, 4, seed=1, resident=each, **options))
        for each in (None, Resident(side, device))
    )
    for one, other in zip(plain, cut, strict=True):
        for name in ("images", "weights", "reference"):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None)
            if a is not None:
                assert torch.equal(a, b.cpu())
                assert a.stride() == b.stride()  # a recording holds for how memory lies
                assert b.device.type == device.type
    return cut


@DEVICES
@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(8, 23), st.integers(10, 31)), min_size=1, max_size=5),
    channels=st.sampled_from([1, 3]),
    weighed=st.booleans(),
    flip=st.booleans(),
    candidates=st.integers(1, 2),
)
def test_what_is_cut_there_is_what_a_cpu_cuts(device, sizes, channels, weighed, flip, candidates):
    side, config = source(sizes, channels, weighed), Data(crop=(8, 10), flip=flip)

    check_same(side, config, device, candidates=candidates)


def test_images_may_lie_in_any_way_and_be_read_only():
    side = source([(20, 30), (9, 12), (8, 10)], weighed=True)
    first, second, third = side.images
    lain = [np.asfortranarray(first), second[::-1, ::-1], third]
    third.flags.writeable = False

    check_same(dataclasses.replace(side, images=lain), Data(crop=(8, 10)), CPU)


@pytest.mark.parametrize("bias", [None, torch.zeros(7)])
@pytest.mark.parametrize("own_tone", [True, False])
def test_each_crop_has_the_reference_that_it_would_have(own_tone, bias):
    side = source([(20, 30), (9, 12)])
    bank = None if own_tone else Bank(torch.rand(7, 3, 64), bias)

    batches = check_same(side, Data(crop=(8, 10)), CPU, own_tone=own_tone, bank=bank)

    assert batches[0].reference.shape == (4, 3, 64)


def test_images_drawn_by_weights_are_the_same_ones():
    check_same(source([(9, 12)] * 6, shares=[(2, 0.9), (4, 0.1)]), Data(crop=(8, 10)), CPU)


ROOM = source([(20, 30), (9, 12)], weighed=True)
CROP = Data(crop=(8, 10))
REFUSED = {
    "not held": (dataclasses.replace(ROOM, is_held=False), CROP),
    "16 bits": (source([(20, 30)], dtype=np.uint16), CROP),
    "smaller than a crop": (source([(20, 30), (7, 30)]), CROP),
    "resized": (ROOM, dataclasses.replace(CROP, scale=(0.8, 1.25))),
    "compared": (ROOM, dataclasses.replace(CROP, alike=4)),
}


def test_a_cpu_has_no_use_for_it():
    assert Resident.of(ROOM, CROP, CPU) is None


@pytest.mark.gpu
def test_a_side_lies_on_a_gpu_that_has_room_for_it(monkeypatch):
    device = torch.device("cuda")

    assert isinstance(Resident.of(ROOM, CROP, device), Resident)
    monkeypatch.setattr("simgan_aug.data.resident.PART", 2**40)
    assert Resident.of(ROOM, CROP, device) is None


@pytest.mark.gpu
@pytest.mark.parametrize("why", list(REFUSED))
def test_what_could_not_be_cut_the_same_is_cut_on_the_processor(why):
    assert Resident.of(*REFUSED[why], torch.device("cuda")) is None


@pytest.mark.gpu
def test_cutting_waits_for_nothing():
    device = torch.device("cuda")
    crops = Crops(ROOM, CROP, 4, 0, torch.rand(7, 3, 64), resident=Resident(ROOM, device))
    batches = crops.batches()
    next(batches)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(batches).to(device)
    finally:
        torch.cuda.set_sync_debug_mode(before)
