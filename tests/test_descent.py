"""Updates of a step: what is not finite changes no weight, and losses are read once."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from simgan_aug.batch import Batch
from simgan_aug.config import Training
from simgan_aug.descent import Descent
from simgan_aug.errors import DivergenceError
from simgan_aug.losses import Relativistic, self_regularization
from simgan_aug.networks import Patch, UnshuffleRefiner
from simgan_aug.state import TrainingState
from simgan_aug.training import train


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


@pytest.fixture(params=["adam", "sgd"])
def state(request):
    config = Training(batch_size=2, history=0, optimizer=request.param)
    return TrainingState(Line(), Line(), config)


def loss_of(network, factor=1.0):
    return lambda share: {"it": (network.weight * factor).sum()}, iter([None])


def moments(state, player):
    return state.optimizers[player].state_dict()["state"]


def test_an_update_that_is_not_finite_changes_nothing_and_is_told_at_the_end(state):
    descent = Descent(state, part=1.0)
    descent.update("refiner", *loss_of(state.refiner, float("nan")))

    assert state.refiner.weight.tolist() == [1, 1]
    assert all(bool(torch.isfinite(v).all()) for v in state.tensors().values())
    with pytest.raises(DivergenceError, match="the it loss is nan in step 1"):
        descent.end()


def test_no_update_of_the_step_follows_one_that_is_not_finite(state):
    descent = Descent(state, part=1.0)
    descent.update("refiner", *loss_of(state.refiner, float("inf")))
    descent.update("discriminator", *loss_of(state.discriminator))

    assert state.discriminator.weight.tolist() == [1, 1]
    with pytest.raises(DivergenceError, match="the it loss is inf"):
        descent.end()


def test_the_next_step_begins_afresh(state):
    descent = Descent(state, part=1.0)
    descent.update("refiner", *loss_of(state.refiner, float("nan")))
    with pytest.raises(DivergenceError):
        descent.end()

    descent.update("refiner", *loss_of(state.refiner))

    assert descent.end() == {"it": 2}
    assert max(state.refiner.weight.tolist()) < 1


def test_a_step_reads_numbers_from_its_device_once():
    reads = []

    asking = {getattr(torch.Tensor, name) for name in ("item", "tolist", "__bool__", "__float__")}

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in asking and args[0].is_floating_point():  # a count may lie on the CPU
                reads.append(func)
            return func(*args, **(kwargs or {}))

    def term(refined, synthetic, weights):
        return 0.05 * self_regularization(refined, synthetic)

    config = Training(steps=3, batch_size=4, history=4)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    batches = iter(lambda: Batch(images=images), None)
    networks = UnshuffleRefiner(3, features=8), Patch(3, features=8)
    steps = train(*networks, Relativistic(), term, batches, batches, config)
    next(steps)  # the first allocates the history

    with Seen():
        step = next(steps)

    assert len(step.losses) == 3
    assert len(reads) == 1
