"""A worker as a process of its own, which an image may kill without harm to the job.

A line of JSON says what the job is, each further line is an image; each line printed is what became
of one. It ends when there are no more lines, and has then finished all that it was given.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import cv2

from simgan_aug.backends import NAMES
from simgan_aug.dataset.auditing import AuditTask
from simgan_aug.dataset.plan import Settings
from simgan_aug.dataset.storage import folder_of
from simgan_aug.dataset.worker import Item, Worker
from simgan_aug.devices import keep_freed_memory
from simgan_aug.errors import ConfigError, SimganAugError
from simgan_aug.files import sha256_of
from simgan_aug.inference import ImageRefiner

NO_FAULT = 75
"""Exit code where the job is to blame, not an image: the disk is full, a device is gone."""

READY = b"ready\n"
"""The line before the first outcome."""

WORKSPACE_MB = 512
"""Activations that a worker holds at once, in MiB; larger images are refined in tiles."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a process must know to be a worker."""

    refiner: str
    sha256: str
    """Of the refiner's file when the job was planned."""
    images: str
    out: str
    device: str
    threads: int
    settings: dict[str, Any]
    backend: str = "torch"

    def worker(self) -> Worker:
        """The worker, in this process.

        Raises:
            SimganAugError: the refiner cannot be used, or is another than was planned.
        """
        refiner = open_refiner(self.refiner, self.backend, self.device)
        if sha256_of(Path(self.refiner)) != self.sha256:
            raise ConfigError(
                f"{self.refiner} is not the refiner with which the job began: it has been written "
                "anew since, by a training maybe; copy the one that is meant to a name of its own"
            )
        source, target = folder_of(self.images), folder_of(self.out)
        return Worker(refiner, source, target, Settings(**self.settings), self.threads)

    def line(self) -> bytes:
        """As the first line that the process reads."""
        return json.dumps(asdict(self)).encode() + b"\n"


def open_refiner(path: str, backend: str = "torch", device: str = "cpu") -> ImageRefiner:
    """A refiner as workers have it.

    Not in bf16, which not every machine of a job rounds alike, unless the user has exported it.
    """
    return ImageRefiner.load(
        path,
        device,
        max_workspace_mb=WORKSPACE_MB,
        precision="fp32" if backend in NAMES else "auto",
        backend=backend,
    )


def task_of(told: dict[str, Any]) -> Task | AuditTask:
    """The task that a job's first line speaks of."""
    return AuditTask(**told) if told.get("kind") == "audit" else Task(**told)


class Lines:
    """The images on a stream; None as long as no line has come and some outcome is awaited."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.awaited = 0
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def __iter__(self) -> Iterator[Item | None]:
        """Until the stream ends."""
        while True:
            try:
                line = self._lines.get(block=not self.awaited)
            except queue.Empty:
                yield None
                continue
            if not line:
                return
            self.awaited += 1
            yield Item(*json.loads(line))

    def _read(self, stream: IO[bytes]) -> None:
        while line := stream.readline():
            self._lines.put(line)
        self._lines.put(b"")


def main() -> None:
    """Work until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the job says when to end
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to the log
    task = task_of(json.loads(sys.stdin.buffer.readline()))
    try:
        if task.device == "cpu":
            cv2.setNumThreads(1)  # a process a core is faster than its threads
            keep_freed_memory()
        worker = task.worker()
        answers.write(READY)
        answers.flush()
        lines = Lines(sys.stdin.buffer)
        for outcome in worker.work(lines):
            lines.awaited -= 1
            answers.write(json.dumps(asdict(outcome)).encode() + b"\n")
            answers.flush()
        worker.close()
    except BrokenPipeError:  # the job has gone; all lines are in the journal
        pass
    except SimganAugError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_FAULT)
