"""The refine job: every image once, every file whole, annotations last; killed, it goes on.

OUT/images/<file_name>   refined, under the names (and, if so asked, in the formats) that they had
OUT/<annotations>.json   byte for byte (or with other endings spliced), when every image is settled
OUT/run.json             what the images are made from; the same job goes on, another is refused
OUT/report.json          what came of it
OUT/.simgan/             journals, lock, logs and unfinished files of the job
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from simgan_aug.dataset import lock, ranks
from simgan_aug.dataset.finish import Summary, finish
from simgan_aug.dataset.journal import TODO, Journal, Writer
from simgan_aug.dataset.plan import INFO, Settings, by_name, differences, panoptic_masks, planned
from simgan_aug.dataset.pool import Pool
from simgan_aug.dataset.process import Task
from simgan_aug.dataset.storage import LOGS, SCRATCH, STATE, LocalFolder, sha256
from simgan_aug.dataset.worker import Item, Outcome, set_aside
from simgan_aug.errors import ConfigError, DataError, ImageError, OutputError
from simgan_aug.folders import check_apart, check_writable
from simgan_aug.inference import ImageRefiner

ENGINES = ("local", "torchrun", "ray")


class RefineJob:
    """A planned job: everything that can be checked before the first image is refined has been.

    Args:
        annotations: COCO files; they may share images. Their base names must differ.
        images: folder that `file_name`s are relative to; it is only read.
        refiner: checkpoint.
        out: folder of the result, apart from `images`; new, empty, or of an interrupted run of
            the same job.
        workers: processes that refine; 0: this one; None: one on a GPU, else one a core.
        device: "auto" or what `torch.device` takes.
        engine: "local": this machine; "torchrun": this process is one of those that torchrun has
            started on one or more machines, which share the work.
        panoptic: folder of the PNG files of panoptic annotations; None: beside each annotation
            file, of its name without .json.
        settings: of `Settings`.

    Raises:
        SimganAugError: an annotation file, an image, the refiner or the folder cannot be used.
    """

    def __init__(
        self,
        annotations: Sequence[Path],
        images: Path,
        refiner: Path,
        out: Path,
        *,
        workers: int | None = None,
        device: str = "auto",
        engine: str = "local",
        panoptic: Path | None = None,
        **settings: Any,
    ) -> None:
        self.settings = Settings(**settings)
        if engine not in ENGINES:
            raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
        self.rank = ranks.Rank.of_torchrun() if engine == "torchrun" else ranks.Rank()
        check_apart(images, out)
        check_writable(out)
        self.source, self.target = LocalFolder(images), LocalFolder(out)
        self.annotations = by_name(annotations)
        self.planned = planned(annotations, self.settings)
        self._check_present()
        self.masks = self._masks(panoptic)
        self.device = self.rank.device(device)
        loaded = ImageRefiner.load(refiner, "cpu")  # to know now that it can be
        self.info: dict[str, Any] = {
            "annotations": {
                n: sha256(LocalFolder(p.parent), n) for n, p in self.annotations.items()
            },
            "refiner": {
                "sha256": sha256(LocalFolder(refiner.parent), refiner.name),
                "provenance": loaded.provenance,
            },
            "settings": self.settings.result,
            "images": len(self.planned),
            "device": self.device.type,
            "simgan_aug": metadata.version("simgan-aug"),
            "torch": torch.__version__,
        }
        self._check_out()
        on_gpu = self.device.type != "cpu"
        cores = self.rank.cores()
        self.workers = (1 if on_gpu else cores) if workers is None else workers
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, got {workers}")
        self._task = Task(
            refiner=str(refiner.absolute()),
            images=str(images.absolute()),
            out=str(out.absolute()),
            device=str(self.device),
            threads=max(1, cores // 2) if on_gpu else 1,
            settings=dataclasses.asdict(self.settings),
        )
        self.journal = Journal(self.target, len(self.planned), self.settings.policy)
        self.journal.refresh()
        self.present = len(self.planned) - len(self.remaining())
        self.seconds: dict[str, float] = {}
        """What this run has spent to "decode", "refine" and "encode"."""
        self.refined = 0
        """Images that this run has refined."""

    def remaining(self) -> list[str]:
        """Names of the images that are neither refined nor set aside."""
        self.journal.refresh()
        return [
            image.file_name
            for image, state in zip(self.planned, self.journal.state, strict=True)
            if state == TODO
        ]

    def run(self) -> Iterator[Outcome]:
        """Refine what is to do; yields what became of each image when its file is in place.

        Stopping the iteration leaves a folder that a later run completes.

        Raises:
            ImageError: an image fails, or kills its worker, and `on_error` is "stop".
            OutputError: a file cannot be written, or another job is at work.
        """
        with lock.held(self.target.path / STATE / "lock", self.rank.world > 1) as held:
            if self.rank.world == 1:
                self._sweep()
            self.target.write(INFO, _json(self.info), sync=True)
            self.journal.refresh()
            writer = Writer(self.target)
            try:
                self.journal.mend(writer)
                suspects = self.journal.suspects()
                if self.remaining():  # of a run that had set images aside, which are to do again
                    for name in self.annotations:
                        self.target.remove(name)
                yield from self._set_aside_killers(writer)
                for outcome in self._work(writer, suspects, held):
                    yield from self._counted(outcome, writer)
                self._copy_masks(writer)
            finally:
                writer.close()
            self._finish()

    def summary(self, seconds: float = 0.0) -> Summary:
        """What this run and those before it did; of a finished job."""
        return Summary.of(self, seconds)

    def _work(self, writer: Writer, suspects: set[int], held: int) -> Iterator[Outcome]:
        items = ranks.share(self.planned, self.journal, self.rank, suspects)
        if not self.workers:
            return self._task.worker().work(items)
        logs = self.target.path / LOGS
        return Pool(self._task, self.workers, writer, logs, keep=(held,)).work(items)

    def _counted(self, outcome: Outcome, writer: Writer) -> Iterator[Outcome]:
        for stage, seconds in outcome.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if outcome.status == "stopped":
            raise (OutputError if outcome.output_failed else ImageError)(outcome.error)
        if outcome.status == "killer":
            outcome = self._killer(outcome.number, outcome.error, writer)
        self.refined += outcome.status == "done"
        yield outcome

    def _set_aside_killers(self, writer: Writer) -> Iterator[Outcome]:
        for number, error in self.journal.killers().items():
            yield self._killer(number, error, writer)

    def _killer(self, number: int, error: str, writer: Writer) -> Outcome:
        """An image that kills its worker: the end of the job, or set aside."""
        image = self.planned[number]
        error = f"{self.source}/{image.file_name}: its worker died, more than once: {error}"
        if self.settings.on_error == "stop":
            raise ImageError(f"{error}; set it aside with --on-error copy or skip")
        item = Item(number, image.file_name)
        error = set_aside(item, error, self.source, self.target, self.settings, writer)
        return Outcome(number, image.file_name, "failed", error)

    def _finish(self) -> None:
        left = len(self.remaining())
        if left:
            raise OutputError(
                f"{left} images are still in the hands of other processes, or of some that have "
                "died; run the same command again"
            )
        finish(self)

    def _sweep(self) -> None:
        """Remove what killed workers have left unfinished."""
        for name in self.target.names(SCRATCH):
            self.target.remove(name)

    def _check_present(self) -> None:
        if not self.source.path.is_dir():
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

    def _masks(self, panoptic: Path | None) -> dict[str, tuple[LocalFolder, str]]:
        """The panoptic PNG files by their name in the result: folder and name."""
        found = {}
        for name, path in self.annotations.items():
            wanted = panoptic_masks(path)
            folder = LocalFolder(panoptic or path.with_suffix(""))
            if wanted and (not folder.path.is_dir() or folder.missing(wanted)):
                raise DataError(
                    f"{name} is panoptic, but not all of its PNG files are in {folder}; say with "
                    "--panoptic where they are"
                )
            below = Path(name).with_suffix("").name
            found.update({f"{below}/{mask}": (folder, mask) for mask in wanted})
        return found

    def _copy_masks(self, writer: Writer) -> None:
        """Panoptic PNG files hold ids, not colours: they are copied verbatim."""
        for output, (folder, name) in self.masks.items():
            size = folder.size(name)
            if self.target.size(output) != size:
                self.target.write(output, folder.parts(name), sync=True)
                writer.add(mask=output, sha256=sha256(folder, name), size=size)

    def _check_out(self) -> None:
        out = self.target.path
        if not out.exists():
            return
        try:
            before = json.loads((out / INFO).read_text())
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict):
            if any(name != STATE for name in os.listdir(out)):
                raise ConfigError(
                    f"{out} is not empty and holds no refine run; choose another --out"
                )
        elif changed := differences(before, self.info):
            raise ConfigError(
                f"{out} was begun with another refiner, other annotations or settings "
                f"({', '.join(changed)}); choose another --out"
            )


def refine(
    annotations: Sequence[Path], images: Path, refiner: Path, out: Path, **options: Any
) -> Summary:
    """Refine a COCO data set; see `RefineJob` for arguments and errors."""
    job = RefineJob(annotations, images, refiner, out, **options)
    began = time.monotonic()
    for _ in job.run():
        pass
    return job.summary(time.monotonic() - began)


def _sha256(path: Path) -> str:
    return sha256(LocalFolder(path.parent), path.name)


def _json(info: dict[str, Any]) -> bytes:
    return (json.dumps(info, indent=2) + "\n").encode()
