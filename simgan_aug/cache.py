"""Refined images kept: a refiner is deterministic, so what it has once computed is a read away.

An entry is found by the source's bytes and by everything else that the result depends on (weights,
backend, seed, strength), and holds the refined bytes as they are: nothing is lost. A full cache
keeps what it has and takes no more: in a loop over epochs, where each image comes once an epoch,
that serves more reads than throwing out the oldest would.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import xxhash
from torch import Tensor

from simgan_aug.errors import ConfigError
from simgan_aug.inference import ImageRefiner, leading_rows, seeds_of, strengths_of
from simgan_aug.pixels import Image, bytes_of
from simgan_aug.rows import rows_of

_MAGIC = b"simgan1\n"
_HEAD = len(_MAGIC) + 16
_FOLDER = "simgan_aug_cache"
_ABANDONED = 3600.0  # seconds after which a temporary file has no writer any more


class Store(Protocol):
    """Bytes by key; losing an entry is allowed, giving a wrong one is not."""

    def get(self, key: str) -> bytes | None:
        """The bytes put under a key, or None."""

    def put(self, key: str, content: bytes) -> None:
        """Keep bytes, if there is room."""


class MemoryStore:
    """Bytes in this process's memory.

    Workers of a `DataLoader` have a memory each, which ends with them: keep them alive
    (`persistent_workers=True`), or use a folder, which may lie in memory too (/dev/shm).

    Args:
        limit: bytes held at most.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._held: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """The bytes put under a key, or None."""
        return self._held.get(key)

    def put(self, key: str, content: bytes) -> None:
        """Keep bytes, if there is room."""
        if key not in self._held and len(content) <= self._room:
            self._room -= len(content)
            self._held[key] = content


