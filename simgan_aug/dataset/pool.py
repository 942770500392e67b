"""Worker processes, kept busy, replaced when they die; and who killed them, found out."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from simgan_aug.dataset.journal import DEATHS
from simgan_aug.dataset.process import NO_FAULT, READY
from simgan_aug.dataset.worker import Item, Outcome
from simgan_aug.errors import OutputError

HELD = 4
"""Images in a worker's hands beside two for each of its threads: none ever waits for the next."""

FUTILE = 3
"""Workers in a row that may die before they have begun; then it is not the images."""

LATER = 1.0
"""Seconds until an iterator that had nothing is asked again."""

_END = Item(-1, "")
_PROGRAM = "from simgan_aug.dataset.process import main; main()"


class Work(Protocol):
    """What worker processes do: a `Task` or an `AuditTask`."""

    @property
    def device(self) -> str:
        """Where they do it."""

    @property
    def threads(self) -> int:
        """Of each, that read, and as many that write."""

    def line(self) -> bytes:
        """The first line that they read."""


class Notes(Protocol):
    """Where it is noted that an image has taken a worker with it: a `Writer`."""

    def add(self, **line: Any) -> None:
        """Append a line."""


class Pool:
    """Processes that refine or audit images.

    Args:
        task: what they do.
        count: how many they are.
        journal: of this process, for what they can no longer say.
        logs: folder for what they print.
        keep: files that they are to hold open, such as a lock.
    """

    def __init__(
        self, task: Work, count: int, journal: Notes, logs: Path, keep: Sequence[int] = ()
    ) -> None:
        self._task, self._count, self._journal = task, count, journal
        self._logs, self._keep = logs, keep
        self._held = HELD + 2 * task.threads
        self._workers: list[_Process] = []
        self._back: deque[Item] = deque()  # from workers that died before they began
        self._suspects: deque[Item] = deque()  # from workers that died later
        self._died: Counter[int] = Counter()
        self._futile = 0

    def work(self, items: Iterable[Item | None]) -> Iterator[Outcome]:
        """Refine images; those to be alone in a worker's hands come last. None: ask again later.

        An image that has taken `DEATHS` workers with it is a "killer". Closing the iterator waits
        for what the workers have at hand.

        Raises:
            OutputError: workers die before they have begun.
        """
        self._items = iter(items)
        with selectors.DefaultSelector() as selector:
            try:
                while True:
                    self._later = False
                    self._supply(selector)
                    if not self._workers and not self._later:
                        return
                    for key, _ in selector.select(LATER if self._later else None):
                        worker: _Process = key.data
                        yield from worker.outcomes()
                        if worker.ended:
                            selector.unregister(worker.answers)
                            self._workers.remove(worker)
                            yield from self._bury(worker)
            finally:
                self._end()

    def _supply(self, selector: selectors.BaseSelector) -> None:
        """Give every worker its fill, begin new ones while there is work, end idle ones."""
        for worker in self._workers:
            while worker.has_room(self._held) and (item := self._next(alone=False)):
                worker.give(item)
        while len(self._workers) < self._count and (item := self._next(alone=False)):
            self._begin(selector).give(item)
        if not all(item.alone for worker in self._workers for item in worker.held.values()):
            return
        for worker in self._workers:  # all else is done: now those that may kill
            if worker.has_room(1) and (item := self._next(alone=True)):
                worker.give(item)
        while len(self._workers) < self._count and (item := self._next(alone=True)):
            self._begin(selector).give(item)
        for worker in self._workers:
            if not worker.held and not self._later:
                worker.end()

    def _next(self, alone: bool) -> Item | None:
        """The next image that is, or is not, to be alone."""
        if not self._back and not self._later:
            item = next(self._items, _END)
            self._later = item is None
            if item is not None and item is not _END:
                self._back.append(item)
        waiting = self._back or self._suspects
        return waiting.popleft() if waiting and waiting[0].alone == alone else None

    def _begin(self, selector: selectors.BaseSelector) -> _Process:
        worker = _Process(self._task, self._logs, self._keep)
        self._workers.append(worker)
        selector.register(worker.answers, selectors.EVENT_READ, worker)
        return worker

    def _bury(self, worker: _Process) -> Iterator[Outcome]:
        """A worker has ended; if it died, what it held is suspect, or found guilty."""
        how = worker.wait()
        held = list(worker.held.values())
        self._futile = 0 if worker.ready else self._futile + 1
        if worker.code == NO_FAULT:
            raise OutputError(f"a worker process gave up: {how}")
        if self._futile >= FUTILE:
            raise OutputError(f"worker processes end before they have begun: {how}")
        if not worker.ready:
            self._back.extendleft(reversed(held))
        elif len(held) > 1:
            self._suspects.extend(item._replace(alone=True) for item in held)
        elif held:
            (item,) = held
            self._died[item.number] += 1
            self._journal.add(died=item.number, error=how)
            if self._died[item.number] < DEATHS:
                self._suspects.append(item._replace(alone=True))
            else:
                yield Outcome(item.number, item.name, "killer", how)

    def _end(self) -> None:
        """Let the workers finish, and journal, what they have; none is left behind."""
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            while not worker.ended:
                for _ in worker.outcomes():
                    pass
            worker.wait()
        self._workers.clear()


class _Process:
    """One worker process, seen from the job."""

    def __init__(self, task: Work, logs: Path, keep: Sequence[int]) -> None:
        self.held: dict[int, Item] = {}
        self.ended = self.ready = False
        self.code = 0
        self._rest = b""
        environment = dict(os.environ)
        if task.device == "cpu":
            environment |= {"OMP_NUM_THREADS": "1"}  # a process a core is faster than its threads
        try:
            logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {logs}: {error.strerror or error}") from None
        log = logs / f"worker-{os.getpid()}-{os.urandom(4).hex()}.log"
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                pass_fds=keep,
                start_new_session=True,  # Ctrl-C is for the job, which ends them in order
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._log, self._orders, self.answers = log, self._process.stdin, self._process.stdout
        self._say(task.line())

    def has_room(self, limit: int) -> bool:
        """Whether it takes one more image, of at most so many."""
        return len(self.held) < limit and not self._orders.closed

    def give(self, item: Item) -> None:
        """Hand it an image."""
        self.held[item.number] = item
        self._say(json.dumps(item).encode() + b"\n")

    def end(self) -> None:
        """Say that no more comes."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()

    def outcomes(self) -> Iterator[Outcome]:
        """What it has answered; waits for an answer if there is none."""
        content = os.read(self.answers.fileno(), 2**16)
        self.ended = not content
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            if not self.ready:  # what is printed before is of the interpreter's start
                self.ready = line == READY.strip()
                continue
            outcome = Outcome(**json.loads(line))
            del self.held[outcome.number]
            yield outcome

    def wait(self) -> str:
        """How it died; nothing if it ended in order."""
        self.end()
        code = self.code = self._process.wait()
        self.answers.close()
        said = self._said()
        if not code:
            if not said:
                self._log.unlink(missing_ok=True)
            return "it ended in order"
        how = f"exit code {code}"
        if code < 0:
            guess = "; out of memory?" if code == -signal.SIGKILL else ""
            how = f"signal {-code} ({signal.strsignal(-code)}{guess})"
        return f"{how}: {said} (all of it: {self._log})" if said else how

    def _say(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died, as its end of answers will tell
            self._orders.write(line)
            self._orders.flush()

    def _said(self) -> str:
        """The last line that it printed."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            return lines[-1][:500] if lines else ""
        return ""
