"""What a recording of a training step stands on; recordings themselves need a GPU (test_gpu.py)."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import nn

from simgan_aug import losses
from simgan_aug.batch import Batch
from simgan_aug.config import Config, Training
from simgan_aug.descent import Descent
from simgan_aug.graphs import Replayed, is_recordable
from simgan_aug.losses import CrossEntropy, Relativistic
from simgan_aug.networks import PaperPatch, Patch, UnshuffleRefiner
from simgan_aug.parts import CONTOURS, regularization
from simgan_aug.state import TrainingState
from simgan_aug.training import train


class InFixedMemory(Replayed):
    """Does the work each time, on what was copied to where the first call's tensors were copied.

    What Python knows of the step is spoilt meanwhile: a recording reads none of it.
    """

    def __init__(self, state):
        super().__init__(torch.device("cpu"))
        self.places, self.works, self.state = {}, {}, state

    def __call__(self, work, key, *tensors):
        places = self.places.setdefault(key, copy.deepcopy(tensors))
        for place, tensor in zip(places, tensors, strict=True):
            if tensor is not None:
                place.copy_(tensor)
        first = self.works.setdefault(key, work)  # later ones are never looked at
        scalars = dict(self.state.scalars)
        self.state.scalars.update(dict.fromkeys(scalars, math.nan))
        try:
            return [each.clone() for each in first(*places)]
        finally:
            self.state.scalars.update(scalars)


def run(loss, discriminator, recorded, monkeypatch, steps=4):
    torch.manual_seed(0)
    config = Training(batch_size=4, history=4, steps=steps, refiner_warmup=1)
    refiner, critic = UnshuffleRefiner(3, features=8, blocks=1), discriminator()
    nn.init.normal_(refiner.head.weight, std=0.1)
    state = TrainingState(refiner, critic, config)
    state.scalars[CONTOURS] = 0.1
    term = regularization(Config(), state.scalars)
    with monkeypatch.context() as patch:
        if recorded:
            made = Descent.__init__

            def init(self, *arguments):
                made(self, *arguments)
                assert arguments[-1]
                self._replayed = InFixedMemory(self.state)

            patch.setattr(Descent, "__init__", init)
        sides = [
            (Batch(images=torch.rand(4, 3, 16, 16) * 2 - 1) for _ in itertools.count())
            for _ in range(2)
        ]
        told = []
        for step in train(refiner, critic, loss, term, *sides, config, state):
            told.append((step.losses, step.rates))
            state.scalars[CONTOURS] *= 1.5
    return told, state.tensors()


@pytest.mark.parametrize(
    ("loss", "discriminator"),
    [
        (Relativistic(), lambda: Patch(3, features=8)),
        (CrossEntropy(), lambda: PaperPatch(3)),
        (losses.LeastSquares(r1=0.1), lambda: Patch(3, features=8, spectral=True)),
    ],
)
def test_all_that_differs_between_two_steps_comes_in_tensors(loss, discriminator, monkeypatch):
    """Else a replayed step would be the recorded one in part."""
    as_it_is = run(loss, discriminator, False, monkeypatch)
    fixed = run(loss, discriminator, True, monkeypatch)

    for (losses_, rates), (expected, expected_rates) in zip(fixed[0], as_it_is[0], strict=True):
        assert losses_ == expected
        assert rates == expected_rates
    for name, value in as_it_is[1].items():
        assert torch.equal(fixed[1][name], value), name


def test_a_part_declares_for_itself_alone_that_it_may_be_recorded():
    class Drawing(Patch):
        pass

    assert is_recordable(Patch(3))
    assert not is_recordable(Drawing(3))
    assert not is_recordable(lambda: None)
    assert is_recordable(losses.blur)
    assert is_recordable(losses.edge_direction)
    assert not is_recordable(object())


def test_on_a_cpu_work_is_done_as_it_is():
    work = Replayed(torch.device("cpu"))
    calls = []

    def doubled(values, nothing):
        calls.append(nothing)
        return [values * 2]

    for number in range(5):
        (made,) = work(doubled, "it", torch.tensor([number]), None)
        assert made.tolist() == [2 * number]
    assert calls == [None] * 5
    assert isinstance(pickle.loads(pickle.dumps(copy.deepcopy(work))), Replayed)
