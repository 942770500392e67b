"""What became of each image: lines of JSON, appended, never changed.

Every process has a file of its own, so that no two ever write into one, and a line that a kill has
torn is the last of its file. Images go by their number in the plan, which the annotations fix.

    {"claim": 7, "alone": false}             somebody has begun with it
    {"done": 7, "name": ..., "output": ..., "source": sha256, "stamp": [size, time of the source],
     "sha256": ..., "size": ...}             and "guard": ... if a guard has taken something back
    {"failed": 7, "name": ..., "error": ..., "policy": ..., and the above if it was copied}
    {"left": 7}                              given back, untouched
    {"died": 7, "error": ...}                it alone was in the hands of a worker that died
    {"synced": true}                         all above is on the disk, files and folders
    {"mask": ..., "sha256": ..., "size": ...}  another file of the result, copied verbatim
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from simgan_aug.dataset.storage import JOURNAL, Folder, digest_of, stamp

BATCH = 16
"""Images between two flushes to the disk: what a power cut may cost each process."""

DEATHS = 2
"""Workers that an image may take with it before it is set aside."""

LONE_CLAIMS = 3
"""Times that a job may end, nobody knows how, with an image alone in a worker's hands."""

PIECE = 2**22
"""Bytes of a journal read at a time; no line is as long."""

TODO, DONE, FAILED = range(3)


class Line(msgspec.Struct, omit_defaults=True):
    """A line, whichever it is."""

    claim: int | None = None
    alone: bool = False
    done: int | None = None
    failed: int | None = None
    left: int | None = None
    died: int | None = None
    synced: bool = False
    mask: str | None = None
    name: str = ""
    output: str = ""
    source: str = ""
    stamp: list[int | None] = []
    sha256: str = ""
    size: int = 0
    error: str = ""
    policy: str = ""
    notes: list[str] = []
    guard: dict[str, Any] | None = None


class Writer:
    """Appends to the journal of this process; threads may share it.

    Args:
        folder: of the result.
    """

    def __init__(self, folder: Folder) -> None:
        unique = f"{platform.node()[:40]}-{os.getpid()}-{secrets.token_hex(6)}"
        self._lines = folder.appender(f"{JOURNAL}/{unique}.jsonl")
        self._folder = folder
        self._lock = threading.Lock()
        self._unsynced: list[str] = []

    def add(self, **line: Any) -> None:
        """Append a line; with an `output`, that file is of the next batch to be flushed."""
        with self._lock:
            self._lines.append(json.dumps(line).encode() + b"\n")
            if line.get("output"):
                self._unsynced.append(line["output"])
                if len(self._unsynced) >= BATCH:
                    self._sync()

    def sync(self) -> None:
        """Flush files and lines."""
        with self._lock:
            self._sync()

    def close(self) -> None:
        """Flush and end."""
        self.sync()
        self._lines.close()

    def _sync(self) -> None:
        if self._unsynced:
            self._folder.sync(self._unsynced)
            self._lines.append(b'{"synced": true}\n')
            self._unsynced = []
        self._lines.flush()


