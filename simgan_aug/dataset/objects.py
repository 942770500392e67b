"""Folders in object stores, by way of fsspec: s3://bucket/folder, gs://..., and their like.

A put is atomic there and lasts, so nothing needs a temporary name; but nothing can be appended to:
a journal is a row of objects, one a flush, and lines that are not yet flushed die with the process.
There are no locks either: two jobs on one folder do the same work twice, to the same bytes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

from simgan_aug.errors import ConfigError, DataError, DependencyError, ImageError, OutputError
from simgan_aug.files import CHUNK


class ObjectFolder:
    """A folder of an object store; see `simgan_aug.dataset.storage.Folder`.

    Args:
        url: its address; credentials are those that its fsspec library finds.

    Raises:
        DependencyError: fsspec, or its library for this store, is not installed.
        ConfigError: the address cannot be used.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise DependencyError(
                f"{url} needs fsspec: pip install 'simgan-aug[ray]', and what your store needs "
                "(s3fs, gcsfs, adlfs)"
            ) from None
        try:
            self._store, self._root = url_to_fs(url)
        except ImportError as error:
            raise DependencyError(f"{url}: {error}") from None
        except ValueError as error:
            raise ConfigError(f"{url}: no address that fsspec knows: {error}") from None
        self._url = url.rstrip("/")

    def __str__(self) -> str:
        """Its address."""
        return self._url

    def read(self, name: str) -> bytes:
        """An object's bytes."""
        try:
            return bytes(self._store.cat_file(self._path(name)))
        except FileNotFoundError:
            raise ImageError(f"{self._url}/{name}: no such image file") from None
        except OSError as error:
            raise ImageError(f"{self._url}/{name}: cannot be read: {error}") from None

    def write(self, name: str, content: bytes | Iterable[bytes], sync: bool = False) -> None:
        """Put an object."""
        self._put(name, content if isinstance(content, bytes) else b"".join(content))

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        try:
            self._store.rm_file(self._path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise OutputError(f"cannot remove {self._url}/{name}: {error}") from None

    def sync(self, names: Iterable[str]) -> None:
        """Nothing: what has been put lasts."""

    def size(self, name: str) -> int | None:
        """Bytes of an object; None if it is not there."""
        try:
            return int(self._store.info(self._path(name))["size"])
        except OSError:
            return None

    def parts(self, name: str) -> Iterator[bytes]:
        """An object's bytes, in parts."""
        with self._store.open(self._path(name), "rb") as file:
            while part := file.read(CHUNK):
                yield part

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the names under which no object lies; by one listing."""
        present = frozenset(self.names(""))
        return [name for name in names if self._path(name) and name not in present]

    def names(self, below: str) -> list[str]:
        """All objects below a folder, sorted."""
        self._store.invalidate_cache()
        root = self._store._strip_protocol(self._root).rstrip("/")
        try:
            found = self._store.find(posixpath.join(root, below).rstrip("/"))
        except FileNotFoundError:
            return []
        return sorted(path[len(root) + 1 :] for path in found)

    def tail(self, name: str, offset: int, limit: int) -> bytes:
        """At most `limit` of an object's bytes, from an offset on."""
        size = self.size(name) or 0
        if offset >= size:
            return b""
        content: Any = self._store.cat_file(
            self._path(name), start=offset, end=min(size, offset + limit)
        )
        return bytes(content)

    def appender(self, name: str) -> _ObjectAppender:
        """A row of new objects."""
        return _ObjectAppender(self, name.removesuffix(".jsonl"))

    def _put(self, name: str, content: bytes) -> None:
        path = self._path(name)
        try:
            self._store.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._store.pipe_file(path, content)
        except OSError as error:
            raise OutputError(f"cannot write {self._url}/{name}: {error}") from None

    def _path(self, name: str) -> str:
        """Where an object lies; names must be plain, for there are no links to follow."""
        if not name or "\0" in name or "\\" in name or name.startswith("/"):
            raise DataError(f"file_name {name!r} is not a relative path with forward slashes")
        if posixpath.normpath(name) != name:
            raise DataError(
                f"file_name {name!r} is no name of an object: write it without . and .."
            )
        return f"{self._root.rstrip('/')}/{name}"


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
