"""What there is to show: found from a run, the result of a refine job, or an audit."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simgan_aug import coco
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.imagefile import SUFFIXES
from simgan_aug.report import records
from simgan_aug.report.measures import Histogram
from simgan_aug.report.records import Alarm, Audit, Realism, Record
from simgan_aug.report.worst import measured, worst_of
from simgan_aug.sheet import spaced

RUN, REPORT, AUDIT = "run.json", "report.json", "audit.json"
ENOUGH = 24
"""Pictures of a training run at most: each has to be refined."""


@dataclass
class Facts:
    """All that a page shows, but for the pixels of images."""

    kind: str
    """"run", "refined" or "audit"."""
    where: Path
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Contents of files by their name."""
    annotations: list[Path] = field(default_factory=list)
    images: Path | None = None
    """Folder of the images before."""
    refined: Path | None = None
    """Folder of the images after; None: a run, whose refiner makes them."""
    audit: Audit | None = None
    chosen: list[Record] = field(default_factory=list)
    """The images to show, the worst first."""
    measured: Path | None = None
    """The lines of an audit, one an image."""
    histograms: list[Histogram] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)
    realism: Realism | None = None
    failed: dict[str, str] = field(default_factory=dict)
    """Images that could not be refined or audited: why."""
    notes: list[str] = field(default_factory=list)
    """What is missing, and the way to get it."""

    @property
    def result(self) -> dict[str, Any]:
        """What came of a refine job."""
        return self.provenance.get(REPORT, {})


def gather(
    source: Path, count: int, audit: Path | None, images: Path | None, realism: Path | None
) -> Facts:
    """Find what a page can show.

    Args:
        source: folder of a training run or of a refined data set, or an audit's JSON file.
        count: images to choose at most.
        audit: of the data set; None: one that lies in it or beside it.
        images: folder of the originals; None: the one that the audit or the run names.
        realism: JSON of distances to real.

    Raises:
        ConfigError: an audit of what can have none.
        DataError: `source` is none of these, or a file is damaged.
    """
    if source.is_file():
        if audit is not None:
            raise ConfigError(f"{source} is an audit itself; leave out --audit, or name its folder")
        facts = _of_audit(source)
    elif source.is_dir():
        facts = _of_folder(source, audit)
    else:
        raise DataError(f"{source}: no such folder or file; {_EXPECTED}")
    facts.where = facts.where.resolve()
    facts.images = images or facts.images
    if facts.images is not None and not facts.images.is_dir():
        facts.notes.append(
            f"The images before lay in {facts.images}, which is gone; say with --images where "
            "they are."
        )
        facts.images = None
    if realism is not None:
        facts.realism = records.read(realism, Realism, "distances to real")
    _choose(facts, min(count, ENOUGH) if facts.kind == "run" else count)
    return facts


_EXPECTED = (
    f"expected a training run or a refined data set (a folder with {RUN}), or the JSON file of an "
    "audit"
)


def _of_folder(source: Path, audit: Path | None) -> Facts:
    if not (source / RUN).is_file():
        found = audit or source / AUDIT
        if found.is_file():
            return _of_audit(found)
        raise DataError(f"{source}: {_EXPECTED}; there is no {RUN} in it")
    info = records.read_object(source / RUN)
    if "config" in info:
        if audit is not None:
            raise ConfigError(
                f"{source} is a training run; --audit goes with a refined data set: name that one"
            )
        return _of_run(source, info)
    if "refiner" in info:
        return _of_result(source, info, audit)
    raise DataError(f"{source / RUN}: neither of a training run nor of a refine job; {_EXPECTED}")


def _of_run(source: Path, info: dict[str, Any]) -> Facts:
    facts = Facts("run", source, {RUN: info})
    inputs = info.get("inputs")
    if isinstance(inputs, dict):
        named = [Path(str(inputs["annotations"]))] if "annotations" in inputs else []
        facts.annotations = [
            each for each in named if _is_coco(each)
        ]  # of several places the first
        if len(facts.annotations) < len(named):
            facts.notes.append(f"{named[0]} has no labels: no images of it are shown.")
        images = Path(str(inputs.get("images", "")))
        facts.images = images if images.is_absolute() else None
    if (source / "metrics.jsonl").is_file():
        lines = records.read_objects(source / "metrics.jsonl")
        facts.metrics = sorted(
            (line for line in lines if isinstance(line.get("step"), int)), key=lambda a: a["step"]
        )
    else:
        facts.notes.append("There is no metrics.jsonl in the run, so there are no curves.")
    if (source / "alarms.jsonl").is_file():
        alarms = records.read_lines(source / "alarms.jsonl", Alarm)
        facts.alarms = [alarm for alarm in alarms if alarm is not None]
    facts.sheets = sorted((source / "samples").glob("*.png"))
    return facts


