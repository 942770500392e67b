"""What must hold on a CUDA device; run with `pytest -m gpu` where there is one."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from simgan_aug.config import Training
from simgan_aug.inference import ImageRefiner
from simgan_aug.losses import Relativistic, self_regularization
from simgan_aug.networks import Patch, UnshuffleRefiner
from simgan_aug.training import Batch, train

pytestmark = pytest.mark.gpu


@pytest.fixture
def photos():
    return np.random.default_rng(0).integers(0, 256, (3, 67, 93, 3), dtype=np.uint8)


def test_a_gpu_refines_as_a_cpu_does_to_one_grey_level(refiner_file, photos):
    on_cpu = ImageRefiner.load(refiner_file, device="cpu")(photos, seed=5)

    on_gpu = ImageRefiner.load(refiner_file, device="cuda")(photos, seed=5)

    assert np.abs(on_cpu.astype(int) - on_gpu).max() <= 1


def test_a_tensor_stays_on_its_device(refiner_file):
    image = torch.rand(3, 40, 50, device="cuda")

    refined = ImageRefiner.load(refiner_file)(image)

    assert refined.device == image.device


def test_a_tile_equals_the_whole_to_zero_grey_levels(refiner_file, photos):
    large = np.tile(photos, (1, 12, 12, 1))

    whole = ImageRefiner.load(refiner_file, device="cuda", max_workspace_mb=8192)(large)
    tiled = ImageRefiner.load(refiner_file, device="cuda", max_workspace_mb=16)(large)

    assert np.array_equal(whole, tiled)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_runs_on_a_gpu_and_its_losses_are_finite(precision):
    config = Training(steps=5, batch_size=4, history=8, precision=precision)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    batches = iter(lambda: Batch(images=images), None)

    def term(refined, synthetic, weights):
        return 0.05 * self_regularization(refined, synthetic, weights=weights)

    players = UnshuffleRefiner(3, features=16).cuda(), Patch(3, features=16).cuda()
    steps = list(train(*players, Relativistic(), term, batches, batches, config))

    assert len(steps) == config.steps
    assert all(np.isfinite(list(step.losses.values())).all() for step in steps)


def test_a_step_waits_for_the_gpu_once_for_its_losses_and_once_for_a_count():
    config = Training(steps=3, batch_size=4, history=8)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    batches = iter(lambda: Batch(images=images), None)

    def term(refined, synthetic, weights):
        return 0.05 * self_regularization(refined, synthetic, weights=weights)

    players = UnshuffleRefiner(3, features=16).cuda(), Patch(3, features=16).cuda()
    steps = train(*players, Relativistic(), term, batches, batches, config)
    next(steps)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        next(steps)
        torch.cuda.set_sync_debug_mode("default")

    waits = [each for each in told if "synchronizing CUDA operation" in str(each.message)]
    assert len(waits) <= 2


def test_a_penalty_has_the_gradient_that_it_has_on_a_cpu():
    torch.manual_seed(0)
    critic, refined, real = Patch(3, features=8), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    Relativistic().discriminator(critic, refined, real).backward()
    on_cpu = [weight.grad.clone() for weight in critic.parameters()]
    critic.zero_grad()

    Relativistic().discriminator(critic.cuda(), refined.cuda(), real.cuda()).backward()

    for weight, expected in zip(critic.parameters(), on_cpu, strict=True):
        torch.testing.assert_close(weight.grad.cpu(), expected, rtol=1e-2, atol=1e-4)


def test_a_state_goes_from_a_gpu_to_a_cpu_and_back():
    from simgan_aug.state import TrainingState

    config = dataclasses.replace(Training(), history=8, batch_size=4)
    players = UnshuffleRefiner(3, features=16).cuda(), Patch(3, features=16).cuda()
    state = TrainingState(*players, config)
    flat = {name: value.cpu() for name, value in state.tensors().items()}

    state.load(flat)

    assert all(parameter.is_cuda for parameter in state.averaged.parameters())
