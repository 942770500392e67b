"""Long work, shown: rate, time left, what it is at; Ctrl-C ends it between two items."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_T = TypeVar("_T")

LINE_EVERY = 10.0
"""Seconds between two lines where the output is no terminal."""


class Interrupted(Exception):
    """The user pressed Ctrl-C; the work was ended in order."""


def track(
    items: Iterable[_T],
    total: int,
    done: int,
    unit: str,
    describe: Callable[[_T], str],
    console: Console,
) -> Iterator[_T]:
    """Yield the items, with a live bar on a terminal and a line now and then elsewhere.

    Args:
        items: the work; a generator is closed when the user interrupts, so that it can save.
        total, done: items of the whole work, and those that an earlier run has done.
        unit: "steps", "images".
        describe: what to say of an item, beside the bar.
        console: where to show it.

    Raises:
        Interrupted: Ctrl-C, after the item at hand; a second Ctrl-C is a KeyboardInterrupt at once.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
    )
    with _Wish(console) as wish, Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(unit, total=total, completed=done, rate="")
        began = last = time.monotonic()
        for number, item in enumerate(items, start=1):
            now = time.monotonic()
            rate = number / max(now - began, 1e-9)
            text = describe(item)
            bar.update(task, completed=done + number, description=text, rate=f"{rate:.1f} {unit}/s")
            if not console.is_terminal and now - last >= LINE_EVERY:
                left = (total - done - number) / rate
                console.print(
                    f"{done + number}/{total} {unit}, {rate:.1f}/s, {left:.0f} s left, {text}",
                    highlight=False,
                    markup=False,
                )
                last = now
            yield item
            if wish.given:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
                raise Interrupted


class _Wish:
    """Ctrl-C as a wish while it is entered; in a thread, which gets no signals, it does nothing."""

    def __init__(self, console: Console) -> None:
        self.given = False
        self._console = console
        self._before: Any = None

    def __enter__(self) -> _Wish:
        try:
            self._before = signal.signal(signal.SIGINT, self._handle)
        except ValueError:
            self._before = None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.given:
            raise KeyboardInterrupt
        self.given = True
        self._console.print("stopping when what is at hand is done; Ctrl-C again aborts")
