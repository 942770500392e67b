"""A worker: it decodes the next image and encodes the last while it refines one."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from simgan_aug.audit import Guard, Guarded, Limits
from simgan_aug.coco import CocoImage, check_size
from simgan_aug.dataset.journal import Writer
from simgan_aug.dataset.plan import UNLABELLED, Settings, place_of
from simgan_aug.dataset.storage import Folder, stamp
from simgan_aug.errors import (
    DataError,
    ImageError,
    OutputError,
    PluginError,
    is_out_of_memory,
)
from simgan_aug.geometry import labelled_area
from simgan_aug.imagefile import ImageFile, decode_image, encode_image
from simgan_aug.inference import ImageRefiner
from simgan_aug.labels import decoded

Array = np.ndarray[Any, Any]

ROOM = 2**25
"""Pixels of the images that a worker holds at once; a larger image is alone."""


class Item(NamedTuple):
    """An image to refine."""

    number: int
    """Its place in the plan."""
    name: str
    width: float | None = None
    height: float | None = None
    alone: bool = False
    """Whether it may kill its worker, which then holds no other."""
    labels: str = "[]"
    """Its annotations, as `simgan_aug.labels` gives them, where anything asks for them."""

    @property
    def pixels(self) -> int:
        """As the annotations say."""
        size = (self.width or 0) * (self.height or 0)
        return round(size) if math.isfinite(size) else 0


@dataclass(frozen=True)
class Outcome:
    """What became of an image."""

    number: int
    name: str
    status: str
    """"done"; "failed": copied or left out; "stopped": the job cannot go on; "killer": its worker
    died of it; "there": another has done it."""
    error: str = ""
    output_failed: bool = False
    """Whether the result could not be written, and the image is not to blame."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent to "decode", "refine" and "encode" it."""
    found: dict[str, Any] = field(default_factory=dict)
    """Of an audit."""


@dataclass
class _Work:
    """An image on its way."""

    item: Item
    source: str = ""
    """Hash of its file."""
    stamp: list[int | None] = field(default_factory=list)
    """Of its file, if that is on a disk."""
    content: bytes = b""
    """Its file, as long as it may be that nothing of it is to change; else nothing."""
    image: ImageFile | None = None
    """None once it has an outcome."""
    outcome: Outcome | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    guarded: Guarded | None = None


