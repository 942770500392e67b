"""Crops that are cut on a device: those that a CPU cuts, bit for bit."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    there = Resident(side, device)
    plain, cut = (
        take(Crops(side, config, 4, seed=1, resident=each, **options)) for each in (None, there)
    )
    for one, other in zip(plain, cut, strict=True):
        for name in ("images", "weights", "reference"):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b.cpu())
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

    batches = check_same(side, config, device, candidates=candidates)

    assert all(batch.images.device.type == device.type for batch in batches)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in batches)


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [([(20, 30), (6, 30)], (1, 1)), ([(20, 30)], (0.8, 1.25))],
    ids=["an image smaller than a crop", "a scale"],
)
def test_windows_that_have_to_be_resized_are_cut_as_ever(sizes, scale):
    check_same(source(sizes, weighed=True), Data(crop=(8, 10), scale=scale), CPU)


@pytest.mark.parametrize("own_tone", [True, False])
def test_each_crop_has_the_reference_that_it_would_have(own_tone):
    side, bank = source([(20, 30), (9, 12)]), None if own_tone else torch.rand(7, 3, 64)

    batches = check_same(side, Data(crop=(8, 10)), CPU, own_tone=own_tone, bank=bank)

    assert batches[0].reference.shape == (4, 3, 64)


def test_crops_that_are_matched_to_a_tone_are_cut_as_ever():
    side, bank = source([(20, 30), (9, 12)]), torch.rand(7, 3, 64)

    check_same(side, Data(crop=(8, 10)), CPU, bank=bank, match=True)


def test_images_drawn_by_weights_are_the_same_ones():
    check_same(source([(9, 12)] * 6, shares=[(2, 0.9), (4, 0.1)]), Data(crop=(8, 10)), CPU)


def test_a_cpu_has_no_use_for_it():
    assert Resident.of(source([(20, 30)]), CPU) is None


@pytest.mark.gpu
def test_a_side_lies_on_a_gpu_that_has_room_for_its_images_of_8_bits(monkeypatch):
    device, side = torch.device("cuda"), source([(20, 30), (9, 12)], weighed=True)

    assert isinstance(Resident.of(side, device), Resident)
    assert Resident.of(dataclasses.replace(side, is_held=False), device) is None
    assert Resident.of(source([(20, 30)], dtype=np.uint16), device) is None
    monkeypatch.setattr("simgan_aug.data.resident.PART", 2**40)
    assert Resident.of(side, device) is None


@pytest.mark.gpu
def test_cutting_waits_for_nothing():
    side = source([(20, 30), (9, 12)], weighed=True)
    crops = Crops(side, Data(crop=(8, 10)), 4, 0, resident=Resident.of(side, torch.device("cuda")))
    batches = crops.batches()
    before = next(batches), torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(batches).to(torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode(before[1])
