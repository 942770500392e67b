"""Decoded images of a side: made when they are asked for, kept while there is room."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, overload

import numpy as np

Array = np.ndarray[Any, Any]
_A = TypeVar("_A")
_B = TypeVar("_B")

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = min(8, max(4, _CORES))
"""Threads of a side that read and decode; several on one core too, for they wait for storage."""


class Kept:
    """Arrays by key; of what has no room the one used longest ago leaves.

    It changes how long things take and nothing else: what has left is made again, the same.

    Args:
        room: bytes.
    """

    def __init__(self, room: int) -> None:
        self.room, self.used = room, 0
        self.asked = self.made = 0
        """How often something was asked for, and had to be made."""
        self.has_dropped = False
        self._held: OrderedDict[Any, Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Array]) -> Array:
        """The array of a key."""
        with self._lock:
            self.asked += 1
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
                return found
            self.made += 1
        made = make()
        with self._lock:
            if made.nbytes > self.room:
                self.has_dropped = True
            elif key not in self._held:  # two threads may have made it
                self._held[key] = made
                self.used += made.nbytes
            while self.used > self.room:
                self.used -= self._held.popitem(last=False)[1].nbytes
                self.has_dropped = True
        return made


class Column(Sequence[Array]):
    """Arrays by number, each made by `make` and kept in `kept`."""

    def __init__(self, kept: Kept, count: int, make: Callable[[int], Array]) -> None:
        self.kept, self._count, self._make = kept, count, make

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> list[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | list[Array]:
        """One of them, or some."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        number = range(self._count)[index]
        return self.kept.get((id(self), number), lambda: self._make(number))


def ahead(make: Callable[[_A], _B], items: Iterable[_A], count: int) -> Iterator[_B]:
    """What `make` makes of each item, in order, made in threads up to `count` items ahead.

    An error shows where its item's turn comes. Closing the iterator ends the threads.
    """
    coming, waiting = iter(items), deque[Future[_B]]()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
    try:
        while True:
            while len(waiting) <= count:
                try:
                    waiting.append(pool.submit(make, next(coming)))
                except StopIteration:
                    break
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown()