class Worker:
    """Refines the images it is handed and writes them where they belong.

    Args:
        refiner: what refines them.
        source: folder of the images; only read.
        target: folder of the result.
        settings: how.
        threads: that decode, and as many that encode; more than one where a GPU refines.
    """

    def __init__(
        self,
        refiner: ImageRefiner,
        source: Folder,
        target: Folder,
        settings: Settings,
        threads: int = 1,
    ) -> None:
        self._refiner, self._source, self._target = refiner, source, target
        self._settings, self._threads = settings, threads
        self._journal = Writer(target)
        self._guard: Guard | None = None
        if settings.guard != "off":
            self._guard = Guard(settings.guard, Limits.of(settings.limits), settings.gates)

    def close(self) -> None:
        """End the journal."""
        self._journal.close()

    def claim(self, items: Iterable[Item]) -> None:
        """Say of images, before they are worked on, that they are begun; so that it lasts."""
        for item in items:
            self._journal.add(claim=item.number, alone=item.alone)
        self._journal.sync()

    def work(self, items: Iterable[Item | None], claimed: bool = False) -> Iterator[Outcome]:
        """Refine images; yields what became of each when its file and its line are written.

        Args:
            items: the images; None: no more for now, go on with those at hand. What is at hand when
                the iterator is closed is given back or finished.
            claimed: whether the images have been claimed; else each is when it is begun.
        """
        self._claimed = claimed
        loaded: deque[tuple[Item, Future[_Work]]] = deque()
        stored: deque[tuple[Item, Future[Outcome]]] = deque()
        decode, encode = (ThreadPoolExecutor(self._threads) for _ in range(2))

        def step(finish: bool) -> Iterator[Outcome]:
            """Refine an image, or wait for one to be written; and hand out what is written."""
            if loaded and (finish or len(loaded) > self._threads):
                item, work = loaded.popleft()
                stored.append((item, encode.submit(self._encode, self._refine(work.result()))))
            elif stored and finish:
                yield stored.popleft()[1].result()
            while stored and (stored[0][1].done() or len(stored) > self._threads):
                yield stored.popleft()[1].result()

        try:
            for item in items:
                while item is not None and not _fits(item, loaded, stored):
                    yield from step(finish=True)
                if item is not None:
                    loaded.append((item, decode.submit(self._decode, item)))
                yield from step(finish=item is None)
            while loaded or stored:
                yield from step(finish=True)
        finally:
            for executor in (decode, encode):
                executor.shutdown(cancel_futures=executor is decode)
            for item, begun in loaded:
                if not begun.cancelled():
                    self._journal.add(left=item.number)
            self._journal.sync()

    def _decode(self, item: Item) -> _Work:
        return self._timed("decode", self._load, _Work(item))

    def _refine(self, work: _Work) -> _Work:
        return self._timed("refine", self._change, work)

    def _encode(self, work: _Work) -> Outcome:
        work = self._timed("encode", self._store, work)
        assert work.outcome is not None
        return replace(work.outcome, seconds=work.seconds)

    def _timed(self, stage: str, act: Callable[[_Work], None], work: _Work) -> _Work:
        """Take an image through a stage, or to its early end."""
        began = time.perf_counter()
        try:
            if work.outcome is None:
                act(work)
        except (DataError, PluginError) as error:
            self._fail(work, str(error))
        except OutputError as error:
            self._stop(work, str(error), output_failed=True)
        except Exception as error:  # OpenCV, for one, has its own for memory
            if not is_out_of_memory(error):
                raise
            self._fail(work, f"{work.item.name}: there is not enough memory to refine it")
        work.seconds[stage] = time.perf_counter() - began
        return work

    def _load(self, work: _Work) -> None:
        item = work.item
        if not self._claimed:
            self._journal.add(claim=item.number, alone=item.alone)
        work.stamp = stamp(self._source, item.name) if self._source.appends else []
        content = self._source.read(item.name)
        work.source = hashlib.sha256(content).hexdigest()
        work.content = content if self._settings.only_labels else b""
        path = f"{self._source}/{item.name}"
        work.image = decode_image(content, path, self._settings.max_pixels)
        if not self._settings.allow_size_mismatch:
            stated = CocoImage(0, item.name, item.width, item.height)
            try:
                check_size(stated, *work.image.pixels.shape[:2])
            except ImageError as error:
                raise ImageError(f"{error}{self._settings.as_it_is}") from None

    def _change(self, work: _Work) -> None:
        assert work.image is not None
        seed = self._settings.seed_of(work.item.name)
        with self._named(work.item):
            old, labels = work.image.pixels, decoded(work.item.labels)
            where = None
            if self._settings.only_labels:
                where = labelled_area(labels, old.shape[0], old.shape[1])
                if not where.any():
                    work.image = replace(work.image, notes=(*work.image.notes, UNLABELLED))
                    return
                work.content = b""
            pixels = self._refiner(old, seed=seed, strength=self._settings.strength)
            if where is not None:
                pixels = np.where(where if old.ndim == 2 else where[..., None], pixels, old)
            if self._guard is not None:
                pixels, work.guarded = self._guard(old, pixels, labels, self._saved(work))
        work.image = replace(work.image, pixels=pixels)

    def _saved(self, work: _Work) -> Callable[[Array], Array] | None:
        """What the file to be written makes of an image; None if it keeps every pixel."""
        assert work.image is not None
        image = work.image
        if (self._format or image.format) not in ("JPEG", "WEBP"):
            return None

        def saved(pixels: Array) -> Array:
            content = encode_image(
                replace(image, pixels=pixels), self._settings.quality, self._format
            )
            return decode_image(content, work.item.name, self._settings.max_pixels).pixels

        return saved

    @property
    def _format(self) -> str | None:
        """That images are written in; None: their own."""
        return None if self._settings.format == "keep" else self._settings.format.upper()

    def _store(self, work: _Work) -> None:
        assert work.image is not None
        if work.content and self._format is None:
            content = work.content  # not encoded anew, by which a JPEG would lose
        else:
            with self._named(work.item):
                content = encode_image(work.image, self._settings.quality, self._format)
        written: dict[str, Any] = _write(
            self._target, self._settings.output(work.item.name), content
        )
        if work.guarded is not None and not work.guarded.is_untouched:
            written["guard"] = msgspec.to_builtins(work.guarded)
        self._journal.add(
            done=work.item.number,
            name=work.item.name,
            source=work.source,
            stamp=work.stamp,
            notes=list(work.image.notes),
            **written,
        )
        self._end(work, "done")

    @contextlib.contextmanager
    def _named(self, item: Item) -> Iterator[None]:
        """Errors of what knows only pixels, with the name of their file."""
        try:
            yield
        except (DataError, PluginError) as error:  # also an annotation that cannot be made out
            raise type(error)(f"{self._source}/{item.name}: {error}") from None

    def _fail(self, work: _Work, error: str) -> None:
        """An image that cannot be refined: as the settings say."""
        if self._settings.on_error == "stop":
            self._stop(work, error)
            return
        try:
            error = set_aside(
                work.item, error, self._source, self._target, self._settings, self._journal
            )
        except OutputError as failure:
            self._stop(work, str(failure), output_failed=True)
            return
        self._end(work, "failed", error)

    def _stop(self, work: _Work, error: str, output_failed: bool = False) -> None:
        """The job cannot go on; the next run tries this image again."""
        try:
            self._journal.add(left=work.item.number)
        except OutputError as failure:
            error, output_failed = str(failure), True
        self._end(work, "stopped", error, output_failed)

    def _end(self, work: _Work, status: str, error: str = "", output_failed: bool = False) -> None:
        work.image, work.content = None, b""
        work.outcome = Outcome(work.item.number, work.item.name, status, error, output_failed)


def set_aside(
    item: Item, error: str, source: Folder, target: Folder, settings: Settings, journal: Writer
) -> str:
    """Copy an image that cannot be refined, or leave it out; returns its error, complete.

    Raises:
        OutputError: the copy cannot be written.
    """
    written: dict[str, str | int] = {}
    if settings.on_error == "copy":
        try:
            written = _write(target, place_of(item.name), source.read(item.name))
        except DataError as unreadable:
            error = error if str(unreadable) == error else f"{error}; nor copied: {unreadable}"
    journal.add(failed=item.number, name=item.name, error=error, policy=settings.policy, **written)
    return error


def _write(target: Folder, output: str, content: bytes) -> dict[str, str | int]:
    """Write a file; returns what its line in the journal says of it."""
    target.write(output, content)
    return {"output": output, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _fits(item: Item, *queues: Iterable[tuple[Item, object]]) -> bool:
    """Whether there is room for an image beside those at hand."""
    held = [other for waiting in queues for other, _ in waiting]
    if item.alone or any(other.alone for other in held):
        return not held
    return not held or sum(other.pixels for other in held) + item.pixels <= ROOM
