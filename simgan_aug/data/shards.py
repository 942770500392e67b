"""Images in WebDataset shards, by number.

A shard is a tar file of samples: files of one name but for the ending, the part from the first dot
on. The library webdataset reads shards from end to end; here any image can be asked for, so that
what is drawn depends on the seed alone. The standard library's `tarfile` reads each shard's headers
once; of other members nothing is read, and nothing is unpacked or unpickled.
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from simgan_aug.errors import DataError
from simgan_aug.imagefile import MAX_BYTES, SUFFIXES

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Index:
    """Where the images of some shards lie."""

    paths: list[Path]
    names: list[str]
    """Of the images within their shards."""
    places: Array
    """(N, 3) int64: number of the shard, offset and length in bytes."""

    def content(self, number: int) -> bytes:
        """The file of an image.

        Raises:
            DataError: the shard has gone or been cut.
        """
        shard, offset, size = self.places[number].tolist()
        try:
            with open(self.paths[shard], "rb") as file:
                file.seek(offset)
                found = file.read(size)
        except OSError as error:
            raise DataError(f"{self.title(number)}: cannot read it: {error.strerror}") from None
        if len(found) < size:
            raise DataError(f"{self.title(number)}: the shard has been cut short")
        return found

    def title(self, number: int) -> str:
        """Shard and name of an image."""
        return f"{self.paths[self.places[number, 0]]}/{self.names[number]}"

    def fingerprint(self, sizes: bool) -> str:
        """Of the names of shards and images, and of where these lie."""
        lines = [path.name for path in self.paths] + self.names
        digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))
        if sizes:
            digest.update(self.places.tobytes())
        return digest.hexdigest()


def index(paths: list[Path]) -> Index:
    """Find the images of shards, by reading the header of every member.

    Raises:
        DataError: a shard is missing, compressed, damaged or cut, holds two images in one sample,
            or all together hold none; names it.
    """
    names, places = [], []
    for number, path in enumerate(paths):
        for name, offset, size in _images(path):
            names.append(name)
            places.append((number, offset, size))
    if not names:
        raise DataError(f"{paths[0]}: no images in it ({', '.join(SUFFIXES)})")
    return Index(paths, names, np.array(places, dtype=np.int64))


def _images(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and length of each image of a shard."""
    last = ""
    for member in _members(path):
        key, ending = _split(member.name)
        if f".{ending.lower()}" not in SUFFIXES or not member.isreg() or member.issparse():
            continue
        if key == last:
            raise DataError(
                f"{path}: sample {key} has several images; write shards with one image a sample "
                "(masks belong under an ending of their own, such as .mask.png)"
            )
        if member.size > MAX_BYTES:
            raise DataError(f"{path}/{member.name}: longer than {MAX_BYTES:,} bytes")
        last = key
        yield member.name, member.offset_data, member.size


def _split(name: str) -> tuple[str, str]:
    """A member's sample and ending; of the library's own entries, such as __meta__, none."""
    folder, base = posixpath.split(name)
    key, _, ending = base.partition(".")
    hidden = name.startswith("__") and base.endswith("__")
    return posixpath.join(folder, key), "" if hidden or not key else ending


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                vars(archive)["members"] = []  # else all are held
                yield member
            _check_end(path, file, archive.offset)
    except FileNotFoundError:
        raise DataError(f"{path}: no such shard") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the shard: {error.strerror or error}") from None
    except (tarfile.TarError, ValueError) as error:  # a sparse or pax header that makes no sense
        raise DataError(
            f"{path}: not a readable shard (an uncompressed tar file): {error}"
        ) from None


def _check_end(path: Path, file: IO[bytes], offset: int) -> None:
    """Reject what `tarfile` takes for the end: damage to a header, or a cut between two members."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise DataError(f"{path}: the shard is damaged or cut short at byte {offset:,}")
