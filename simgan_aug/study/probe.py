"""A probe: a small network trained on what an arm shows, the same way for every arm."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from simgan_aug.devices import resolve_precision
from simgan_aug.study.augment import Policy, draw_warp
from simgan_aug.study.split import Split
from simgan_aug.study.tasks import Task

Array = np.ndarray[Any, Any]

Feed = Callable[[Array, int], Array]
"""(rows, epoch) -> the images, (B, H, W, 3) uint8, that an arm shows of these rows."""

RATE, DECAY = 2e-3, 1e-2
"""Highest learning rate (one cycle) and weight decay of AdamW."""

STEPS_A_TICK = 5
"""Steps between two signs of life."""


class Budget(NamedTuple):
    """What every probe gets."""

    steps: int
    batch_size: int
    flip: bool
    device: torch.device


def train_probe(
    task: Task, split: Split, feed: Feed, policy: Policy, seed: int, budget: Budget
) -> Generator[None, None, nn.Module]:
    """Train a probe; yields every `STEPS_A_TICK` steps, returns the network.

    Args:
        task: what is learnt.
        split: labels, and how many images there are.
        feed: the images.
        policy: their jitter; the geometry is the same for all.
        seed: of weights, order and augmentation, so that two arms of one seed are a pair.
        budget: steps, batch and device.
    """
    network, draws = _network(task, seed, budget.device), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=budget.steps)
    targets, count = task.targets(split), len(split)
    size = min(budget.batch_size, count)
    for step in range(budget.steps):
        epoch, place = divmod(step, count // size)
        if place == 0:
            order = torch.randperm(count, generator=draws)
        rows = order[place * size : (place + 1) * size]
        shown = _batch(feed(rows.numpy(), epoch), budget.device)
        warp = draw_warp(size, split.size, task.turn, task.flip and budget.flip, draws)
        inputs = policy(warp.images(shown), draws) * 2 - 1
        wanted = {name: part[rows].to(budget.device) for name, part in targets.items()}
        loss = task.loss(_answers(network, inputs), wanted, warp.to(budget.device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cycle.step()
        if step % STEPS_A_TICK == 0:
            yield
    return network.eval()


@torch.no_grad()
def predict(task: Task, network: nn.Module, images: Array, budget: Budget) -> Array:
    """What a probe says of some images."""
    said = [
        task.predict(_answers(network, _batch(images[at : at + 128], budget.device) * 2 - 1).cpu())
        for at in range(0, len(images), 128)
    ]
    return np.concatenate(said)


def _network(task: Task, seed: int, device: torch.device) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # the weights of a seed, whatever came before
        torch.manual_seed(seed)
        network = task.network().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.train()


def _batch(images: Array, device: torch.device) -> Tensor:
    """(B, 3, H, W) in [0, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255


def _answers(network: nn.Module, inputs: Tensor) -> Tensor:
    fast = resolve_precision("auto", inputs.device) == "bf16"
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast(inputs.device.type, torch.bfloat16, fast):
        answers: Tensor = network(inputs)
    return answers.float()
