"""The job on Ray Data: a cluster's actors refine, the journals remember.

Ray restarts an actor that died and hands it the same images again, for ever; the journals know
which of them were begun. So an actor reads them when it starts: what is done is passed over, what
was begun is refined alone, and what was begun alone too often is set aside.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from simgan_aug.dataset.journal import BATCH, TODO, Journal
from simgan_aug.dataset.plan import Settings
from simgan_aug.dataset.process import Task
from simgan_aug.dataset.storage import folder_of
from simgan_aug.dataset.worker import Item, Outcome
from simgan_aug.errors import DependencyError, OutputError

BLOCKS = 20_000
"""Tasks that a job is divided into at most."""


class Cluster:
    """The Ray cluster that RAY_ADDRESS names, or one on this machine.

    Raises:
        DependencyError: Ray Data is not installed.
    """

    def __init__(self) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise DependencyError(
                f"--engine ray needs Ray Data: pip install 'simgan-aug[ray]' ({error})"
            ) from None
        self._ray = ray
        logging.getLogger("ray").setLevel(logging.ERROR)
        if not ray.is_initialized():
            dashboard = None if os.environ.get("RAY_ADDRESS") else False
            ray.init(include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)

    def resource(self, name: str) -> int:
        """How many "CPU"s or "GPU"s there are."""
        return int(self._ray.cluster_resources().get(name, 0))

    def work(
        self, task: Task, items: Sequence[Item], workers: int, count: int
    ) -> Iterator[Outcome]:
        """Refine images on so many actors; yields what became of each.

        Args:
            task: what an actor does.
            items: the images to do.
            workers: actors.
            count: images planned.

        Raises:
            OutputError: the cluster fails.
        """
        if not items:
            return
        ray = self._ray
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        for name in ("ray.data", "ray.data._internal"):
            logging.getLogger(name).setLevel(logging.ERROR)
        told = asdict(task)

        class Refining(Actor):  # what its constructor is given, Ray could lose with a node
            def __init__(self) -> None:
                super().__init__(told, count)

        rows = [{"item": json.dumps(item)} for item in items]
        blocks = min(BLOCKS, -(-len(rows) // BATCH))
        on_gpu = task.device != "cpu"
        outcomes = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            Refining,
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=min(workers, blocks)),
            num_cpus=1,
            num_gpus=1 if on_gpu else None,
        )
        try:
            for row in outcomes.iter_rows():
                yield Outcome(**json.loads(row["outcome"]))
        except ray.exceptions.RayError as error:
            raise OutputError(f"ray: {str(error).strip().splitlines()[-1]}") from None


class Actor:
    """A worker that Ray hands batches of images; see the head of this module."""

    def __init__(self, task: dict[str, Any], count: int) -> None:
        self._task = Task(**task)
        policy = Settings(**self._task.settings).policy
        self._journal = Journal(folder_of(self._task.out), count, policy)
        self._journal.refresh()
        self._worker = self._task.worker()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Refine a batch; a row of JSON for each of its images."""
        items = [Item(*json.loads(line)) for line in batch["item"]]
        return {"outcome": [json.dumps(asdict(outcome)) for outcome in self._refined(items)]}

    def _refined(self, items: list[Item]) -> Iterator[Outcome]:
        killers, suspects = self._journal.killers(), self._journal.suspects()
        todo: list[Item] = []
        alone: list[Item] = []
        for item in items:
            if item.number in killers:
                yield Outcome(item.number, item.name, "killer", killers[item.number])
            elif self._journal.state[item.number] != TODO:
                yield Outcome(item.number, item.name, "there")
            else:
                (alone if item.alone or item.number in suspects else todo).append(item)
        yield from self._together(todo, alone)
        for item in alone:
            yield from self._alone(item._replace(alone=True))

    def _together(self, items: list[Item], alone: list[Item]) -> Iterator[Outcome]:
        """Refine images; if one breaks the worker, those without an outcome are to go alone."""
        self._worker.claim(items)
        left = {item.number: item for item in items}
        try:
            for outcome in self._worker.work(items, claimed=True):
                del left[outcome.number]
                yield outcome
        except Exception:  # of a plugin
            alone += left.values()

    def _alone(self, item: Item) -> Iterator[Outcome]:
        self._worker.claim([item])
        try:
            yield from self._worker.work([item], claimed=True)
        except Exception as error:
            yield Outcome(item.number, item.name, "killer", repr(error))
