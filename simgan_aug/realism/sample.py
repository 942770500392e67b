"""A set of images as the measures need it: drawn by a seed, seen once, never held in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simgan_aug.errors import ConfigError, DataError, ImageError, did_you_mean
from simgan_aug.folders import list_images
from simgan_aug.imagefile import read_image, upright
from simgan_aug.realism.colour import colours
from simgan_aug.realism.groups import joined, near_duplicates, thumbnail
from simgan_aug.realism.resampling import numbered
from simgan_aug.realism.spaces import Extract
from simgan_aug.realism.spectrum import power_spectrum

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Named:
    """An image that is no file of a folder, read when it is needed."""

    name: str
    """What a file would be called, relative to its folder."""
    read: Callable[[], Array]
    """Gives (H, W) or (H, W, C); its errors name the image."""


Images = str | os.PathLike[str] | Sequence[str | os.PathLike[str] | Array | Named]
"""A folder, or a list of files, of images as arrays, (H, W) or (H, W, C), or of named ones."""

Groups = str | Mapping[str, Sequence[Hashable]]
"""Which images belong together: one of `WAYS`, or a group for each image of each set."""

WAYS = ("similar", "folder", "none")
"""By near-duplicate thumbnails, by the folder that a file lies in, or each image its own."""

Seen = tuple[torch.Tensor, Array, Array, Array]
"""Features, spectrum, colours and thumbnail of an image."""


@dataclass(frozen=True)
class Source:
    """One image before it is read."""

    image: Path | Array | Named
    key: str
    """What it has in common with its refined form: the name without its ending, or its place."""
    folder: str
    """The folder that it lies in; of an array, none."""
    place: int
    """In the list, or among the sorted names of the folder."""


class Sample:
    """What the measures need of the images of one set, one row an image."""

    def __init__(self, sources: Sequence[Source], seen: Sequence[Seen]) -> None:
        self.sources = sources
        self.features = torch.stack([parts[0] for parts in seen])  # (N, F)
        self.spectra = np.stack([parts[1] for parts in seen])
        self.colours = np.stack([parts[2] for parts in seen])
        self.thumbnails = np.stack([parts[3] for parts in seen])


def listed(images: Images) -> list[Source]:
    """All images of a folder or list.

    Raises:
        DataError: the folder is missing or holds no image.
        ConfigError: something else than a path or an array in the list.
    """
    if isinstance(images, (str, os.PathLike)):
        folder = Path(images)
        return [
            _below(folder / name, name, place) for place, name in enumerate(list_images(folder))
        ]
    return [_source(image, place) for place, image in enumerate(images)]


def draw(sources: Sequence[Source], limit: int, seed: int) -> list[Source]:
    """At most so many of the images, in their order."""
    if len(sources) <= limit:
        return list(sources)
    rng = np.random.default_rng(seed)
    return [sources[row] for row in np.sort(rng.choice(len(sources), limit, replace=False))]


def see(source: Source, extract: Extract) -> Seen:
    """Read and describe an image.

    Raises:
        ImageError: it cannot be read, or has less than 16 px on a side.
    """
    image = source.image
    if isinstance(image, Path):
        image = upright(read_image(image))
    elif isinstance(image, Named):
        image = image.read()
    try:
        return extract(image), power_spectrum(image), colours(image), thumbnail(image)
    except ImageError as error:
        raise ImageError(f"{_title(source)}: {error}") from None


def belong(samples: Mapping[str, Sample], groups: Groups) -> dict[str, Array]:
    """Groups of the images of each set, as numbers that all sets share.

    A refined image belongs to the synthetic one of its key, whatever `groups` says.

    Raises:
        ConfigError: no such way, or a set without a group for each of its images.
    """
    names = list(samples)
    sources = [source for sample in samples.values() for source in sample.sources]
    if isinstance(groups, str) and groups not in WAYS:
        raise ConfigError(f"no way of grouping named {groups!r}{did_you_mean(groups, WAYS)}")
    if groups == "similar":
        labels = near_duplicates(np.concatenate([s.thumbnails for s in samples.values()]))
    elif groups == "none":
        labels = np.arange(len(sources))
    else:
        labels = numbered([key for name in names for key in _keys(name, samples[name], groups)])
    counts = np.cumsum([0] + [len(sample.sources) for sample in samples.values()])
    starts = dict(zip(names, counts[:-1].tolist(), strict=True))
    if "refined" in samples:
        pairs = partners(samples["synthetic"].sources, samples["refined"].sources)
        shift = starts["synthetic"], starts["refined"]
        labels = joined(labels, ((a + shift[0], b + shift[1]) for a, b in pairs.items()))
    return {
        name: labels[start : start + len(samples[name].sources)] for name, start in starts.items()
    }


def partners(synthetic: Sequence[Source], refined: Sequence[Source]) -> dict[int, int]:
    """The row of the refined form by the row of the synthetic image, of those that have one."""
    forms = {source.key: row for row, source in enumerate(refined)}
    return {row: forms[s.key] for row, s in enumerate(synthetic) if s.key in forms}


def _title(source: Source) -> str:
    """An image as messages call it."""
    if isinstance(source.image, np.ndarray):
        return f"image {source.place} of the list"
    return source.image.name if isinstance(source.image, Named) else str(source.image)


def _below(image: Path | Named, name: str, place: int) -> Source:
    """An image by its name below a folder."""
    return Source(image, os.path.splitext(name)[0], os.path.dirname(name), place)


def _source(image: Any, place: int) -> Source:
    if isinstance(image, Named):
        return _below(image, image.name, place)
    if isinstance(image, np.ndarray):
        return Source(image, str(place), "", place)
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        return Source(path, path.stem, str(path.parent), place)
    raise ConfigError(
        f"expected paths of images, or images as numpy arrays, got {type(image).__name__}"
    )


def _keys(name: str, sample: Sample, groups: Groups) -> Iterable[Hashable]:
    """The group of each image of a set that was drawn."""
    if isinstance(groups, str):
        # A folder of the same name says nothing about another set.
        return [("real" if name == "real" else "", source.folder) for source in sample.sources]
    given = groups.get(name)
    if given is None:
        known = ", ".join(sorted(groups)) or "none"
        raise ConfigError(f"groups: expected some for the {name} images, got only: {known}")
    try:
        return [given[source.place] for source in sample.sources]
    except IndexError:
        raise DataError(
            f"groups: expected one for each {name} image, got {len(given)}; of a folder they are "
            "in the order of its sorted names"
        ) from None
