"""What audits, realism files, runs and jobs have written, read leniently: unknown keys are skipped.

Each struct names what a page shows of a file; what is missing is shown as missing.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from simgan_aug.errors import DataError

_T = TypeVar("_T", bound=msgspec.Struct)


class Label(msgspec.Struct):
    """One label and what was measured of it; None: could not be."""

    id: Any = None
    category: str | None = None
    bbox: list[float] | None = None
    """x, y, width, height in px."""
    displacement: list[float] | None = None
    """Px to the right and down."""
    local: float | None = None
    keypoints: list[float | None] = []
    contour: float | None = None
    content: float | None = None
    colour: float | None = None
    contrast: float | None = None
    failures: list[str] = []
    """Names of the measures beyond their limit."""
    image: str = ""
    """Of a label in a list of the worst: where it lies."""
    audited: bool = True
    """Whether anything was measured: not of one that comes from an annotation file."""

    @property
    def state(self) -> str:
        """One of "rejected", "passed", "unmeasurable" and "plain" (not audited)."""
        if not self.audited:
            return "plain"
        if self.failures:
            return "rejected"
        return "unmeasurable" if self.displacement is None else "passed"

    def values(self, measure: str) -> list[float]:
        """What a measure says of it: mostly one number, of keypoints several, or none."""
        found = getattr(self, measure, None)
        if measure == "displacement":
            found = None if found is None else math.hypot(*found[:2])
        listed = found if isinstance(found, list) else [found]
        return [value for value in listed if value is not None]


class Appeared(msgspec.Struct):
    """Something in the refined image that was not there before."""

    bbox: list[float] = []
    score: float | None = None
    image: str = ""


class Record(msgspec.Struct):
    """One image of an audit."""

    image: str = ""
    labels: list[Label] = []
    appeared: list[Appeared] = []
    gates: list[str] = []
    """Why gates refuse it."""
    error: str | None = None


class Summary(msgspec.Struct):
    """All labels, or those of a category."""

    labels: int = 0
    rejected: int = 0
    unmeasurable: int = 0
    displacement: dict[str, float | None] = {}
    local: dict[str, float | None] = {}
    keypoints: dict[str, float | None] = {}
    contour: dict[str, float | None] = {}
    content: dict[str, float | None] = {}
    contrast: dict[str, float | None] = {}
    colour: dict[str, float | None] = {}


class Audit(msgspec.Struct):
    """An audit as a whole."""

    counts: dict[str, int]
    limits: dict[str, float] = {}
    annotations: list[str] = []
    images: str = ""
    refined: str = ""
    overall: Summary = msgspec.field(default_factory=Summary)
    categories: dict[str, Summary] = {}
    worst: list[Label] = []
    appeared: list[Appeared] = []
    failed: dict[str, str] = {}


class Interval(msgspec.Struct):
    """A distance with the range that resampling gives it."""

    value: float
    low: float | None = None
    high: float | None = None


class Measured(msgspec.Struct):
    """One measure of realism: floor (real to real), refined, ceiling (synthetic to real)."""

    name: str
    unit: str = ""
    floor: Interval | None = None
    refined: Interval | None = None
    ceiling: Interval | None = None
    closed: float | None = None
    """Share of the way from the ceiling to the floor that refining has gone."""


class Realism(msgspec.Struct):
    """Distances to real."""

    measures: list[Measured]
    counts: dict[str, int] = {}
    features: str = ""


class Alarm(msgspec.Struct):
    """What training has warned of."""

    step: int
    name: str = ""
    message: str = ""


def read(path: Path, kind: type[_T], what: str) -> _T:
    """One JSON file as a struct.

    Raises:
        DataError: it is missing, damaged, or of another kind; `what` says of which.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise DataError(f"{path}: cannot read {what}: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path}: expected the JSON of {what}, but: {error}; make it anew"
        ) from None


def read_lines(path: Path, kind: type[_T]) -> Iterator[_T | None]:
    """The lines of a JSONL file, one at a time; None for each that is damaged, as a kill leaves it.

    Raises:
        DataError: the file cannot be read.
    """
    decoder = msgspec.json.Decoder(kind)
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    yield None
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror or error}") from None


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, whatever they hold; damaged lines are left out.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):
                    found = json.loads(line)
                    if isinstance(found, dict):
                        yield found
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror or error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, whatever it holds.

    Raises:
        DataError: it is missing, damaged, or no object.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected JSON, but: {error}; write it again with the command that made it"
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, got a {type(found).__name__}")
    return found
