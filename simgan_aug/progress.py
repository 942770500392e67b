"""Long work, shown: rate, time left, what it is at; Ctrl-C ends it between two items."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_T = TypeVar("_T")

LINE_EVERY = 10.0
"""Seconds between two lines where the output is no terminal."""

TWICE = 1.0
"""Seconds within which a second signal is the first one again: torchrun passes on to its processes
what the terminal has sent them already."""


class Interrupted(Exception):
    """The user pressed Ctrl-C; the work was ended in order."""


def track(
    items: Iterable[_T],
    total: int,
    done: int,
    unit: str,
    describe: Callable[[_T], str],
    console: Console,
    *,
    place: Callable[[_T], int] | None = None,
    wish: Wish | None = None,
) -> Iterator[_T]:
    """Yield the items, with a live bar on a terminal and a line now and then elsewhere.

    Args:
        items: the work; a generator is closed when the user interrupts, so that it can save.
        total, done: items of the whole work, and those that an earlier run has done.
        unit: "steps", "images".
        describe: what to say of an item, beside the bar.
        console: where to show it.
        place: which of `total` an item is, where numbers may come again; None: they do not.
        wish: the caller's, who then ends the items himself when it is given; None: one is made.

    Raises:
        Interrupted: Ctrl-C, after the item at hand; a second Ctrl-C is a KeyboardInterrupt at once.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
    )
    ends = wish is None
    with (
        wish or Wish(console) as wish,
        Progress(*columns, TimeRemainingColumn(), console=console) as bar,
    ):
        task = bar.add_task(unit, total=total, completed=done, rate="")
        began = last = time.monotonic()
        for number, item in enumerate(items, start=1):
            now = time.monotonic()
            rate = number / max(now - began, 1e-9)
            text, at = describe(item), place(item) if place else done + number
            bar.update(task, completed=at, description=text, rate=f"{rate:.1f} {unit}/s")
            if not console.is_terminal and now - last >= LINE_EVERY:
                left = (total - at) / rate
                console.print(
                    f"{at}/{total} {unit}, {rate:.1f}/s, {left:.0f} s left, {text}",
                    highlight=False,
                    markup=False,
                )
                last = now
            yield item
            if wish.given and ends:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
                raise Interrupted
        if wish.given:
            raise Interrupted


class Wish:
    """Ctrl-C as a wish while it is entered; in a thread, which gets no signals, it does nothing.

    Args:
        console: where to say so.
        signals: those that are one.
    """

    def __init__(
        self, console: Console, signals: Sequence[signal.Signals] = (signal.SIGINT,)
    ) -> None:
        self.given = False
        self._console, self._signals = console, signals
        self._before: dict[signal.Signals, Any] = {}
        self._since = 0.0

    def __enter__(self) -> Wish:
        with contextlib.suppress(ValueError):
            for each in self._signals:
                self._before[each] = signal.signal(each, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.given and time.monotonic() - self._since < TWICE:
            return
        if self.given:
            raise KeyboardInterrupt
        self.given, self._since = True, time.monotonic()
        self._console.print("stopping when what is at hand is done; Ctrl-C again aborts")
