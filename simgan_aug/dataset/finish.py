"""The end of a job: the report, then, last of all, the annotations."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simgan_aug import coco
from simgan_aug.dataset.journal import DONE, FAILED, Line, read_lines
from simgan_aug.dataset.plan import REPORT, UNLABELLED, Settings, place_of
from simgan_aug.dataset.splice import Rename, spliced
from simgan_aug.dataset.storage import IMAGES, LocalFolder, digest_of, read_json
from simgan_aug.errors import DataError
from simgan_aug.files import sha256_of

if TYPE_CHECKING:
    from simgan_aug.dataset.job import RefineJob


@dataclass(frozen=True)
class Summary:
    """What a job did."""

    refined: int
    """Images refined now."""
    present: int
    """Images that earlier runs had settled."""
    failed: dict[str, str] = field(default_factory=dict)
    """Images set aside, by name: why, and whether they were copied."""
    notes: dict[str, int] = field(default_factory=dict)
    """What is worth knowing of how images were read, and of how many of them."""
    guard: dict[str, Any] = field(default_factory=dict)
    """What the guard did, if there was one: "policy", "images" it looked at, "blended" and "kept"
    as they were, and "decisions" by name."""
    seconds: float = 0.0
    """Time taken."""
    stages: dict[str, float] = field(default_factory=dict)
    """Share of the work that "decode", "refine" and "encode" took, in [0, 1]."""

    @property
    def rate(self) -> float:
        """Images refined a second."""
        return self.refined / self.seconds if self.seconds else 0.0

    @property
    def bottleneck(self) -> str:
        """The stage that the others waited for; nothing if nothing was done."""
        return max(self.stages, key=self.stages.__getitem__, default="")

    @classmethod
    def of(cls, job: RefineJob, seconds: float) -> Summary:
        """Of a finished job."""
        report = read_json(job.target, REPORT)
        whole = sum(job.seconds.values()) or 1.0
        stages = {stage: spent / whole for stage, spent in job.seconds.items()}
        return cls(
            refined=job.refined,
            present=job.present,
            failed=report["failed"],
            notes=report["notes"],
            guard=report.get("guard", {}),
            seconds=seconds,
            stages=stages,
        )


def finish(job: RefineJob) -> None:
    """Write the report and, last of all, the annotations."""
    _make_passable(job)
    settled = _settled(job)
    copied = {line.name for line in settled.failed if line.output}

    def rename(name: str) -> str:
        return name if name in copied else job.settings.renamed(name)

    change: Rename | None = None
    hashes = job.info["annotations"]
    if job.settings.format != "keep":
        change = rename
        hashes = {name: _hash(spliced(path, rename)) for name, path in job.annotations.items()}
    report = {
        "images": len(job.planned),
        "refined": settled.done,
        "failed": {
            line.name: line.error + ("; copied as it is" if line.output else "; left out")
            for line in settled.failed
        },
        "copied": sorted(copied),
        "notes": dict(sorted(settled.notes.items())),
        "annotations": hashes,
        "source": {
            "annotations": [str(path.absolute()) for path in job.annotations.values()],
            "images": job.source.location,
        },
    }
    if job.settings.guard != "off":
        report["guard"] = _guarded(job.settings, settled)
    if read_json(job.target, REPORT) != report:
        content = (json.dumps(report, indent=2) + "\n").encode()
        job.target.write(REPORT, content, sync=True)
    for name, path in job.annotations.items():
        if digest_of(job.target, name) == hashes[name]:
            continue
        expected = job.info["annotations"][name]
        job.target.write(name, _checked(path, change, expected), sync=True)
    job.target.sync(job.annotations)


def _make_passable(job: RefineJob) -> None:
    """Make the folders that names lead through and back out of, as "a/../b.png" does."""
    if not isinstance(job.target, LocalFolder):
        return
    for image in job.planned:
        passed = image.file_name.split("/")
        for depth in (depth for depth, part in enumerate(passed) if part == ".."):
            folder = place_of("/".join(passed[:depth]))
            if folder.startswith(f"{IMAGES}/"):
                coco.inside(job.target.path, folder).mkdir(parents=True, exist_ok=True)


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _guarded(settings: Settings, settled: _Settled) -> dict[str, Any]:
    """What the guard did, image by image, where it did anything."""
    decisions = dict(sorted(settled.guarded.items()))
    kept = sum(decision["strength"] == 0 for decision in decisions.values())
    return {
        "policy": settings.guard,
        "images": settled.done - settled.notes[UNLABELLED],
        "blended": len(decisions) - kept,
        "kept": kept,
        "decisions": decisions,
    }


@dataclass
class _Settled:
    done: int
    failed: list[Line]
    notes: Counter[str]
    guarded: dict[str, dict[str, Any]]
    """Decisions of the guard by name."""


def _settled(job: RefineJob) -> _Settled:
    """What the journals say of each image, once, whoever said it how often."""
    state = job.journal.state
    noted, failed, notes = bytearray(len(state)), {}, Counter[str]()
    guarded: dict[str, dict[str, Any]] = {}
    for line in read_lines(job.target):
        if line.done is not None and state[line.done] == DONE and not noted[line.done]:
            noted[line.done] = 1
            notes.update(line.notes)
            if line.guard is not None:
                guarded[line.name] = line.guard
        number = line.failed
        if number is not None and state[number] == FAILED and line.policy == job.settings.policy:
            failed[number] = line
    ordered = [failed[number] for number in sorted(failed)]
    return _Settled(state.count(DONE), ordered, notes, guarded)


def _checked(path: Path, rename: Rename | None, expected: str) -> Iterator[bytes]:
    """An annotation file for the result; an error at its end if it is no longer what it was."""
    yield from spliced(path, rename)
    if sha256_of(path) != expected:
        raise DataError(f"{path} was changed while its images were refined; start anew")
