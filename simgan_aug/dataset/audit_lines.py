"""The lines of an audit: appended one an image, locked while they are, read again to go on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from simgan_aug.errors import OutputError


def lines_of(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """The lines of an interrupted audit, each with where it ends; up to one that is torn."""
    end = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                end += len(raw)
                line = json.loads(raw) if raw.endswith(b"\n") else None
                if not isinstance(line, dict):
                    return
                yield line, end
    except (OSError, ValueError, RecursionError):
        return


def appending(path: Path, kept: int, stale: Path) -> FileIO:
    """A file to append to, of which the first bytes are kept; a stale file is removed before.

    Raises:
        OutputError: it cannot be written, or another audit writes it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer: a full disk is met by `write_line`.
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        _lock(file, path)
        stale.unlink(missing_ok=True)
        file.seek(kept)
        file.truncate()
        return file
    except OSError as error:
        raise OutputError(
            f"cannot write {error.filename or path}: {error.strerror or error}"
        ) from None


def write_line(file: FileIO, line: dict[str, Any]) -> None:
    """Append a line.

    Raises:
        OutputError: it cannot be written.
    """
    content = json.dumps(line).encode() + b"\n"
    try:
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OutputError(f"cannot write the audit's lines: {error.strerror or error}") from None


def _lock(file: FileIO, path: Path) -> None:
    """Keep another audit away, for as long as the file is open."""
    with contextlib.suppress(OSError):  # where there are no locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OutputError(
                f"another audit writes {path}; wait for its end, or choose another --out"
            ) from None
