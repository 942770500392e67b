"""The pictures of a page: which annotations belong to them, and where their pixels come from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from simgan_aug.errors import DataError, SimganAugError, is_out_of_memory
from simgan_aug.imagefile import read_image
from simgan_aug.inference import ImageRefiner
from simgan_aug.pixels import LUMA, to_display
from simgan_aug.report.cards import Card
from simgan_aug.report.facts import Facts
from simgan_aug.report.measures import severity
from simgan_aug.report.pictures import Pair, find, read_pair
from simgan_aug.report.records import Label
from simgan_aug.report.shapes import Shape, shapes_of

REFINER = "refiner.safetensors"
"""Of a run."""


class Gallery:
    """The cards of a page, and the pixels of each when it is asked for.

    What is missing is added to the notes of `facts`; nothing of it ends the page.

    Args:
        facts: what there is to show.
        device: of a run's refiner: "auto" or what `torch.device` takes.
    """

    def __init__(self, facts: Facts, device: str = "auto") -> None:
        self._facts = facts
        self._refiner = self._load(device) if facts.kind == "run" else None
        self.cards = [Card(record) for record in facts.chosen]
        if facts.images is None and facts.kind != "run" and self.cards:
            facts.notes.append(
                "Only the refined images are shown: say with --images where the originals lie."
            )
        if facts.kind == "run" and facts.images is None:
            self.cards = []
        self._annotate()
        counts = Counter(name for each in self.cards for name in each.categories)
        self.categories = {name: place for place, (name, _) in enumerate(counts.most_common())}
        """Number of each category on the page, the most frequent first."""

    def pair(self, of: Card) -> Pair:
        """A picture before and after; what cannot be read is said in it, never raised."""
        name = of.record.image
        if self._facts.kind != "run":
            return read_pair(name, self._facts.images, self._facts.refined)
        pair = Pair(name)
        try:
            assert self._facts.images is not None, "a run without images has no cards"
            pixels = read_image(find(self._facts.images, name)).pixels
            pair.before = to_display(pixels)
            if self._refiner is not None:
                pixels = _fitting(pixels, self._refiner.channels)
                pair.before, pair.after = to_display(pixels), to_display(self._refiner(pixels))
        except (SimganAugError, OSError) as error:
            pair.problems.append(str(error))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            pair.problems.append("the memory is too small to refine it")
        return pair

    def _load(self, device: str) -> ImageRefiner | None:
        try:
            return ImageRefiner.load(self._facts.where / REFINER, device)
        except SimganAugError as error:
            self._facts.notes.append(f"No refined images can be shown: {error}")
            return None

    def _annotate(self) -> None:
        """Add outlines, and, where nothing was audited, the labels themselves."""
        by_name = {each.record.image: each for each in self.cards}
        for path in self._facts.annotations if by_name else ():
            try:
                found, categories = shapes_of(path, by_name)
            except DataError as error:
                self._facts.notes.append(f"Outlines cannot be drawn: {error}")
                continue
            for name, shapes in found.items():
                _add(by_name[name], shapes, categories, self._facts.audit is None)
        if self._facts.audit is not None:
            limits = self._facts.audit.limits
            for each in self.cards:
                each.record.labels.sort(key=lambda label: -severity(label, limits))


def _add(to: Card, shapes: list[Shape], categories: dict[Any, str], plain: bool) -> None:
    for shape in shapes:
        if shape.id is not None:
            to.shapes.setdefault(str(shape.id), shape)
        if plain:
            name = categories.get(shape.category_id)
            label = Label(id=shape.id, category=name, bbox=shape.bbox, audited=False)
            to.record.labels.append(label)


def _fitting(pixels: Any, channels: int) -> Any:
    """Pixels in the channels that a refiner takes, as its training made them fit."""
    if channels == 1 and pixels.ndim == 3 and pixels.shape[2] >= 3:
        grey = pixels[..., :3] @ np.array(LUMA)
        return grey.round().astype(pixels.dtype)
    return pixels
