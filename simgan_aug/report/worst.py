"""The lines of an audit, streamed once: how values are distributed, and which images are worst."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

from simgan_aug.report.measures import Histogram, histograms, severity_of
from simgan_aug.report.records import Audit, Record, read_lines


def measured(path: Path, audit: Audit, count: int) -> tuple[list[Record], list[Histogram], int]:
    """The worst images, the distributions, and how many lines were damaged.

    The images that the audit lists as worst come first, in its order; then those whose labels are
    nearest to a limit.

    Args:
        path: one line an image; only `count` of them are held.
        audit: its whole.
        count: images to choose.

    Raises:
        DataError: the file cannot be read.
    """
    reader = _Reader(path, audit)
    rank = {image.image: place for place, image in enumerate(worst_of(audit))}

    def badness(record: Record) -> tuple[float, float]:
        return -rank.get(record.image, len(rank)), severity_of(record, audit.limits)

    chosen = heapq.nlargest(count, reader.records(), key=badness)
    by_name = {record.image: record for record in reversed(chosen)}  # each once, the worse one
    return list(by_name.values())[::-1], reader.histograms, reader.torn


def worst_of(audit: Audit) -> list[Record]:
    """The images of an audit's worst labels, with these labels alone, the worst first."""
    found: dict[str, Record] = {}
    for label in audit.worst:
        found.setdefault(label.image, Record(image=label.image)).labels.append(label)
    for appeared in audit.appeared:
        found.setdefault(appeared.image, Record(image=appeared.image)).appeared.append(appeared)
    return list(found.values())


class _Reader:
    """Counts the labels of records as they pass."""

    def __init__(self, path: Path, audit: Audit) -> None:
        self.histograms = histograms(audit.limits)
        self.torn = 0
        self._path = path

    def records(self) -> Iterator[Record]:
        for record in read_lines(self._path, Record):
            if record is None:
                self.torn += 1
            elif record.image and record.error is None:
                for label in record.labels:
                    for histogram in self.histograms:
                        histogram.add(label)
                yield record
