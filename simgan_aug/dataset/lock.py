"""Who works on a result: one job alone, or the ranks of one job together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from simgan_aug.errors import OutputError

PATIENCE = 10.0
"""Seconds to wait for a job of which it is not known whether it lives."""


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
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()} {platform.node()}".encode(), 0)
        yield file
    finally:
        os.close(file)


def _take(file: int, path: Path, kind: int) -> None:
    """Wait for the lock, as long as only workers that a killed job has left behind hold it."""
    began, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            left_behind, waited = _is_dead(os.pread(file, 200, 0)), time.monotonic() - began
            if not left_behind and waited >= PATIENCE:
                raise OutputError(
                    f"another job is at work in {path.parent.parent}; wait for its end, or "
                    "run both under --engine torchrun, which shares the work"
                ) from None
            if left_behind and not told and waited >= 2:
                warnings.warn("waiting for workers of a job that was killed", stacklevel=2)
                told = True
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return


def _is_dead(holder: bytes) -> bool:
    """Whether the process that took a lock is known to have ended."""
    pid, _, host = holder.decode(errors="replace").partition(" ")
    if host != platform.node() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        pass
    return False
