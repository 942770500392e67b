"""Who works on a result: one job alone, or the ranks of one job together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from simgan_aug.errors import OutputError

PATIENCE = 10.0
"""Seconds that workers of a job that was killed may take to finish what they hold."""


@contextlib.contextmanager
def held(path: Path, shared: bool) -> Iterator[int]:
    """Hold a lock file; yields its descriptor, which workers inherit and so hold too.

    Args:
        path: of the file.
        shared: with others who share it, but with nobody who does not.

    Raises:
        OutputError: somebody else holds it, and goes on doing so.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        _take(file, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _take(file: int, path: Path, kind: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise OutputError(
                    f"another job is at work in {path.parent.parent}; wait for its end, or "
                    "run both under --engine torchrun, which shares the work"
                ) from None
            time.sleep(0.05)
        except OSError:  # a file system without locks: two jobs would only do the work twice
            return