class DiskStore:
    """Bytes in a folder that any number of processes share.

    An entry is FOLDER/simgan_aug_cache/SPACE/<2 hex digits>/<key>; nothing beside it is touched.
    A file appears whole or not at all, and is checked when read: one that is torn, damaged or of
    another key counts as missing, and is written anew. Entries of other spaces (other weights)
    make room first.

    Args:
        folder: made if need be.
        space: what all keys have in common, as a folder's name; entries of others are outdated.
        limit: bytes held at most, in all spaces together; each further writing process may
            overshoot by a sixteenth (or by one entry, if that is more), for it counts the others'
            files only now and then.

    Raises:
        ConfigError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, space: str, limit: int) -> None:
        self._folder, self._space, self._limit = folder, folder / _FOLDER / space, limit
        self._room = 0
        self._uncounted = limit  # bytes written since the last count; so much forces the first
        self._closed = False
        try:
            self._space.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cache {folder}: cannot be made: {error.strerror}; choose another folder"
            ) from None
        if not os.access(self._space, os.W_OK | os.X_OK):
            raise ConfigError(f"cache {folder}: cannot be written to; choose another folder")

    def get(self, key: str) -> bytes | None:
        """The bytes put under a key, or None."""
        try:
            raw = self._path(key).read_bytes()
        except OSError:
            return None
        content = raw[_HEAD:]
        return content if raw[:_HEAD] == _head(key, content) else None

    def put(self, key: str, content: bytes) -> None:
        """Keep bytes, if there is room; a disk that cannot take them is warned of once."""
        if self._closed:
            return
        try:
            size = len(content) + _HEAD
            if self._uncounted + size > self._limit // 16:
                self._count()
            if size <= self._room:
                self._write(self._path(key), _head(key, content) + content)
                self._room -= size
                self._uncounted += size
        except OSError as error:
            self._closed = True
            warnings.warn(
                f"cache {self._folder}: nothing more is kept: {error.strerror or error}",
                stacklevel=2,
            )

    def _path(self, key: str) -> Path:
        return self._space / key[:2] / key

    def _write(self, path: Path, raw: bytes) -> None:
        """Not fsynced: what a power cut tears is found out when it is read."""
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            temporary.write_bytes(raw)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _count(self) -> None:
        """Count the folder; where it is full, remove outdated files, the oldest first."""
        total, outdated, now = 0, [], time.time()
        for path, size, modified in _files(self._space.parent):
            total += size
            other = not path.startswith(f"{self._space}{os.sep}")
            if now - modified > _ABANDONED if path.endswith(".tmp") else other:
                outdated.append((modified, size, path))
        for _, size, path in sorted(outdated):
            if total <= self._limit * 7 // 8:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
        self._room, self._uncounted = self._limit - total, 0


class CachedRefiner:
    """An `ImageRefiner` that looks each image up before it computes it.

    Args:
        refiner: computes what is missing.
        store: keeps what was computed.
    """

    def __init__(self, refiner: ImageRefiner, store: Store) -> None:
        self._refiner, self._store = refiner, store

    def __call__(
        self,
        image: Image,
        *,
        seed: int | Sequence[int] = 0,
        strength: float | Sequence[float] = 1.0,
        channel_order: str = "rgb",
    ) -> Image:
        """See `ImageRefiner`.

        Raises:
            ConfigError: an image lies on a GPU: to fetch it costs more than to refine it.
        """
        if not isinstance(image, (list, tuple)) and getattr(image, "ndim", None) != 4:
            return self([image], seed=seed, strength=strength, channel_order=channel_order)[0]
        if not len(image):
            return self._refiner(image, channel_order=channel_order)
        seeds, strengths = seeds_of(seed, len(image)), strengths_of(strength, len(image))
        keys = [
            _key(each, s, share, channel_order)
            for each, s, share in zip(image, seeds, strengths, strict=True)
        ]
        leading = list(range(len(keys)))
        if not isinstance(image, (list, tuple)):  # a frame depends on the first one of its seed
            leading = leading_rows(seeds)
            keys = [
                key if first == row else f"{key}-{keys[first]}"
                for row, (key, first) in enumerate(zip(keys, leading, strict=True))
            ]
        found = [self._store.get(key) for key in keys]
        torn = {leading[row] for row, content in enumerate(found) if content is None}
        missing = [row for row, first in enumerate(leading) if first in torn]
        if missing:
            computed = self._refiner(
                rows_of(image, missing),
                seed=[seeds[index] for index in missing],
                strength=[strengths[index] for index in missing],
                channel_order=channel_order,
            )
            for index, refined in zip(missing, computed, strict=True):
                content = bytes_of(refined).tobytes()
                self._store.put(keys[index], content)
                found[index] = content
        refined = [_image(content, each) for content, each in zip(found, image, strict=True)]
        return refined if isinstance(image, (list, tuple)) else _stacked(refined, like=image)


def _stacked(images: list[Image], like: Image) -> Image:
    if isinstance(like, Tensor):  # whose rows are plain tensors even if it is of a subclass
        return torch.stack([image.as_subclass(Tensor) for image in images]).as_subclass(type(like))
    return np.stack(images, dtype=like.dtype)  # byte order included


def _key(image: Image, seed: int, strength: float, channel_order: str) -> str:
    if isinstance(image, Tensor) and image.device.type != "cpu":
        raise ConfigError(
            f"a cache needs images on the CPU, this one is on {image.device}: refine before "
            "the images go there, or without a cache"
        )
    content = bytes_of(image)
    # A dtype of torch is written "torch.uint8", and so tells tensors from arrays.
    how = f"{image.dtype} {tuple(image.shape)} {seed} {strength!r}"
    hashed = xxhash.xxh3_128(f"{how} {channel_order}\n".encode())
    hashed.update(content.data)
    return str(hashed.hexdigest())


def _image(content: bytes | None, like: Image) -> Image:
    assert content is not None
    if isinstance(like, Tensor):
        flat = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return flat.view(like.dtype).reshape(like.shape).as_subclass(type(like))
    return np.frombuffer(bytearray(content), dtype=like.dtype).reshape(like.shape)


def _head(key: str, content: bytes) -> bytes:
    hashed = xxhash.xxh3_128(key.encode())
    hashed.update(content)
    return _MAGIC + hashed.digest()


def _files(folder: str | Path) -> Iterator[tuple[str, int, float]]:
    """Path, size and time of each file below a folder; of one that vanishes, nothing."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                yield entry.path, status.st_size, status.st_mtime
