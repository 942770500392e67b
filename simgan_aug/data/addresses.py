"""Images that a plugin's source holds: SCHEME:REST, such as lmdb:photos.lmdb.

What stands before the colon is the name of a source, what stands behind it is its own affair. A
name has two letters or more, so that C:\\photos is a path; and what exists is a file, whatever its
name.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simgan_aug import plugins
from simgan_aug.errors import DataError, PluginError, SimganAugError, is_out_of_memory
from simgan_aug.imagefile import MAX_BYTES
from simgan_aug.offers import SCHEME

_ADDRESS = re.compile(rf"({SCHEME}):.*", re.DOTALL)


def place(given: Path | str) -> Path | str:
    """A path, or the address of a plugin's source, which stays a string."""
    if isinstance(given, Path):
        return given
    found = _ADDRESS.fullmatch(given)
    if found is None or os.path.exists(given):
        return Path(given)
    is_pattern = glob.has_magic(given) and found[1] not in plugins.parts("source")
    return Path(given) if is_pattern else given


class Opened:
    """What is behind an address, opened.

    Args:
        address: SCHEME:REST.

    Raises:
        DataError: there is no such source, it cannot open what it is asked for, or offers no
            images; names source and plugin.
    """

    def __init__(self, address: str) -> None:
        self.address, (scheme, _, rest) = address, address.partition(":")
        try:
            part = plugins.registry().find("source", scheme)
        except PluginError as error:
            raise DataError(f"{address}: there is no such file, and {error}") from None
        self._who = f"source {scheme!r} of {plugins.owner('source', scheme)}"
        with self._named(address):
            self._source = part.make(rest)
            self.names = list(self._source.names)
            self._own = getattr(self._source, "fingerprint", None)
        if not self.names or not all(isinstance(name, str) for name in self.names):
            raise DataError(
                f"{address}: {self._who}: expected names of images, got {self.names[:3]!r}"
            )
        if not isinstance(self._own, str | None):
            raise DataError(f"{address}: {self._who}: expected a text for fingerprint")

    def content(self, index: int) -> bytes:
        """The file of an image; threads may ask at once.

        Raises:
            DataError: the source cannot give it; names image, source and plugin.
        """
        with self._named(self.title(index)):
            found: Any = self._source.content(index)
        if not isinstance(found, (bytes, bytearray, memoryview)) or len(found) > MAX_BYTES:
            got = f"{len(found):,}" if isinstance(found, (bytes, bytearray)) else type(found)
            raise DataError(
                f"{self.title(index)}: {self._who}: expected the bytes of an image file, "
                f"{MAX_BYTES:,} at most, got {got}"
            )
        return bytes(found)

    def title(self, index: int) -> str:
        """Address and name of an image."""
        return f"{self.address}/{self.names[index]}"

    def fingerprint(self, sizes: bool) -> str:
        """Of the source's own fingerprint; if it has none, of the names."""
        told = "\n".join(self.names) if self._own is None else self._own
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error):
                raise
            said = str(error) if isinstance(error, SimganAugError) else repr(error)
            raise DataError(f"{what}: {self._who}: {said}") from error
