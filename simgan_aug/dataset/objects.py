"""Folders in object stores, by way of fsspec: s3://bucket/folder, gs://..., and their like.

A put is atomic there and lasts, so nothing needs a temporary name; but nothing can be appended to:
a journal is a row of objects, one a flush, and lines that are not yet flushed die with the process.
There are no locks either: two jobs on one folder do the same work twice, to the same bytes.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator

from simgan_aug.errors import (
    ConfigError,
    DataError,
    DependencyError,
    ImageError,
    OutputError,
    SimganAugError,
)
from simgan_aug.files import CHUNK


class ObjectFolder:
    """A folder of an object store; see `simgan_aug.dataset.storage.Folder`.

    Args:
        url: its address; credentials are those that its fsspec library finds.

    Raises:
        DependencyError: fsspec, or its library for this store, is not installed.
        ConfigError: the address cannot be used.
    """

    appends = False

    def __init__(self, url: str) -> None:
        if "::" in url or url.partition("://")[0] in ("file", "local"):
            raise ConfigError(f"{url}: give a plain path, or the address of an object store")
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise DependencyError(
                f"{url} needs fsspec: pip install 'simgan-aug[ray]', and what your store needs "
                "(s3fs, gcsfs, adlfs)"
            ) from None
        try:
            self._store, root = url_to_fs(url)
        except ImportError as error:
            raise DependencyError(f"{url}: {error}") from None
        except Exception as error:  # each store has its own
            raise ConfigError(f"{url}: no address that fsspec can use: {error}") from None
        self._url, self._root = url.rstrip("/"), root.rstrip("/")

    @property
    def location(self) -> str:
        """Its address, as the store has it."""
        return f"{type(self._store).__name__}:{self._root}"

    def __str__(self) -> str:
        """Its address."""
        return self._url

    def holds_but(self, name: str) -> bool:
        """Whether it holds anything beside this sub-folder."""
        return any(not other.startswith(f"{name}/") for other in self.names(""))

    def read(self, name: str) -> bytes:
        """An object's bytes; an `OutputError` if the store fails: no image is to blame for that."""
        with self._reached(name):
            try:
                return bytes(self._store.cat_file(self._path(name)))
            except FileNotFoundError:
                raise ImageError(f"{self._url}/{name}: no such image file") from None

    def write(self, name: str, content: bytes | Iterable[bytes], sync: bool = False) -> None:
        """Put an object, from memory: one that is put in parts could end half-way."""
        path = self._path(name)
        with self._reached(name):
            self._store.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._store.pipe_file(
                path, content if isinstance(content, bytes) else b"".join(content)
            )

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._reached(name), contextlib.suppress(FileNotFoundError):
            self._store.rm_file(self._path(name))

    def sync(self, names: Iterable[str]) -> None:
        """Nothing: what has been put lasts."""

    def size(self, name: str) -> int | None:
        """Bytes of an object; None if it is not there."""
        with self._reached(name):
            try:
                return int(self._store.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def parts(self, name: str) -> Iterator[bytes]:
        """An object's bytes, in parts."""
        with self._reached(name, missing=True), self._store.open(self._path(name), "rb") as file:
            while part := file.read(CHUNK):
                yield part

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the names under which no object lies; by one listing."""
        present = frozenset(self.names(""))
        return [name for name in names if self._path(name) and name not in present]

    def names(self, below: str) -> list[str]:
        """All objects below a folder, sorted."""
        with self._reached(below):
            self._store.invalidate_cache()
            try:
                found = self._store.find(f"{self._root}/{below}".rstrip("/"))
            except FileNotFoundError:
                return []
        root = self._store._strip_protocol(self._root).rstrip("/")
        return sorted(path[len(root) + 1 :] for path in found)

    def tail(self, name: str, offset: int, limit: int) -> bytes:
        """An object's bytes from an offset on: all, for an object of a journal is small."""
        with self._reached(name):
            return bytes(self._store.cat_file(self._path(name)))[offset:]

    def appender(self, name: str) -> _ObjectAppender:
        """A row of new objects."""
        return _ObjectAppender(self, name.removesuffix(".jsonl"))

    @contextlib.contextmanager
    def _reached(self, name: str, missing: bool = False) -> Iterator[None]:
        """What a store's library raises, whichever it is, as an `OutputError`."""
        try:
            yield
        except SimganAugError:
            raise
        except Exception as error:
            if missing and isinstance(error, FileNotFoundError):
                raise
            said = str(error) or type(error).__name__
            raise OutputError(f"{self._url}/{name}: the store failed: {said}") from None

    def _path(self, name: str) -> str:
        """Where an object lies; names must be plain, for there are no links to follow."""
        if not name or "\0" in name or "\\" in name or name.startswith("/"):
            raise DataError(f"file_name {name!r} is not a relative path with forward slashes")
        if posixpath.normpath(name) != name or name == ".." or name.startswith("../"):
            raise DataError(f"file_name {name!r} is no name of an object: leave out . and ..")
        return f"{self._root}/{name}"


class _ObjectAppender:
    """Lines that become an object at each flush."""

    def __init__(self, folder: ObjectFolder, name: str) -> None:
        self._folder, self._name = folder, name
        self._lines: list[bytes] = []
        self._number = 0

    def append(self, line: bytes) -> None:
        """Keep a line for the next flush."""
        self._lines.append(line)

    def flush(self) -> None:
        """Put the lines kept."""
        if self._lines:
            self._folder.write(f"{self._name}-{self._number:06}.jsonl", b"".join(self._lines))
            self._lines = []
            self._number += 1

    def close(self) -> None:
        """Put the lines kept."""
        self.flush()
