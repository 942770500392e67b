"""What every command prints: rows of figures and ratios, for people and for programs."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """How one variant compares with another, round by round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """Of the ratios of all rounds."""
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    def times(self, factor: float) -> Ratio:
        """Each of its figures by a factor."""
        return Ratio(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


Cell = float | str | Ratio | None
"""A figure; words; a ratio with its range; nothing."""


@dataclass(frozen=True)
class Row:
    """One variant."""

    name: str
    cells: Mapping[str, Cell] = field(default_factory=dict)
    """By column; one that is left out is empty."""
    skipped: str = ""
    """Why there are no cells."""


@dataclass(frozen=True)
class Table:
    """Rows under columns, and what they say."""

    title: str
    """What the column of names is of: "transform"."""
    formats: Mapping[str, str]
    """How the figures of each column are written, such as ".1f"; in the order of the columns."""
    rows: Sequence[Row]
    says: Sequence[str] = ()
    """Lines below the table, the recommendation last."""

    def row(self, name: str) -> Row:
        """By its name."""
        return next(row for row in self.rows if row.name == name)

    def as_text(self) -> str:
        """As Markdown, with the machine and the lines that it closes with."""
        lines = [
            f"| {self.title} | {' | '.join(self.formats)} |",
            f"|{'---|' * (1 + len(self.formats))}",
            *(self._line(row) for row in self.rows),
        ]
        return "\n".join(["\n".join(lines), "", machine(), *self.says])

    def as_builtins(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "machine": machine(),
            "rows": [_plain(row) for row in self.rows],
            "says": list(self.says),
        }

    def _line(self, row: Row) -> str:
        if row.skipped:
            first, *rest = [f"skipped: {row.skipped}", *([""] * (len(self.formats) - 1))]
            return f"| {row.name} | {' | '.join([first, *rest])} |"
        cells = (_shown(row.cells.get(name), form) for name, form in self.formats.items())
        return f"| {row.name} | {' | '.join(cells)} |"


def machine() -> str:
    """What the figures were taken on, for a line below them; with the load that others made."""
    names = ("torch", "openvino", "albumentations")
    versions = [f"{name} {_version(name)}" for name in names if _version(name)]
    load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    return (
        f"{datetime.date.today()}, {os.cpu_count()} cores {_amx()} ({platform.machine()}), {load}"
        f"{', '.join(versions)}, Python {platform.python_version()}"
    )


def _amx() -> str:
    from simgan_aug.devices import has_amx

    return "with AMX" if has_amx() else "without AMX"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _plain(row: Row) -> dict[str, Any]:
    if row.skipped:
        return {"name": row.name, "skipped": row.skipped}
    cells = {
        name: dataclasses.asdict(cell) if isinstance(cell, Ratio) else cell
        for name, cell in row.cells.items()
    }
    return {"name": row.name, **cells}


def _shown(cell: Cell, form: str) -> str:
    if cell is None:
        return ""
    return f"{cell:{form}}" if isinstance(cell, (int, float)) else str(cell)
