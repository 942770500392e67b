"""The share of one process in a job: all of it, or its part among those that torchrun started.

Ranks talk through the journals alone. Rank r of n takes every n-th image, from the r-th on; when it
is through it helps the others, with what nobody has begun, and with what somebody has begun and not
come back from for a while: a node may be lost.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from simgan_aug.coco import CocoImage
from simgan_aug.dataset.journal import TODO, Journal
from simgan_aug.dataset.worker import Item
from simgan_aug.devices import resolve_device
from simgan_aug.errors import ConfigError

CHUNK = 64
"""Images between two looks at what the others have done."""

HELP = 16
"""Images that are taken from others at a time."""

PATIENCE = 60.0
"""Seconds that an image may be in another's hands before it counts as lost."""


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
        """Cores for this process and its workers, of those that a container may use."""
        return max(1, min(len(os.sched_getaffinity(0)), _quota()) // self.local_world)


def _quota() -> int:
    """Cores that a container's limit amounts to; very many if there is none.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max)
    """
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(limit) // int(period))
    except (OSError, ValueError):  # no limit is "max"
        return sys.maxsize


def share(
    planned: Sequence[CocoImage], journal: Journal, rank: Rank, suspects: set[int]
) -> Iterator[Item | None]:
    """What a process is to refine, in order, as the journals stand when it comes to it.

    None says that there is nothing now, but may be in a moment: others are still at work.

    Args:
        planned: all images.
        journal: of all processes.
        rank: of this process.
        suspects: images that may kill their worker; they come last, those of other ranks as late
            as all that somebody has begun.
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
    for number in mine if suspects else ():
        if journal.state[number] == TODO and number in suspects:
            given.add(number)
            yield item(number)
    if rank.world > 1:
        for other in _others(journal, rank, given):
            if other is not None:
                given.add(other)
            yield None if other is None else item(other)


def _others(journal: Journal, rank: Rank, given: set[int]) -> Iterator[int | None]:
    """What the others have not come to, or have not come back from."""
    seen: dict[int, float] = {}  # since when an image has been in somebody's hands

    def free(number: int) -> bool:
        if journal.state[number] != TODO or number in given:
            return False
        if journal.claims[number] <= 0:
            return True
        return time.monotonic() - seen.setdefault(number, time.monotonic()) > PATIENCE

    while True:
        journal.refresh()
        left = [n for n, state in enumerate(journal.state) if state == TODO]
        if not any(number not in given for number in left):
            return
        wanted = [number for number in left if free(number)]
        # Each another part, from the far end on, where those whose share it is come last.
        wanted.reverse()
        start = HELP * rank.number % max(1, len(wanted))
        for number in (wanted[start:] + wanted[:start])[:HELP]:
            if free(number):  # still
                yield number
        if not wanted:
            yield None
