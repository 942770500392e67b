import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug.errors import ConfigError
from simgan_aug.history import HistoryBuffer


class Refiner:
    """Images of one pixel, numbered from 1 in the order in which they are refined."""

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0

    def batch(self) -> torch.Tensor:
        first = self.count + 1
        self.count += self.size
        return torch.arange(first, first + self.size, dtype=torch.float32).view(-1, 1, 1, 1)


def numbers(images):
    return [int(value) for value in images.flatten()]


def filled(capacity, size, seed=0):
    history, refiner = HistoryBuffer(capacity), Refiner(size)
    generator = torch.Generator().manual_seed(seed)
    while history.size < capacity:
        history.mix(refiner.batch(), generator)
    return history, refiner, generator


@settings(deadline=None, max_examples=60)
@given(half=st.integers(1, 6), extra=st.integers(0, 20), seed=st.integers(0, 2**31))
def test_half_a_batch_is_current_and_half_from_the_full_buffer(half, extra, seed):
    history, refiner, generator = filled(half + extra, 2 * half, seed)
    before, current = numbers(history.images), refiner.batch()

    mixed = numbers(history.mix(current, generator))

    assert len(mixed) == len(set(mixed)) == 2 * half  # nobody is drawn twice
    assert len(set(mixed) & set(numbers(current))) == half
    assert len(set(mixed) & set(before)) == half


@settings(deadline=None, max_examples=60)
@given(half=st.integers(1, 6), extra=st.integers(0, 20), seed=st.integers(0, 2**31))
def test_half_a_batch_of_new_images_replaces_as_many_in_the_full_buffer(half, extra, seed):
    history, refiner, generator = filled(half + extra, 2 * half, seed)
    before, current = numbers(history.images), refiner.batch()

    history.mix(current, generator)

    after = numbers(history.images)
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == len(set(changed)) == half
    assert set(changed) <= set(numbers(current))


@settings(deadline=None, max_examples=60)
@given(half=st.integers(1, 5), capacity=st.integers(1, 25), calls=st.integers(1, 20))
def test_the_buffer_fills_and_then_stays_at_its_capacity(half, capacity, calls):
    history, refiner = HistoryBuffer(capacity), Refiner(2 * half)
    generator = torch.Generator().manual_seed(0)

    sizes = []
    for _ in range(calls):
        assert len(history.mix(refiner.batch(), generator)) == 2 * half
        sizes.append(history.size)

    assert sizes == [min(capacity, half * (call + 1)) for call in range(calls)]
    assert len(history.images) == capacity
    held = numbers(history.images[: history.size])
    assert 0 not in held  # no entry that nobody refined
    assert len(set(held)) == len(held)


def test_the_buffer_turns_over_completely():
    history, refiner, generator = filled(capacity=8, size=8)
    before = numbers(history.images)

    for _ in range(60):
        history.mix(refiner.batch(), generator)

    assert not set(before) & set(numbers(history.images))


def test_every_place_of_the_buffer_is_drawn_from():
    history, refiner, generator = filled(capacity=16, size=4)

    drawn = set()
    for _ in range(100):
        places = {number: place for place, number in enumerate(numbers(history.images))}
        mixed = numbers(history.mix(refiner.batch(), generator))
        drawn |= {places[number] for number in mixed if number in places}

    assert drawn == set(range(16))


def test_a_history_of_capacity_zero_is_off():
    history, refiner = HistoryBuffer(0), Refiner(4)
    generator = torch.Generator().manual_seed(0)

    for _ in range(3):
        current = refiner.batch()
        assert torch.equal(history.mix(current, generator), current)

    assert history.images is None
    assert history.size == 0


def test_while_the_buffer_is_too_small_the_batch_is_the_current_one():
    history, refiner = HistoryBuffer(8), Refiner(4)
    current = refiner.batch()

    mixed = history.mix(current, torch.Generator().manual_seed(0))

    assert torch.equal(mixed, current)


def test_a_batch_of_one_passes_by():
    history, refiner, generator = filled(capacity=4, size=4)
    single = Refiner(1).batch()

    assert torch.equal(history.mix(single, generator), single)
    assert refiner.count == 8


def test_the_same_generator_gives_the_same_history():
    first, second = (filled(capacity=8, size=4, seed=3) for _ in range(2))

    mixes = [history.mix(refiner.batch(), draws) for history, refiner, draws in (first, second)]

    assert torch.equal(*mixes)
    assert torch.equal(first[0].images, second[0].images)


def test_the_buffer_holds_copies():
    history, generator = HistoryBuffer(4), torch.Generator().manual_seed(0)
    current = Refiner(8).batch()
    history.mix(current, generator)

    before = numbers(history.images)
    current.zero_()

    assert numbers(history.images) == before


def test_a_negative_capacity_is_rejected():
    with pytest.raises(ConfigError, match="-1"):
        HistoryBuffer(-1)
