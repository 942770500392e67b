"""The refine job: every image once, every file whole, annotations last; killed, it goes on.

OUT/images/<file_name>   refined, under the names (and, if so asked, in the formats) that they had
OUT/<annotations>.json   byte for byte (or with other endings spliced), when every image is settled
OUT/run.json             what the images are made from; the same job goes on, another is refused
OUT/report.json          what came of it
OUT/.simgan/             journals, lock, logs and unfinished files of the job
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from simgan_aug import checkpoint
from simgan_aug.backends import NAMES, is_torch
from simgan_aug.dataset import lock
from simgan_aug.dataset.engines import ENGINES, engine_of
from simgan_aug.dataset.finish import Summary, finish
from simgan_aug.dataset.journal import TODO, Journal, Writer
from simgan_aug.dataset.masks import copy_masks, find_masks
from simgan_aug.dataset.plan import INFO, Settings, by_name, differences, planned
from simgan_aug.dataset.process import Task
from simgan_aug.dataset.storage import (
    IMAGES,
    SCRATCH,
    STATE,
    LocalFolder,
    absolute,
    folder_of,
    is_address,
)
from simgan_aug.dataset.worker import Item, Outcome, set_aside
from simgan_aug.draws import DRAWN
from simgan_aug.errors import ConfigError, DataError, ImageError, OutputError
from simgan_aug.files import sha256_of
from simgan_aug.folders import check_apart, check_writable
from simgan_aug.geometry import lies_somewhere
from simgan_aug.inference import ImageRefiner
from simgan_aug.labels import Labels, decoded

REMOTE = 8
"""Threads of a worker that read, and as many that write, where an object store has to answer."""


class RefineJob:
    """A planned job: everything that can be checked before the first image is refined has been.

    Args:
        annotations: COCO files; they may share images. Their base names must differ.
        images: folder that `file_name`s are relative to, or its address in an object store
            ("s3://..."); it is only read.
        refiner: checkpoint, or the name under which a plugin ships one.
        out: folder of the result, or its address, apart from `images`; new, empty, or of an
            interrupted run of the same job.
        workers: processes that refine; 0: this one; None: one a GPU, else one a core.
        device: "auto" or what `torch.device` takes; the CPU for a backend other than torch.
        engine: "local": this machine; "torchrun": this process is one of those that torchrun has
            started on one or more machines, which share the work; "ray": a Ray cluster, or one that
            is started here.
        backend: see `ImageRefiner.load`.
        panoptic: folder of the PNG files of panoptic annotations; None: beside each annotation
            file, of its name without .json.
        settings: of `Settings`.

    Raises:
        SimganAugError: an annotation file, an image, the refiner or the folder cannot be used.
    """

    def __init__(
        self,
        annotations: Sequence[Path],
        images: Path | str,
        refiner: Path,
        out: Path | str,
        *,
        workers: int | None = None,
        device: str = "auto",
        engine: str = "local",
        backend: str | os.PathLike[str] = "torch",
        panoptic: Path | None = None,
        **settings: Any,
    ) -> None:
        self.settings = Settings(**settings)
        if engine not in ENGINES:
            raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
        if workers is not None and workers < (engine == "ray"):
            raise ConfigError(f"workers must be {int(engine == 'ray')} or more, got {workers}")
        _check_places(annotations, images, out)
        self.source, self.target = folder_of(images), folder_of(out)
        self.annotations = by_name(annotations)
        self.planned = planned([*self.annotations.values()], self.settings)
        self._check_present()
        self.labels = Labels(self.annotations.values()) if self.settings.needs_labels else None
        if self.settings.only_labels and not self._is_labelled():
            raise ConfigError(
                f"only_labels: nothing in {', '.join(map(str, annotations))} has a mask or a box "
                "(segments of panoptic files are not read); name the file with the instances, too"
            )
        self.masks = find_masks(self.annotations, panoptic)
        for folder in {folder.path for folder, _ in self.masks.values()}:
            _check_apart(folder, out)
        if device == "auto" and not is_torch(backend):
            device = "cpu"
        self.engine = engine_of(engine, device, workers)
        refiner = Path(checkpoint.locate(refiner))
        backend = backend if backend in NAMES else Path(backend).absolute()
        self.info = self._described(refiner, backend)
        """All that the result depends on, as it stands in run.json."""
        self._check_out()
        self._task = Task(
            refiner=str(refiner.absolute()),
            sha256=self.info["refiner"]["sha256"],
            images=absolute(images),
            out=absolute(out),
            device=self.engine.device,
            threads=max(self.engine.threads, REMOTE if _is_remote(images, out) else 1),
            settings=dataclasses.asdict(self.settings),
            backend=str(backend),
        )
        self.journal = Journal(self.target, len(self.planned), self.settings.policy)
        self.journal.refresh()
        self.recalled = self.journal.recall(self.source)
        """Files that earlier runs have written and that are gone, or cut short, or whose source is
        another image since; made anew."""
        self.present = len(self.planned) - len(self.remaining())
        """Images that earlier runs have settled."""
        self.refined = 0
        """Images that this run has refined."""
        self.seconds: dict[str, float] = {}
        """What this run has spent to "decode", "refine" and "encode"."""

    def remaining(self) -> list[str]:
        """Names of the images that are neither refined nor set aside."""
        self.journal.refresh()
        return [
            image.file_name
            for image, state in zip(self.planned, self.journal.state, strict=True)
            if state == TODO
        ]

    def labelled(self, items: Iterator[Item | None]) -> Iterator[Item | None]:
        """The same with the annotations of each, if they have a say."""
        for item in items:
            if item is not None and self.labels is not None:
                item = item._replace(labels=self.labels.of(item.name))
            yield item

    def run(self) -> Iterator[Outcome]:
        """Refine what is to do; yields what became of each image when its file is in place.

        Stopping the iteration leaves a folder that a later run completes.

        Raises:
            ImageError: an image fails, or kills its worker, and `on_error` is "stop".
            OutputError: a file cannot be written, or another job is at work.
        """
        with self._locked() as held:
            self._begin()
            self.journal.refresh()
            writer = Writer(self.target)
            try:
                self.journal.mend(writer)
                if self.remaining():  # of a run that had set images aside, which are to do again
                    for name in [*self.annotations, *self.journal.outdated()]:
                        self.target.remove(name)
                if self.settings.on_error != "stop":  # then they may have been mended since
                    for number, error in self.journal.killers().items():
                        yield self._killer(number, error, writer)
                    self.journal.refresh()
                for outcome in self.engine.work(self, self._task, writer, held):
                    yield self._counted(outcome, writer)
                self.journal.refresh()
                copy_masks(self.masks, self.target, writer, self.journal.masks)
            finally:
                writer.close()
            if left := len(self.remaining()):
                raise OutputError(
                    f"{left} images are still in the hands of other processes, or of some that "
                    "have died; run the same command again"
                )
            finish(self)

    def _begin(self) -> None:
        """Write what the job is, if no other has done so since the last look."""
        with contextlib.ExitStack() as alone:
            if isinstance(self.target, LocalFolder):
                alone.enter_context(lock.held(self.target.path / STATE / "begin", shared=False))
            if not self._check_out():
                self.target.write(INFO, _json(self.info), sync=True)

    def summary(self, seconds: float = 0.0) -> Summary:
        """What this run and those before it did; of a finished job."""
        return Summary.of(self, seconds)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[tuple[int, ...]]:
        """Keep other jobs away, where there are locks; yields descriptors for workers to hold."""
        if not isinstance(self.target, LocalFolder):
            yield ()
            return
        alone = self.engine.rank.world == 1
        with lock.held(self.target.path / STATE / "lock", shared=not alone) as held:
            for name in self.target.names(SCRATCH) if alone else ():  # what was killed has left it
                self.target.remove(name)
            yield (held,)

    def _counted(self, outcome: Outcome, writer: Writer) -> Outcome:
        for stage, seconds in outcome.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if outcome.status == "stopped" and outcome.output_failed:
            raise OutputError(outcome.error)
        if outcome.status == "stopped":
            raise ImageError(f"{outcome.error}; set it aside with --on-error copy or skip")
        if outcome.status == "killer":
            outcome = self._killer(outcome.number, outcome.error, writer)
        self.refined += outcome.status == "done"
        return outcome

    def _killer(self, number: int, error: str, writer: Writer) -> Outcome:
        """An image that kills its worker: the end of the job, or set aside."""
        image = self.planned[number]
        error = f"{self.source}/{image.file_name}: its worker died, more than once: {error}"
        if self.settings.on_error == "stop":
            raise ImageError(f"{error}; set it aside with --on-error copy or skip")
        item = Item(number, image.file_name)
        error = set_aside(item, error, self.source, self.target, self.settings, writer)
        return Outcome(number, image.file_name, "failed", error)

    def _described(self, refiner: Path, backend: str | os.PathLike[str]) -> dict[str, Any]:
        place = "cpu" if is_torch(backend) else self.engine.device
        loaded = ImageRefiner.load(refiner, place, backend=backend)  # to know now that it can be
        other = {} if backend == "torch" else {"backend": loaded.backend.identity}
        return other | {
            "annotations": {name: sha256_of(path) for name, path in self.annotations.items()},
            "refiner": {"sha256": sha256_of(refiner), "provenance": loaded.provenance},
            "settings": self.settings.result,
            "draws": DRAWN,
            "images": len(self.planned),
            "device": self.engine.device.partition(":")[0],
            "simgan_aug": metadata.version("simgan-aug"),
            "torch": torch.__version__,
        }

    def _check_present(self) -> None:
        if isinstance(self.source, LocalFolder) and not self.source.path.is_dir():
            raise DataError(
                f"{self.source}: no such folder; say with --images where the images lie"
            )
        missing = self.source.missing(image.file_name for image in self.planned)
        if missing and self.settings.on_error == "stop":
            raise DataError(
                f"{len(missing)} of {len(self.planned)} images are missing in {self.source}, the "
                f"first is {missing[0]!r}; say with --images where they lie, or leave them out: "
                "--on-error skip"
            )

    def _is_labelled(self) -> bool:
        """Whether any annotation says where it lies, or makes no sense, which a worker will say."""
        assert self.labels is not None
        for image in self.planned:
            try:
                if any(map(lies_somewhere, decoded(self.labels.of(image.file_name)))):
                    return True
            except DataError:
                return True
        return False

    def _check_out(self) -> bool:
        """Reject a result of something else; returns whether it has been begun."""
        try:
            before = json.loads(b"".join(self.target.parts(INFO)))
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict):
            if self.target.holds_but(STATE):
                raise ConfigError(
                    f"{self.target} is not empty and holds no refine run; choose another --out"
                )
            return False
        if {"config", "inputs"} <= before.keys():
            raise ConfigError(f"{self.target} holds a training run; choose another --out")
        if changed := differences(before, self.info):
            raise ConfigError(
                f"{self.target} was begun with another refiner, other annotations or settings "
                f"({', '.join(changed)}); choose another --out"
            )
        return True


def refine(
    annotations: Path | str | Sequence[Path | str],
    images: Path | str,
    refiner: Path | str,
    out: Path | str,
    **options: Any,
) -> Summary:
    """Refine a COCO data set; see `RefineJob` for arguments and errors."""
    files = [annotations] if isinstance(annotations, (str, Path)) else annotations
    job = RefineJob([Path(file) for file in files], images, Path(refiner), out, **options)
    began = time.monotonic()
    for _ in job.run():
        pass
    return job.summary(time.monotonic() - began)


def _check_places(annotations: Sequence[Path], images: Path | str, out: Path | str) -> None:
    """Reject a result that would lie in its input, or where nothing can be written."""
    for path in () if _is_remote(out) else annotations:
        if path.resolve().is_relative_to(Path(out).resolve()):
            raise ConfigError(
                f"{path} lies in {out}; the input is never changed: choose an --out apart from it"
            )
    _check_apart(images, out)
    if not is_address(out):
        check_writable(Path(out))
        for name in (STATE, IMAGES):
            if not (path := Path(out) / name).resolve().is_relative_to(Path(out).resolve()):
                raise ConfigError(f"{path} is a link that leads out of {out}; remove it")


def _check_apart(source: Path | str, out: Path | str) -> None:
    if not _is_remote(source, out):
        check_apart(Path(source), Path(out))
        return
    here, there = (f"{folder_of(place).location}/" for place in (source, out))
    if here.startswith(there) or there.startswith(here):
        raise ConfigError(
            f"{out} and {source} overlap; the input is never changed: choose an --out apart from it"
        )


def _is_remote(*places: Path | str) -> bool:
    return any(is_address(place) for place in places)


def _json(info: dict[str, Any]) -> bytes:
    return (json.dumps(info, indent=2) + "\n").encode()