def _is_coco(place: Path) -> bool:
    """Whether a place of synthetic images is a COCO file, not a folder, images or shards.

    A run keeps paths in full; what is none of these is an address of a plugin's source.
    """
    return (
        place.is_absolute()
        and not place.is_dir()
        and place.suffix.lower() not in (".tar", *SUFFIXES)
    )


def _of_result(source: Path, info: dict[str, Any], audit: Path | None) -> Facts:
    facts = Facts("refined", source, {RUN: info}, refined=source / "images")
    names = info.get("annotations")
    facts.annotations = [source / str(name) for name in names] if isinstance(names, dict) else []
    if (source / REPORT).is_file():
        facts.provenance[REPORT] = records.read_object(source / REPORT)
        failed = facts.result.get("failed")
        facts.failed = {str(k): str(v) for k, v in failed.items()} if failed else {}
    else:
        facts.notes.append(
            "The refine job has not finished (no report.json); the same refine command goes on."
        )
    path = audit or _audit_of(source)
    if path is not None:
        _add_audit(facts, path)
        return facts
    told = facts.result.get("source")
    made_of = told if isinstance(told, dict) else {}  # of a result of before there is none
    named = made_of.get("annotations")
    named = named if isinstance(named, list) and named else ["A.json"]
    words = [
        "simgan-aug",
        "audit",
        *(word for each in named for word in ("--annotations", str(each))),
        "--images",
        str(made_of.get("images") or "IMAGES"),
        "--refined",
        str(source),
        "--out",
        str(source / AUDIT),
    ]
    facts.notes.append(
        "Whether labels have moved has not been measured. This measures it, after which this page "
        f"can be made again: {shlex.join(words)}"
    )
    return facts


def _of_audit(path: Path) -> Facts:
    facts = Facts("audit", path)
    _add_audit(facts, path)
    refined = facts.refined
    for folder in (refined, refined.parent) if refined is not None else ():
        for name in (RUN, REPORT):
            if (folder / name).is_file():
                facts.provenance.setdefault(name, records.read_object(folder / name))
    return facts


def _add_audit(facts: Facts, path: Path) -> None:
    audit = records.read(path, Audit, "an audit")
    facts.audit, facts.failed = audit, facts.failed | audit.failed
    lines = path.with_suffix(".jsonl")
    facts.images = Path(audit.images) if audit.images else None
    facts.refined = facts.refined or (Path(audit.refined) if audit.refined else None)
    named = [Path(name) for name in audit.annotations]
    facts.annotations = [each for each in named if each.is_file()] or facts.annotations or named
    facts.provenance[path.name] = {
        "annotations": audit.annotations,
        "images": audit.images,
        "refined": audit.refined,
        "limits": audit.limits,
        "counts": audit.counts,
    }
    if lines.is_file():
        facts.measured = lines
    else:
        facts.notes.append(f"{lines.name} does not lie beside {path}, so there are no plots.")


def _audit_of(source: Path) -> Path | None:
    """The audit in the folder of a result, or one beside it that is of this result."""
    if (source / AUDIT).is_file():
        return source / AUDIT
    beside = source.resolve().parent / AUDIT
    if not beside.is_file():
        return None
    refined = None
    with contextlib.suppress(DataError):  # damaged, but perhaps none of ours
        refined = records.read_object(beside).get("refined")
    mine = {str(source.resolve()), str(source.resolve() / "images")}
    return beside if refined in mine else None


def _choose(facts: Facts, count: int) -> None:
    """Choose the images to show: of an audit the worst, else some, evenly spaced."""
    if facts.audit is not None:
        if facts.measured is not None:
            facts.chosen, facts.histograms, torn = measured(facts.measured, facts.audit, count)
            if torn:
                facts.notes.append(f"{torn} lines of {facts.measured} are damaged and left out.")
        facts.chosen = facts.chosen or worst_of(facts.audit)[:count]
        return
    names: dict[str, None] = {}
    for path in facts.annotations:
        try:
            names |= dict.fromkeys(image.file_name for image in coco.read_images(path))
        except DataError as error:
            facts.notes.append(f"No images of it can be shown: {error}")
    listed = [name for name in names if name not in facts.failed]
    facts.chosen = [Record(image=name) for name in _sampled(listed, count)]


def _sampled(names: list[str], count: int) -> Iterator[str]:
    """Some of the names, evenly spaced, in order."""
    return (names[place] for place in spaced(len(names), count))
