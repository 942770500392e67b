"""A report: one self-contained page on a training run, a refined data set or an audit.

`facts` finds what there is to show, `gallery` where its pictures come from, `page` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from simgan_aug.errors import ConfigError
from simgan_aug.files import write_atomically
from simgan_aug.folders import check_writable
from simgan_aug.report.cards import Card
from simgan_aug.report.facts import Facts, gather
from simgan_aug.report.gallery import Gallery
from simgan_aug.report.page import page

MOST_SIDE = 4096
"""Px that the longer side of a picture may be shown with."""


class Report:
    """All that a page shows, found; `write` reads the pictures.

    Args:
        source: folder of a training run or of a refined data set, or an audit's JSON file.
        audit: of the data set; None: `audit.json` in it, or beside it and of it.
        images: folder of the originals; None: the one that the audit or the run names.
        realism: JSON of distances to real.
        count: pictures at most; of a run, no more than 24.
        max_side: px of the longer side of a picture, which is shrunk to it.
        title: of the page; None: the name of `source`.
        device: of a run's refiner: "auto" or what `torch.device` takes.

    Raises:
        ConfigError: an impossible setting.
        DataError: `source` is none of these, or a file is damaged.
    """

    def __init__(
        self,
        source: Path,
        *,
        audit: Path | None = None,
        images: Path | None = None,
        realism: Path | None = None,
        count: int = 24,
        max_side: int = 640,
        title: str | None = None,
        device: str = "auto",
    ) -> None:
        if count < 1:
            raise ConfigError(f"count must be 1 or more, got {count}")
        if not 16 <= max_side <= MOST_SIDE:
            raise ConfigError(f"max_side must lie in [16, {MOST_SIDE}], got {max_side}")
        self.facts: Facts = gather(source, count, audit, images, realism)
        self.gallery = Gallery(self.facts, device)
        self.title = title or source.resolve().name or str(source)
        self.max_side = max_side

    def write(
        self,
        out: Path,
        follow: Callable[[Iterator[Card]], Iterator[Card]] = lambda cards: cards,
    ) -> None:
        """Write the page, whole or not at all.

        Args:
            out: .html file.
            follow: shows progress over the pictures as they are read.

        Raises:
            ConfigError: `out` is no .html file.
            OutputError: it cannot be written.
        """
        if out.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"--out must name a .html file, got {out}")
        check_writable(out.parent)
        cards = follow(iter(self.gallery.cards))
        write_atomically(out, page(self.facts, self.gallery, cards, self.max_side, self.title))
