"""Where a job's workers run: in this process, in others on this machine, or on a Ray cluster."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from simgan_aug.coco import CocoImage
from simgan_aug.dataset.journal import Journal, Writer
from simgan_aug.dataset.pool import LATER, Pool
from simgan_aug.dataset.process import Task
from simgan_aug.dataset.ranks import Rank, share
from simgan_aug.dataset.storage import LOGS, Folder, LocalFolder
from simgan_aug.dataset.worker import Item, Outcome
from simgan_aug.errors import ConfigError

ENGINES = ("local", "torchrun", "ray")


class Job(Protocol):
    """What an engine asks of a job."""

    planned: list[CocoImage]
    journal: Journal
    target: Folder

    def labelled(self, items: Iterator[Item | None]) -> Iterator[Item | None]:
        """Items with their annotations, where they are needed."""


class Engine(Protocol):
    """Runs a job's workers."""

    rank: Rank
    """Of this process among those that share the job."""
    device: str
    """Where each worker refines."""
    threads: int
    """Of each worker that decode, and as many that encode."""

    def work(self, job: Job, task: Task, writer: Writer, held: Sequence[int]) -> Iterator[Outcome]:
        """Refine what is to do; yields what became of each image.

        Args:
            job: what is planned, and what is done.
            task: what a worker does.
            writer: of this process.
            held: descriptors that workers are to hold open.
        """


class Local:
    """Processes on this machine, this one's share if it is one of several."""

    def __init__(self, rank: Rank, device: str, workers: int | None) -> None:
        self.rank, chosen = rank, rank.device(device)
        self.device, on_gpu = str(chosen), chosen.type != "cpu"
        self.threads = max(1, rank.cores() // 2) if on_gpu else 1
        self.workers = (1 if on_gpu else rank.cores()) if workers is None else workers

    def work(self, job: Job, task: Task, writer: Writer, held: Sequence[int]) -> Iterator[Outcome]:
        """Refine in a pool of processes, or in this one if there are to be none."""
        items = job.labelled(share(job.planned, job.journal, self.rank, job.journal.suspects()))
        if self.workers:
            logs = _logs(job.target)
            yield from Pool(task, self.workers, writer, logs, held).work(items)
            return
        worker = task.worker()
        try:
            yield from worker.work(_patiently(items))
        finally:
            worker.close()


class OnRay:
    """Actors of a Ray cluster."""

    def __init__(self, device: str, workers: int | None) -> None:
        from simgan_aug.dataset.ray import Cluster

        self.rank, self._cluster = Rank(), Cluster()
        gpus = self._cluster.resource("GPU")
        if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not gpus):
            raise ConfigError(
                f"on Ray the device must be 'auto', 'cpu' or, where the cluster has GPUs, 'cuda'; "
                f"got {device!r}, and the cluster has {gpus} GPUs"
            )
        self.device = ("cuda" if gpus else "cpu") if device == "auto" else device
        on_gpu = self.device != "cpu"
        self.threads = 4 if on_gpu else 1
        self.workers = workers or max(1, gpus if on_gpu else self._cluster.resource("CPU"))

    def work(self, job: Job, task: Task, writer: Writer, held: Sequence[int]) -> Iterator[Outcome]:
        """Refine on the cluster."""
        items = job.labelled(share(job.planned, job.journal, self.rank, job.journal.suspects()))
        todo = [item for item in items if item is not None]
        return self._cluster.work(task, todo, self.workers, len(job.planned))


def engine_of(name: str, device: str, workers: int | None) -> Engine:
    """The engine of a name.

    Raises:
        SimganAugError: it is not installed, or lacks what it must be told; there is no such device.
    """
    if name == "ray":
        return OnRay(device, workers)
    rank = Rank.of_torchrun() if name == "torchrun" else Rank()
    return Local(rank, device, workers)


def _patiently(items: Iterator[Item | None]) -> Iterator[Item | None]:
    """The same, with a pause where there is nothing now."""
    for item in items:
        yield item
        if item is None:
            time.sleep(LATER)


def _logs(target: Folder) -> Path:
    """Where workers may print: in the result, or, if that is elsewhere, a temporary folder."""
    if isinstance(target, LocalFolder):
        return target.path / LOGS
    return Path(tempfile.mkdtemp(prefix="simgan-aug-logs-"))