class Journal:
    """The lines of all processes, read as far as they go, and what follows from them.

    Args:
        folder: of the result.
        count: images planned.
        policy: what is done with an image that fails; one that failed under another is to do again.
    """

    def __init__(self, folder: Folder, count: int, policy: str) -> None:
        self._folder, self._policy, self._count = folder, policy, count
        self._offsets: dict[str, int] = {}
        self._tails: dict[str, list[Line]] = {}  # of a file: written since it was last flushed
        self._flushed = array("Q", bytes(8 * count))  # of each image, what hash the disk has
        self.state = bytearray(count)
        """Of each image: TODO, DONE or FAILED."""
        self.copies: dict[int, str] = {}
        """Images that have been copied as they are, and to where."""
        self.masks: set[str] = set()
        """Other files of the result that are there."""
        self.claims: Counter[int] = Counter()
        """Claims that nobody has closed."""
        self.lone_claims: Counter[int] = Counter()
        """Those of them under which an image was alone in a worker's hands."""
        self.deaths: dict[int, str] = {}
        """Images that have taken workers with them, and how."""
        self._died: Counter[int] = Counter()

    def refresh(self) -> None:
        """Read what has been appended since."""
        for name in self._folder.names(JOURNAL):
            for line in self._news(name):
                if all(0 <= number < self._count for number in _numbers(line)):
                    self._apply(line, self._tails.setdefault(name, []))

    def mend(self, writer: Writer) -> int:
        """Hold files that no flush covers, as a power cut leaves them, against their hashes.

        Returns:
            How many are to be done again.
        """
        lost = 0
        for line in (line for tail in self._tails.values() for line in tail):
            number, state = (line.done, DONE) if line.done is not None else (line.failed, FAILED)
            if number is None or self.state[number] != state:
                continue
            flushed = self._flushed[number] if state == DONE else 0
            if flushed == prefix_of(line.sha256):
                continue
            digest = digest_of(self._folder, line.output)
            if digest == line.sha256:
                writer.add(**msgspec.to_builtins(line))
            elif not flushed or prefix_of(digest) != flushed:
                self.state[number] = TODO
                lost += 1
        writer.sync()
        self._tails.clear()
        return lost

    def recall(self, source: Folder) -> int:
        """Take back what is settled while its file is not there, or of another size than any that
        was written; in an object store, what is not there. And what was made of another image than
        now lies in the source, if that is on a disk.

        Returns:
            How many images, and other files of the result, are to be done again.
        """
        present = None if self._folder.appends else frozenset(self._folder.names(""))

        def is_there(name: str, size: int) -> bool:
            return name in present if present is not None else self._folder.size(name) == size

        wanted, found, whole = bytearray(self._count), bytearray(self._count), set[str]()
        for line in read_lines(self._folder):
            if line.mask is not None and is_there(line.mask, line.size):
                whole.add(line.mask)
            number = line.done
            if line.failed is not None and line.policy == self._policy and line.output:
                number = line.failed
            if number is not None and 0 <= number < self._count and line.output:
                wanted[number] = 1
                is_whole = is_there(line.output, line.size)
                found[number] = found[number] or (is_whole and _is_made_of(line, source))
        lost = [n for n, state in enumerate(self.state) if state and wanted[n] and not found[n]]
        for number in lost:
            self.state[number] = TODO
        gone = self.masks - whole
        self.masks -= gone
        return len(lost) + len(gone)

    def outdated(self) -> list[str]:
        """Copies of images that are now to be done again."""
        return [output for number, output in self.copies.items() if self.state[number] == TODO]

    def suspects(self) -> set[int]:
        """Images to do that may kill their worker: begun, and never heard of again."""
        begun = {number for number, count in self.claims.items() if count > 0} | {*self._died}
        return {number for number in begun if self.state[number] == TODO}

    def killers(self) -> dict[int, str]:
        """Images to do that are not to be tried again, and why."""
        found = {n: error for n, error in self.deaths.items() if self._died[n] >= DEATHS}
        for number, count in self.lone_claims.items():
            if count >= LONE_CLAIMS:
                found.setdefault(number, f"{count} runs ended without a word over it")
        return {number: error for number, error in found.items() if self.state[number] == TODO}

    def _news(self, name: str) -> Iterator[Line]:
        offset = self._offsets.get(name, 0)
        if offset and not self._folder.appends:
            return
        for content in whole_lines(self._folder, name, offset):
            self._offsets[name] = self._offsets.get(name, 0) + len(content)
            yield from parsed(content)

    def _apply(self, line: Line, tail: list[Line]) -> None:
        if line.synced:
            for covered in tail:
                if covered.done is not None:
                    self._flushed[covered.done] = prefix_of(covered.sha256)
            tail.clear()
        if line.claim is not None:
            self.claims[line.claim] += 1
            self.lone_claims[line.claim] += line.alone
        if line.died is not None:
            self._died[line.died] += 1
            self.deaths[line.died] = line.error
        for number in (line.done, line.failed, line.left, line.died):
            if number is not None:
                self.claims.pop(number, None)
                self.lone_claims.pop(number, None)
        if line.mask is not None:
            self.masks.add(line.mask)
        self._settle(line)
        if line.output:
            tail.append(line)

    def _settle(self, line: Line) -> None:
        if line.done is not None:
            self.state[line.done] = DONE
        if line.failed is not None and self.state[line.failed] != DONE:
            if line.output:
                self.copies[line.failed] = line.output
            if line.policy == self._policy:
                self.state[line.failed] = FAILED


def _is_made_of(line: Line, source: Folder) -> bool:
    """Whether an image in the source is the one that was read; told by its time, else its hash."""
    if not line.stamp or line.stamp == stamp(source, line.name):
        return True
    return digest_of(source, line.name) == line.source


def _numbers(line: Line) -> list[int]:
    """The images that a line speaks of."""
    named = (line.claim, line.done, line.failed, line.left, line.died)
    return [number for number in named if number is not None]


def prefix_of(digest: str) -> int:
    """A hash as a number of 64 bits, never 0; 0 if there is none."""
    return int(digest[:16], 16) or 1 if digest else 0


def parsed(content: bytes) -> Iterator[Line]:
    """Lines of a journal; one that is damaged says nothing."""
    for raw in content.splitlines():
        try:
            yield _DECODER.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            try:  # a lone surrogate in a name
                yield msgspec.convert(json.loads(raw), Line)
            except (ValueError, RecursionError, msgspec.ValidationError):
                continue


def whole_lines(folder: Folder, name: str, offset: int = 0) -> Iterator[bytes]:
    """The lines of a file from an offset on, some at a time, without one that is torn."""
    while True:
        content = folder.tail(name, offset, PIECE)
        whole = content[: content.rfind(b"\n") + 1]
        if whole:
            yield whole
        if not whole or len(content) < PIECE or not folder.appends:
            return
        offset += len(whole)


def read_lines(folder: Folder) -> Iterator[Line]:
    """All lines of all journals of a result."""
    for name in folder.names(JOURNAL):
        for content in whole_lines(folder, name):
            yield from parsed(content)


_DECODER = msgspec.json.Decoder(Line)
