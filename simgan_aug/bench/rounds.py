"""Variants that take turns: figures that hold on a machine whose speed drifts.

Each variant lives in a process of its own, started afresh and kept. They take turns, in an order
that is reversed every round, and one variant is compared with another round by round: the median of
these ratios, with their range, is not moved by what else the machine does.

    def eager(size):                      # at the top of a module: it travels by its name
        network = make(size)              # not timed
        return lambda: network(...)       # timed

    figures = take_turns({"eager": partial(eager, 640), "compiled": partial(compiled, 640)})
    figures.median("eager")               # seconds of CPU time
    figures.ratio("eager", "compiled")    # times as much, round by round
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from simgan_aug.bench.table import Ratio
from simgan_aug.errors import DependencyError, SimganAugError

Work = Callable[[], float | None]
"""One unit of work. What takes its own measure returns it: it stands in place of the time."""

Variant = Callable[[], Work]
"""Makes the work, in the process of the variant; it must pickle."""

MOST_REPEATS = 1000

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Skip(Exception):
    """A variant that cannot be measured here; its message is what the row says."""


@dataclass
class Figures:
    """What rounds have measured, by variant."""

    values: dict[str, list[float]] = field(default_factory=dict)
    """One a round: seconds of CPU time that a unit of work takes, or the work's own measure."""
    peak_mb: dict[str, float] = field(default_factory=dict)
    """The most memory that the process has held, in MiB."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Variants without values, and why."""

    def median(self, name: str) -> float:
        """Over the rounds."""
        return statistics.median(self.values[name])

    def ratio(self, name: str, other: str) -> Ratio | None:
        """A variant's values over another's, round by round; None if either was skipped."""
        if name in self.skipped or other in self.skipped:
            return None
        pairs = zip(self.values[name], self.values[other], strict=True)
        return Ratio.of([mine / its for mine, its in pairs])


def take_turns(
    variants: Mapping[str, Variant],
    *,
    rounds: int = 7,
    seconds: float = 0.3,
    threads: int = 1,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Figures:
    """Measure variants in turns, after a round that is not counted.

    Args:
        variants: by name. One whose making or work raises `Skip` or `DependencyError` is skipped.
        rounds: that are counted; at least 7 for a figure that is to be told.
        seconds: that the work of one round is repeated for, roughly; work that takes longer is done
            once.
        threads: of each process, in torch, OpenCV and BLAS.
        progress: shows the rounds as they go.

    Raises:
        SimganAugError: of a variant.
        RuntimeError: any other of a variant, with its traceback.
    """
    figures = Figures()
    with ExitStack() as open_ones:
        processes: dict[str, _Process] = {}
        coming, starting = iter(variants.items()), deque[_Process]()
        for name in variants:
            # As many start at a time as there are processors: a start is imports for the most part.
            for each in islice(coming, (os.cpu_count() or 1) - len(starting)):
                starting.append(open_ones.enter_context(_started(*each, seconds, threads)))
            process = starting.popleft()
            try:
                process.answer()
            except Skip as why:
                figures.skipped[name] = str(why)
                continue
            processes[name], figures.values[name] = process, []
        for process in processes.values():
            process.find_repeats()
        for name in _turns([*processes], rounds, progress):
            value, figures.peak_mb[name] = processes[name].round()
            figures.values[name].append(value)
    return figures


def turns_here(
    works: Mapping[str, Callable[[], float]],
    rounds: int,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Figures:
    """The same in this process, for what shares too much to be apart: each work measures itself.

    Args:
        works: by name; each is done once more at first, uncounted.
        rounds, progress: as for `take_turns`.
    """
    figures = Figures({name: [] for name in works})
    for work in works.values():
        work()
    for name in _turns([*works], rounds, progress):
        figures.values[name].append(works[name]())
    return figures


def _turns(
    names: list[str], rounds: int, progress: Callable[[Iterator[int]], Iterator[int]]
) -> Iterator[str]:
    """Whose turn it is: all in each round, in an order that is reversed every round."""
    for number in progress(iter(range(rounds))):
        yield from names[:: -1 if number % 2 else 1]


class _Process:
    """The near end of a variant's process."""

    def __init__(self, name: str, pipe: Connection) -> None:
        self._name, self._pipe = name, pipe

    def find_repeats(self) -> None:
        """Have it find out how often a round does the work, while no other does anything."""
        self._pipe.send(True)
        self.answer()

    def round(self) -> tuple[float, float]:
        """The measure of one round, and the peak of memory so far."""
        self._pipe.send(True)
        return cast("tuple[float, float]", self.answer())

    def answer(self) -> Any:
        """What the process says next; what it raises is raised here."""
        try:
            kind, said = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self._name!r} has died") from None
        if kind == "skip":
            raise Skip(said)
        if kind == "error":
            raise SimganAugError(said)
        if kind == "fault":
            raise RuntimeError(f"{self._name}: {said}")
        return said


@contextmanager
def _started(name: str, variant: Variant, seconds: float, threads: int) -> Iterator[_Process]:
    """A process that has the variant made and warmed up."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_live, args=(there, variant, seconds, threads), daemon=False)
    try:
        with _environment(dict.fromkeys(_THREADS, str(threads))):  # read when libraries are loaded
            process.start()
        there.close()
        yield _Process(name, here)
    except BaseException:
        if process.pid is not None:
            process.terminate()  # in the midst of its work, maybe
        raise
    finally:
        here.close()  # the process ends when nothing can ask it any more
        if process.pid is not None:
            process.join()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set for what is started within."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def _live(pipe: Connection, variant: Variant, seconds: float, threads: int) -> None:
    """The life of a variant's process: make the work, then a round whenever one is asked for."""
    try:
        work = variant()
        _limit_threads(threads)
        work()
        pipe.send(("ready", None))
        pipe.recv()
        repeats = _repeats(work, seconds)
        pipe.send(("repeats", repeats))
        while pipe.recv():
            pipe.send(("round", (_measured(work, repeats), _peak_mb())))
    except (EOFError, BrokenPipeError):
        pass
    except (Skip, DependencyError) as error:
        pipe.send(("skip", str(error)))
    except SimganAugError as error:
        pipe.send(("error", str(error)))
    except Exception:
        pipe.send(("fault", traceback.format_exc()))


def _repeats(work: Work, seconds: float) -> int:
    """How often a round does the work."""
    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    return max(1, min(MOST_REPEATS, math.ceil(seconds / max(took, 1e-9))))


def _measured(work: Work, repeats: int) -> float:
    began, told = time.process_time(), [work() for _ in range(repeats)]
    took = (time.process_time() - began) / repeats
    own = [value for value in told if value is not None]
    return statistics.mean(own) if own else took


def _limit_threads(threads: int) -> None:
    """Of libraries that do not read the environment, where they are in use."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)


def _peak_mb() -> float:
    """The most memory this process has held, in MiB; nan where there is no /proc to say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
