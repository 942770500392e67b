"""A worker that audits: it holds refined images against their originals."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import numpy as np

from simgan_aug.audit import Limits, audit
from simgan_aug.audit.gates import Gates
from simgan_aug.coco import Id
from simgan_aug.dataset.storage import Folder, folder_of
from simgan_aug.dataset.worker import Item, Outcome
from simgan_aug.errors import DataError, PluginError, is_out_of_memory
from simgan_aug.imagefile import TARGETS, decode_image, suffixed
from simgan_aug.labels import decoded

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class AuditTask:
    """What a process must know to audit."""

    images: str
    refined: str
    limits: dict[str, float]
    categories: list[tuple[Id, str]]
    max_pixels: int
    gates: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    """See `taken`."""
    device: str = "cpu"
    threads: int = 1
    kind: str = "audit"

    def worker(self) -> AuditWorker:
        """The worker, in this process."""
        return AuditWorker(self)

    def line(self) -> bytes:
        """As the first line that the process reads."""
        return json.dumps(asdict(self)).encode() + b"\n"


class AuditWorker:
    """Audits the images that it is handed, one after the other."""

    def __init__(self, task: AuditTask) -> None:
        self._images, self._refined = folder_of(task.images), folder_of(task.refined)
        self._limits, self._max_pixels = Limits.of(task.limits), task.max_pixels
        self._categories = {id: name for id, name in task.categories}
        self._taken, self._gates = frozenset(task.taken), Gates(task.gates)

    def close(self) -> None:
        """There is nothing to end."""

    def work(self, items: Iterable[Item | None]) -> Iterator[Outcome]:
        """Audit images; yields what was found of each."""
        for item in items:
            if item is not None:
                yield self._audited(item)

    def _audited(self, item: Item) -> Outcome:
        try:
            name = refined_name(self._refined, item.name, self._taken)
            old, new = self._pixels(self._images, item.name), self._pixels(self._refined, name)
            labels = decoded(item.labels)
            found = audit(old, new, labels, self._categories, self._limits)
            found = msgspec.structs.replace(found, gates=self._gates(old, new, labels))
        except (DataError, PluginError) as error:
            return Outcome(item.number, item.name, "failed", f"{item.name}: {error}")
        except Exception as error:  # OpenCV has its own for memory
            if not is_out_of_memory(error):
                raise
            return Outcome(item.number, item.name, "killer", "there is not enough memory for it")
        return Outcome(item.number, item.name, "done", found=msgspec.to_builtins(found))

    def _pixels(self, folder: Folder, name: str) -> Array:
        return decode_image(folder.read(name), f"{folder}/{name}", self._max_pixels).pixels


def taken(names: Collection[str]) -> list[str]:
    """Those names that an image of another format would have if they were not of images too."""
    known = frozenset(names)
    return sorted({other for name in names for other in _others(name) if other in known})


def refined_name(folder: Folder, name: str, taken: Collection[str] = ()) -> str:
    """Under what name a refined image lies: its own, or that with another format's ending."""
    names = (name, *(other for other in _others(name) if other not in taken))
    try:
        return next((each for each in names if folder.size(each) is not None), name)
    except ValueError:  # a NUL or a lone surrogate: there is no such file
        return name


def _others(name: str) -> list[str]:
    """What a file would be called in other formats."""
    return [other for target in TARGETS if (other := suffixed(name, target)) != name]
