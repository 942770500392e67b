"""Folders: which images lie below one, and which may be written to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from simgan_aug.errors import ConfigError, DataError, OutputError
from simgan_aug.imagefile import SUFFIXES

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]


def list_images(folder: Path) -> list[str]:
    """Names of all image files below a folder, relative to it, sorted; links are followed.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with images")
    names = sorted(
        prefix + name
        for prefix, files in _walk(folder)
        for name in files
        if name.lower().endswith(SUFFIXES)
    )
    if not names:
        raise DataError(f"{folder}: no image files in it ({', '.join(SUFFIXES)})")
    return names


def check_apart(source: Path, out: Path) -> None:
    """Reject a result that would lie in its input, or the reverse, links followed.

    Raises:
        ConfigError: the folders overlap.
    """
    here, there = source.resolve(), out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ConfigError(
            f"{out} and {source} overlap; the input is never changed: choose an --out apart from it"
        )


def check_writable(out: Path) -> None:
    """Reject a folder that cannot be made or written to, before long work begins.

    Raises:
        ConfigError: a file is in the way, or the right to write is missing.
    """
    present = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not present.is_dir():
        raise ConfigError(f"{present} is a file; --out must be a folder")
    if not os.access(present, os.W_OK | os.X_OK):
        raise ConfigError(f"{present} cannot be written to; choose another --out")


@contextlib.contextmanager
def alone_in(out: Path, work: str) -> Iterator[None]:
    """Keep other processes that do the same out of a folder, where the file system has locks.

    Args:
        out: the folder; made if need be.
        work: what they do, for the message.

    Raises:
        ConfigError: one is at work in it.
        OutputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from None
    with contextlib.ExitStack() as held:
        if fcntl is not None:
            folder = os.open(out, os.O_RDONLY)  # not a file in it, which would be one more
            held.callback(os.close, folder)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another {work} is at work in {out}: wait for its end, or choose another --out"
                ) from None
            except OSError:  # a file system without locks
                pass
        yield


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """As `os.walk`, links followed, each folder once however many links lead to it.

    Folders come relative to the first, each with a slash behind it, the first as "".
    """
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(
            name for name in folders if os.path.realpath(os.path.join(parent, name)) not in seen
        )
        below = Path(parent).relative_to(folder)
        yield f"{below}{os.sep}" if below.parts else "", files
