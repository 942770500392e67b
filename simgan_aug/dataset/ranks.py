"""The share of one process in a job: all of it, or its part among those that torchrun started.

Ranks talk through the journals alone. Rank r of n takes every n-th image, from the r-th on; when it
is through it helps the others, first with what nobody has begun, and at last, when for a while
nothing has come of it, with what somebody has: a node may be lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from simgan_aug.coco import CocoImage
from simgan_aug.dataset.journal import TODO, Journal
from simgan_aug.dataset.worker import Item
from simgan_aug.devices import resolve_device
from simgan_aug.errors import ConfigError

CHUNK = 64
"""Images between two looks at what the others have done."""

PATIENCE = 60.0
"""Seconds without news from the others after which what they hold counts as lost."""


@dataclass(frozen=True)
class Rank:
    """Which of how many processes this is."""

    number: int = 0
    world: int = 1
    local: int = 0
    """Which of those on this machine."""
    local_world: int = 1

    @classmethod
    def of_torchrun(cls) -> Rank:
        """As torchrun says in the environment.

        Raises:
            ConfigError: it says nothing.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        try:
            return cls(*(int(os.environ[name]) for name in names))
        except (KeyError, ValueError):
            raise ConfigError(
                "--engine torchrun needs RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE in the "
                "environment; start it so: torchrun --nproc-per-node 8 -m simgan_aug.cli refine ..."
            ) from None

    def device(self, wanted: str) -> torch.device:
        """The device for a wish that may be "auto": each process of a machine has its GPU."""
        device = resolve_device(wanted)
        if device.type == "cuda" and device.index is None and self.local_world > 1:
            return torch.device("cuda", self.local % torch.cuda.device_count())
        return device

    def cores(self) -> int:
        """Cores for this process and its workers."""
        return max(1, len(os.sched_getaffinity(0)) // self.local_world)


def share(
    planned: Sequence[CocoImage], journal: Journal, rank: Rank, suspects: set[int]
) -> Iterator[Item]:
    """What a process is to refine, in order, as the journals stand when it comes to it.

    Args:
        planned: all images.
        journal: of all processes.
        rank: of this process.
        suspects: images that may kill their worker; they come last.
    """

    def item(number: int) -> Item:
        image = planned[number]
        return Item(number, image.file_name, image.width, image.height, number in suspects)

    given: set[int] = set()
    mine = range(rank.number, len(planned), rank.world)
    for start in range(0, len(mine), CHUNK):
        if rank.world > 1:
            journal.refresh()
        for number in mine[start : start + CHUNK]:
            if journal.state[number] == TODO and number not in suspects:
                given.add(number)
                yield item(number)
    if rank.world > 1:
        for number in _others(journal, rank, given, suspects):
            given.add(number)
            yield item(number)
    for number in sorted(suspects):
        if journal.state[number] == TODO:
            yield item(number)


def _others(journal: Journal, rank: Rank, given: set[int], suspects: set[int]) -> Iterator[int]:
    """What the others have not come to, or have not come back from."""
    heard, before = time.monotonic(), -1
    while True:
        journal.refresh()
        left = [
            number
            for number, state in enumerate(journal.state)
            if state == TODO and number not in given and number not in suspects
        ]
        if not left:
            return
        if len(left) != before:
            heard, before = time.monotonic(), len(left)
        fresh = [number for number in left if journal.claims[number] <= 0]
        if time.monotonic() - heard > PATIENCE:
            fresh = left
        if not fresh:
            time.sleep(1)
            continue
        start = len(fresh) * rank.number // rank.world  # each from another place
        yield from (fresh[start:] + fresh[:start])[:CHUNK]
