"""The end of a job: the report, then the annotations; and the whole held against its hashes."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simgan_aug.dataset.journal import DONE, FAILED, Line, prefix_of, read_lines
from simgan_aug.dataset.plan import INFO, REPORT
from simgan_aug.dataset.splice import Rename, spliced
from simgan_aug.dataset.storage import IMAGES, Folder, folder_of, sha256, sha256_of
from simgan_aug.errors import DataError

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
        report = _read_json(job.target, REPORT)
        whole = sum(job.seconds.values()) or 1.0
        stages = {stage: spent / whole for stage, spent in job.seconds.items()}
        return cls(job.refined, job.present, report["failed"], report["notes"], seconds, stages)


def finish(job: RefineJob) -> None:
    """Write the report and, last of all, the annotations."""
    settled = _settled(job)
    copied = {line.name for line in settled.failed if line.output}

    def rename(name: str) -> str:
        return name if name in copied else job.settings.renamed(name)

    change: Rename | None = None if job.settings.format == "keep" else rename
    hashes = {}
    for name, path in job.annotations.items():
        digest = hashlib.sha256()
        for part in spliced(path, change):
            digest.update(part)
        hashes[name] = digest.hexdigest()
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
    }
    if _read_json(job.target, REPORT) != report:
        content = (json.dumps(report, indent=2) + "\n").encode()
        job.target.write(REPORT, content, sync=True)
    for name, path in job.annotations.items():
        if job.target.size(name) is not None and sha256(job.target, name) == hashes[name]:
            continue
        expected = job.info["annotations"][name]
        job.target.write(name, _checked(path, change, expected), sync=True)
    job.target.sync(job.annotations)


@dataclass
class _Settled:
    done: int
    failed: list[Line]
    notes: Counter[str]


def _settled(job: RefineJob) -> _Settled:
    """What the journals say of each image, once, whoever said it how often."""
    state = job.journal.state
    noted, failed, notes = bytearray(len(state)), {}, Counter[str]()
    for line in read_lines(job.target):
        if line.done is not None and state[line.done] == DONE and not noted[line.done]:
            noted[line.done] = 1
            notes.update(line.notes)
        number = line.failed
        if number is not None and state[number] == FAILED and line.policy == job.settings.policy:
            failed[number] = line
    return _Settled(state.count(DONE), [failed[number] for number in sorted(failed)], notes)


def _checked(path: Path, rename: Rename | None, expected: str) -> Iterator[bytes]:
    """An annotation file for the result; an error at its end if it is no longer what it was."""
    yield from spliced(path, rename)
    if sha256_of(path) != expected:
        raise DataError(f"{path} was changed while its images were refined; start anew")


@dataclass(frozen=True)
class Verdict:
    """What holding a result against its journals has found."""

    files: int
    """That were looked at."""
    wrong: dict[str, str]
    """By name: "missing", "changed"."""
    left: int
    """Images that are neither refined nor set aside."""
    failed: dict[str, str]
    """Images that were set aside, and why."""
    unknown: list[str]
    """Files among the images that the job did not write."""

    @property
    def complete(self) -> bool:
        """Whether all that should be there is, as it was written."""
        return not self.wrong and not self.left


class Verification:
    """Every file of a result, read and held against its hash.

    Args:
        out: the result.

    Raises:
        DataError: the folder holds no refine run.
    """

    def __init__(self, out: Path | str) -> None:
        self._folder = folder_of(out)
        info = _read_json(self._folder, INFO)
        if not isinstance(info.get("images"), int) or not isinstance(info.get("annotations"), dict):
            raise DataError(f"{out} holds no refine run: there is no {INFO} to go by")
        self.count: int = info["images"]
        """Images of the job."""
        report = _read_json(self._folder, REPORT)
        self._annotations: dict[str, str] = report.get("annotations", {})
        self._copied = set(report.get("copied", ()))
        self._missing = {name: "missing" for name in {*info["annotations"]} - {*self._annotations}}

    def run(self) -> Iterator[str]:
        """Look at each file; yields its name. Then `verdict` says what was found."""
        wrong, failed, settled = dict(self._missing), dict[int, Line](), bytearray(self.count)
        looked: set[str] = set()
        for name, digests in self._expected(failed, settled):
            if name in looked:
                continue
            looked.add(name)
            try:
                if sha256(self._folder, name) not in digests:
                    wrong[name] = "changed"
            except OSError:
                wrong[name] = "missing"
            yield name
        left = self.count - sum(bool(settled[n]) or n in failed for n in range(self.count))
        unknown = [name for name in self._folder.names(IMAGES) if name not in looked]
        reasons = {line.name: line.error for n, line in sorted(failed.items()) if not settled[n]}
        self.verdict = Verdict(len(looked), wrong, left, reasons, unknown)

    def _expected(
        self, failed: dict[int, Line], settled: bytearray
    ) -> Iterator[tuple[str, Collection[str]]]:
        """Files and the hashes they may have; fills in which images are done, which failed."""
        several = self._several()
        copies: dict[str, set[str]] = {}
        for line in read_lines(self._folder):
            if line.done is not None and 0 <= line.done < self.count:
                settled[line.done] = 1
                yield line.output, several.get(line.output, (line.sha256,))
            elif line.failed is not None:
                failed[line.failed] = line
                if line.output and line.name in self._copied:
                    copies.setdefault(line.output, set()).add(line.sha256)
            elif line.mask is not None:
                yield line.mask, (line.sha256,)
        yield from copies.items()
        yield from ((name, (digest,)) for name, digest in self._annotations.items())

    def _several(self) -> dict[str, set[str]]:
        """Files that have been written more than once, to other bytes: as on a GPU they may be."""
        first, several = array("Q", bytes(8 * self.count)), dict[str, set[str]]()
        for again in (False, True):  # the second time with what the first has found
            for line in read_lines(self._folder):
                if line.done is None or not 0 <= line.done < self.count:
                    continue
                prefix = prefix_of(line.sha256)
                if again and line.output in several:
                    several[line.output].add(line.sha256)
                elif not again and first[line.done] not in (0, prefix):
                    several[line.output] = set()
                first[line.done] = first[line.done] or prefix
            if not several:
                break
        return several


def _read_json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        content = json.loads(b"".join(folder.parts(name)))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def verify(out: Path | str) -> Verdict:
    """Read every file of a result and hold it against its hash; see `Verification`."""
    verification = Verification(out)
    for _ in verification.run():
        pass
    return verification.verdict
