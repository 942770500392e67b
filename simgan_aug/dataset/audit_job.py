"""The audit of a data set: every label of every image, streamed, by the workers of the refine job.

AUDIT.jsonl   a line an image as it is measured, after one that says what is audited
AUDIT.json    what it all comes to, written last
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from simgan_aug.audit import MEASURES, ImageAudit, Limits, Totals
from simgan_aug.audit.gates import Gates
from simgan_aug.coco import CocoImage
from simgan_aug.dataset.audit_lines import appending, lines_of, write_line
from simgan_aug.dataset.auditing import AuditTask, refined_name, taken
from simgan_aug.dataset.plan import AUDIT, INFO, REPORT, Settings, planned
from simgan_aug.dataset.pool import Pool
from simgan_aug.dataset.ranks import Rank
from simgan_aug.dataset.storage import (
    IMAGES,
    Folder,
    LocalFolder,
    absolute,
    folder_of,
    is_address,
    stamp,
)
from simgan_aug.dataset.worker import Item, Outcome
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.files import sha256_of, write_atomically
from simgan_aug.imagefile import MAX_PIXELS
from simgan_aug.labels import Labels

VERSION = 1
"""Of the files."""


class AuditJob:
    """An audit that is planned: what can be checked before the first image has been.

    Args:
        annotations: COCO files; they may share images.
        images: folder of the originals, or its address in an object store; only read.
        refined: folder of the refined images under the same names, or with the endings of another
            format; or the result of a refine job.
        out: AUDIT.json; the lines go beside it. None: `audit.json` in the result of the refine
            job, if that is on this machine, else in the current folder. An audit that was
            interrupted goes on, with what has not changed since.
        limits: those of `simgan_aug.audit.Limits` that are not to be the default.
        gates: names of quality gates, which plugins register, to ask of each image.
        workers: processes; 0: this one; None: one a core.

    Raises:
        SimganAugError: an annotation file, a folder or a limit cannot be used.
    """

    def __init__(
        self,
        annotations: Sequence[Path],
        images: Path | str,
        refined: Path | str,
        out: Path | None = None,
        *,
        limits: Mapping[str, float] | None = None,
        gates: Sequence[str] = (),
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.limits = Limits.of(limits or {})
        if workers is not None and workers < 0:
            raise ConfigError(f"workers must be 0 or more, got {workers}")
        is_result = folder_of(refined).size(INFO) is not None
        is_here = is_result and not is_address(refined)
        self.out = out or Path(f"{refined}/{AUDIT}" if is_here else AUDIT)
        refined = f"{refined}/{IMAGES}" if is_result else refined
        self.source, self.refined = _folder(images, "--images"), _folder(refined, "--refined")
        if self.source.location == self.refined.location:
            raise ConfigError(
                f"--images and --refined are one folder, {self.source}, which holds only one side; "
                "say with --images where the originals lie"
            )
        self.lines = self.out.with_suffix(".jsonl")
        _check_out(self.out, annotations)
        self.planned = planned(annotations, Settings(allow_size_mismatch=True))
        names = [image.file_name for image in self.planned]
        _check_some(names, self.source)
        self._labels = Labels(annotations)
        self._workers = Rank().cores() if workers is None else workers
        self._taken = frozenset(taken(names))
        self._task = AuditTask(
            images=absolute(images),
            refined=absolute(refined),
            limits=asdict(self.limits),
            categories=[*self._labels.categories.items()],
            max_pixels=max_pixels,
            gates=[*gates],
            taken=[*self._taken],
        )
        self._annotations = {str(path.absolute()): sha256_of(path) for path in annotations}
        self._header = {
            "audit": VERSION,
            "annotations": self._annotations,
            "images": self._task.images,
            "refined": self._task.refined,
            "limits": asdict(self.limits),
            "measures": [*MEASURES, "growth"],
            **({"gates": Gates(gates).versions} if gates else {}),
        }
        self.totals = Totals(self.limits)
        self._settled = bytearray(len(self.planned))
        self._kept = 0  # bytes of lines that still hold
        self.present = 0
        """Images that an interrupted run has audited."""
        if not self.out.exists():
            self._resume()

    def run(self) -> Iterator[Outcome]:
        """Audit what is to do; yields what was found of each image, then writes `out`.

        Raises:
            OutputError: a file cannot be written, or workers die before they have begun.
        """
        with appending(self.lines, self._kept, self.out) as file:
            if not self._kept:
                write_line(file, self._header)
            for outcome in self._outcomes():
                self._settle(outcome, file)
                yield outcome
        write_atomically(self.out, (json.dumps(self.summary(), indent=2) + "\n").encode())

    def summary(self) -> dict[str, Any]:
        """What it all comes to, as `out` has it."""
        return {
            "version": VERSION,
            "annotations": list(self._annotations),
            "images": self._task.images,
            "refined": self._task.refined,
            "limits": asdict(self.limits),
            **self.totals.summary(),
        }

    def _outcomes(self) -> Iterator[Outcome]:
        if not self._workers:
            yield from self._task.worker().work(self._items())
            return
        logs = self.out.parent / f".{self.out.stem}-logs"
        yield from Pool(self._task, self._workers, _Deaths(), logs).work(self._items())
        if logs.is_dir() and not any(logs.iterdir()):
            logs.rmdir()

    def _items(self) -> Iterator[Item]:
        for number, image in enumerate(self.planned):
            if not self._settled[number]:
                labels = self._labels.of(image.file_name)
                yield Item(number, image.file_name, image.width, image.height, labels=labels)

    def _settle(self, outcome: Outcome, file: FileIO) -> None:
        image = self.planned[outcome.number]
        if outcome.status == "done":
            said = {"width": image.width, "height": image.height, **outcome.found}
            self.totals.add(image.file_name, msgspec.convert(outcome.found, ImageAudit))
        elif outcome.status == "killer":  # the machine may be to blame: the next run tries again
            self.totals.fail(
                image.file_name, f"{image.file_name}: its worker died: {outcome.error}"
            )
            return
        else:
            said = {"error": outcome.error}
            self.totals.fail(image.file_name, outcome.error)
        write_line(file, {"image": image.file_name, **said, "stamp": self._stamp(image)})

    def _stamp(self, image: CocoImage) -> list[int | None]:
        """Of both files of an image: another one, and it is to be audited again."""
        name = image.file_name
        its = refined_name(self.refined, name, self._taken)
        return [*stamp(self.source, name), *stamp(self.refined, its)]

    def _resume(self) -> None:
        """Take over the lines of an interrupted run of the same audit, as far as they hold."""
        numbers = {image.file_name: number for number, image in enumerate(self.planned)}
        for place, (line, end) in enumerate(lines_of(self.lines)):
            if not place:
                if line != json.loads(json.dumps(self._header)):
                    return
                self._kept = end
                continue
            number = numbers.get(str(line.get("image")))
            if number is None or self._settled[number] or not self._take(line, number):
                return
            self._kept = end
            self.present += 1

    def _take(self, line: dict[str, Any], number: int) -> bool:
        """Count what a line says of an image, if it still holds and is no garbage."""
        image = self.planned[number]
        if line.get("stamp") != self._stamp(image):
            return False
        if "error" in line:
            self.totals.fail(image.file_name, str(line["error"]))
        else:
            try:
                found = msgspec.convert(line, ImageAudit)
            except msgspec.ValidationError:
                return False
            self.totals.add(image.file_name, found)
        self._settled[number] = 1
        return True


class _Deaths:
    """Takes what a pool notes of workers that died; the outcome "killer" says it, too."""

    def add(self, **line: Any) -> None:
        """Nothing is kept."""


def _folder(place: Path | str, option: str) -> Folder:
    folder = folder_of(place)
    if isinstance(folder, LocalFolder) and not folder.path.is_dir():
        raise DataError(f"{place}: no such folder; say with {option} where the images lie")
    return folder


def _check_some(names: Sequence[str], folder: Folder) -> None:
    """Reject a folder without any of the images; of single ones the audit says that itself."""
    try:
        missing = folder.missing(names)
    except DataError:  # a name that no file can have
        return
    if names and len(missing) == len(names):
        raise DataError(
            f"none of {len(names)} images lies in {folder}, the first is {names[0]!r}; say with "
            "--images where they lie"
        )


def _check_out(out: Path, annotations: Sequence[Path]) -> None:
    if out.suffix != ".json":
        raise ConfigError(f"--out must name a .json file, got {out}")
    if out.is_dir():
        raise ConfigError(f"--out must name a file, {out} is a folder")
    if out.name in (INFO, REPORT):
        raise ConfigError(f"--out {out} has the name of a file of the refine job; choose another")
    named = [path.resolve() for path in annotations]
    if out.resolve() in named:
        raise ConfigError(f"--out {out} is an annotation file; choose another name")
    if len(set(named)) != len(named):
        raise ConfigError("an annotation file is named twice; its labels would count twice")
    lines = out.with_suffix(".jsonl")
    first = next(lines_of(lines), ({}, 0))[0]
    foreign = bool(first) and not first.keys() & {"audit", "image"}
    for path, is_ours in ((out, _is_audit(out)), (lines, not foreign)):
        if path.exists() and path.stat().st_size and not is_ours:
            raise ConfigError(f"{path} is there and no audit of ours; choose another --out")


def _is_audit(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= {"version", "limits", "counts"}
