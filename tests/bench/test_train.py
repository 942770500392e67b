"""`bench train`: the plain step is the same step, and the table says what was measured."""

import dataclasses
import itertools

import pytest
import torch

from simgan_aug.batch import Batch
from simgan_aug.bench import train as module
from simgan_aug.bench.plain import plain_steps, plain_student_steps
from simgan_aug.config import Training
from simgan_aug.configfile import load_preset
from simgan_aug.demo import shipped
from simgan_aug.losses import Relativistic
from simgan_aug.networks import Patch, UnshuffleRefiner
from simgan_aug.parts import regularization
from simgan_aug.state import TrainingState
from simgan_aug.training import train

SMALL = Training(batch_size=4, history=4, precision="fp32", seed=3)


def sides():
    generator = torch.Generator().manual_seed(0)
    return [
        iter([Batch(images=torch.rand(4, 3, 16, 16, generator=generator) * 2 - 1)] * 20)
        for _ in range(2)
    ]


def networks():
    torch.manual_seed(0)
    return UnshuffleRefiner(3, features=8), Patch(3, features=8)


def test_the_plain_loop_takes_the_same_steps():
    term = regularization(load_preset("default"))

    plain = itertools.islice(plain_steps(*networks(), term, *sides(), SMALL), 6)
    ours = train(*networks(), Relativistic(), term, *sides(), dataclasses.replace(SMALL, steps=6))

    for step, losses in zip(ours, plain, strict=True):
        assert step.losses == pytest.approx(losses, rel=1e-3)


def test_the_plain_loop_of_a_student_takes_the_same_steps():
    config = dataclasses.replace(SMALL, steps=0, student_steps=6)
    refiner, discriminator = networks()
    torch.nn.init.normal_(refiner.head.weight, std=0.1)
    first, second = (UnshuffleRefiner(3, factor=4, features=8) for _ in range(2))
    second.load_state_dict(first.state_dict())
    state = TrainingState(refiner, discriminator, config, student=second)
    term = regularization(load_preset("default"))

    plain = plain_student_steps(refiner, first, sides()[0], config)
    ours = train(refiner, discriminator, Relativistic(), term, *sides(), config, state)

    for step, losses in zip(ours, plain, strict=True):
        assert step.losses == pytest.approx(losses, rel=1e-3)
    assert step.number == 6


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_table_has_the_losses_of_each_variant_and_skips_what_is_not_here(tmp_path, monkeypatch):
    table = module.train(shipped(), tmp_path, rounds=1)

    ours, plain = table.row("ours, fp32").cells, table.row("plain, fp32").cells
    assert ours["adversarial"] == pytest.approx(plain["adversarial"], rel=0.01)
    assert ours["losses apart"] < table.row("plain, another seed").cells["losses apart"]
    assert ours["times as fast"].median > 0
    assert table.row("student, ours").cells["losses apart"] < 0.1
    if not torch.cuda.is_available():
        assert table.row("ours, GPU").skipped == "no GPU here"


def test_losses_are_apart_by_their_mean_distance_as_a_share_of_the_plain_ones():
    plain = [{"a": 1.0, "b": 10.0}, {"a": 3.0, "b": 10.0}]
    mine = [{"a": 2.0, "b": 10.0}, {"a": 3.0, "b": 11.0}]

    assert module._apart(mine, plain) == pytest.approx(0.25)
