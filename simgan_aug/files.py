"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from simgan_aug.errors import OutputError

CHUNK = 2**20
"""Bytes read and written at a time where a file may be large."""


def write_atomically(
    path: Path, content: bytes | Iterable[bytes], scratch: Path | None = None, sync: bool = True
) -> None:
    """Write a file whole or not at all.

    Args:
        path: of the file; its folder is made if need be.
        content: all of it, or its parts in order.
        scratch: folder on the same file system for the file while it is unfinished, so that what a
            kill leaves lies there; None: the folder of the file.
        sync: wait until the disk has it; without, a power cut (no kill) may lose or empty it.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(scratch or path.parent) as name:
            with name.open("xb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            name.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def chunks(path: Path) -> Iterator[bytes]:
    """The parts of a file, none larger than `CHUNK`."""
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            yield part


def sha256_of(path: Path) -> str:
    """The hash of a file of this machine."""
    digest = hashlib.sha256()
    for part in chunks(path):
        digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A name in a folder, of which nothing is left at the end."""
    name = folder / f".simgan-{secrets.token_hex(8)}.tmp"
    try:
        yield name
    finally:
        with contextlib.suppress(OSError):  # what kept us from writing is the error to report
            name.unlink(missing_ok=True)
