"""Folders of a job: where images are read, results written, and journals kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from simgan_aug import coco
from simgan_aug.errors import OutputError
from simgan_aug.files import chunks, write_atomically
from simgan_aug.imagefile import content_of

STATE = ".simgan"
"""Sub-folder of a result for what a job must remember."""

IMAGES = "images"
"""Sub-folder of a result for its images."""

SCRATCH = f"{STATE}/tmp"
JOURNAL = f"{STATE}/journal"
LOGS = f"{STATE}/logs"


class Folder(Protocol):
    """A folder on a disk, or in an object store; names are relative, with forward slashes."""

    appends: bool
    """Whether its files may grow; if not, what was read once is known."""

    @property
    def location(self) -> str:
        """Where it lies, however it was named, to be compared."""

    def __str__(self) -> str:
        """Its path or address."""

    def holds_but(self, name: str) -> bool:
        """Whether it holds anything beside this sub-folder."""

    def read(self, name: str) -> bytes:
        """A file's bytes; an `ImageError` if it is not there."""

    def write(self, name: str, content: bytes | Iterable[bytes], sync: bool = False) -> None:
        """Make a file appear, whole or not at all, and with `sync` even after a power cut.

        An `OutputError` if that fails.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def sync(self, names: Iterable[str]) -> None:
        """Wait until these files would survive a power cut."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""

    def parts(self, name: str) -> Iterator[bytes]:
        """A file's bytes, in parts; an `OSError` if it is not there."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the names under which no file lies."""

    def names(self, below: str) -> list[str]:
        """All files in a sub-folder and in those below it, sorted."""

    def tail(self, name: str, offset: int, limit: int) -> bytes:
        """At most `limit` of a file's bytes, from an offset on."""

    def appender(self, name: str) -> Appender:
        """A new file that grows."""


class Appender(Protocol):
    """Lines for a new file."""

    def append(self, line: bytes) -> None:
        """Add a line; in a file system it outlives this process, but no power cut."""

    def flush(self) -> None:
        """Wait until all lines would survive whatever comes."""

    def close(self) -> None:
        """End the file."""


class LocalFolder:
    """A folder of a file system; see `Folder`."""

    appends = True

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def location(self) -> str:
        """Its path, links followed."""
        return str(self.path.resolve())

    def holds_but(self, name: str) -> bool:
        """Whether it holds anything beside this sub-folder."""
        return self.path.exists() and any(other != name for other in os.listdir(self.path))

    def __str__(self) -> str:
        """Its path."""
        return str(self.path)

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        return content_of(coco.inside(self.path, name))

    def write(self, name: str, content: bytes | Iterable[bytes], sync: bool = False) -> None:
        """Make a file appear, by way of the scratch folder."""
        scratch = self.path / SCRATCH
        try:
            scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {scratch}: {error.strerror or error}") from None
        write_atomically(coco.inside(self.path, name), content, scratch, sync)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        path = coco.inside(self.path, name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror or error}") from None

    def sync(self, names: Iterable[str]) -> None:
        """Flush files, then the folders that hold them."""
        paths = [self.path / name for name in names]
        try:
            for path in paths:
                _flush(path)
            for parent in {path.parent for path in paths}:
                _flush(parent)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        with contextlib.suppress(OSError):
            return (self.path / name).stat().st_size
        return None

    def parts(self, name: str) -> Iterator[bytes]:
        """A file's bytes, in parts."""
        return chunks(self.path / name)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the names under which no file lies."""
        return coco.missing_of(names, self.path)

    def names(self, below: str) -> list[str]:
        """All files in a sub-folder and in those below it, sorted."""
        found: list[str] = []
        for parent, folders, files in os.walk(self.path / below):
            folders.sort()
            relative = Path(parent).relative_to(self.path).as_posix()
            found += [f"{relative}/{name}" for name in files]
        return sorted(found)

    def tail(self, name: str, offset: int, limit: int) -> bytes:
        """At most `limit` of a file's bytes, from an offset on."""
        with (self.path / name).open("rb") as file:
            file.seek(offset)
            return file.read(limit)

    def appender(self, name: str) -> Appender:
        """A new file that grows."""
        return _LocalAppender(self.path / name)


class _LocalAppender:
    """Each line is one write: what this process has appended, no kill takes back."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
        self._path = path

    def append(self, line: bytes) -> None:
        """Add a line."""
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None

    def flush(self) -> None:
        """Wait until the disk has all lines."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def folder_of(place: str | Path) -> Folder:
    """The folder at a path or an address.

    Raises:
        SimganAugError: an address that cannot be used; see `ObjectFolder`.
    """
    if not is_address(place):
        return LocalFolder(Path(place))
    from simgan_aug.dataset.objects import ObjectFolder

    return ObjectFolder(str(place))


def is_address(place: str | Path) -> bool:
    """Whether this is the address of an object store, such as s3://bucket/folder."""
    return isinstance(place, str) and "://" in place


def absolute(place: str | Path) -> str:
    """A folder for a process that may have another working directory; an address as it is."""
    return str(place) if is_address(place) else str(Path(place).absolute())


def sha256(folder: Folder, name: str) -> str:
    """The hash of a file; an `OSError` if it is not there."""
    digest = hashlib.sha256()
    for part in folder.parts(name):
        digest.update(part)
    return digest.hexdigest()


def digest_of(folder: Folder, name: str) -> str:
    """The hash of a file; nothing if it is not there."""
    try:
        return sha256(folder, name)
    except OSError:
        return ""


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stamp(folder: Folder, name: str) -> list[int | None]:
    """What tells whether a file has been written anew: its size, and on a disk its time."""
    if not isinstance(folder, LocalFolder):
        return [folder.size(name)]
    try:
        status = (folder.path / posixpath.normpath(name)).stat()
    except (OSError, ValueError):
        return [None]
    return [status.st_size, status.st_mtime_ns]


def read_json(folder: Folder, name: str) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is none."""
    try:
        content = json.loads(b"".join(folder.parts(name)))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
