"""What one place holds: a COCO file, a folder, a glob, WebDataset shards, or a plugin's source.

A listing knows names and how to get at bytes; nothing of it has been decoded.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from simgan_aug import coco
from simgan_aug.data import shards
from simgan_aug.data.addresses import Opened
from simgan_aug.data.addresses import place as place_of
from simgan_aug.errors import DataError
from simgan_aug.folders import list_images
from simgan_aug.imagefile import SUFFIXES, content_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One place that images of a side come from."""

    where: Path | str
    """A COCO file, a folder, an image, .tar shards, or a pattern of these: *, ?, [ab], ** for any
    depth, {a,b}, {000..009}; or, as a string, what `addresses.place` takes for an address."""
    images: Path | None = None
    """Folder of a COCO file's images; None: where `coco.image_folder` finds them."""

    def __post_init__(self) -> None:
        """Tell an address from a path that is given as a string."""
        object.__setattr__(self, "where", place_of(self.where))

    @property
    def kind(self) -> str:
        """ "folder", "pattern", "shards", "image", "coco" or "source", by what lies there."""
        if isinstance(self.where, str):
            return "source"
        ending = self.where.suffix.lower()
        if _is_pattern(self.where):
            return "pattern"
        if self.where.is_dir() or not (ending or self.where.exists()):
            return "folder"
        return "shards" if ending == ".tar" else "image" if ending in SUFFIXES else "coco"

    def folders(self) -> list[Path]:
        """Folders that belong to it, in which nothing may be written."""
        if isinstance(self.where, str):
            return []
        if self.kind == "pattern":
            return [_fixed(self.where)] if "**" in self.where.parts else []
        return [self.where] if self.kind == "folder" else self.image_folders()

    def image_folders(self) -> list[Path]:
        """The folder of a COCO file's images; of others none."""
        if isinstance(self.where, str) or self.kind != "coco":
            return []
        return [self.images or coco.image_folder(self.where)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The images of one place, in order."""

    place: str
    names: list[str]
    """Relative to the place."""
    content: Callable[[int], bytes]
    """The file of an image by number; raises a `DataError` that names it."""
    title: Callable[[int], str]
    """Where an image lies, for messages."""
    fingerprint: Callable[[bool], str]
    """SHA-256 of the annotation file, or of names and, if that is asked, sizes."""
    stated: Array | None = None
    """(N, 2) float64, height and width in px as a COCO file has them, NaN where it has none."""
    annotations: Path | None = None
    """The COCO file."""


def list_origin(origin: Origin) -> Listing:
    """The images of a place.

    Raises:
        DataError: there is nothing, or it is damaged, or what a COCO file lists is not there.
    """
    kind, where = origin.kind, origin.where
    if isinstance(where, str):
        return _of_index(Opened(where), where)
    if kind == "coco":
        return _of_coco(where, origin.image_folders()[0])
    if kind == "shards":
        return _of_index(shards.index([where]), str(where))
    if kind == "image":
        return _of_files(where.parent, [where.name], str(where))
    if kind == "pattern":
        return _of_pattern(where)
    return _of_files(where, list_images(where), str(where))


def expanded(pattern: str) -> Iterator[str]:
    """A pattern's braces: {a,b} and {000..009}, none within another; other braces stay."""
    parts = _BRACES.split(pattern)  # texts and braces in turn
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    return ("".join(chosen) for chosen in product(*choices))


_BRACES = re.compile(r"(\{[^{}/]*(?:,|\.\.)[^{}/]*\})")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def _choices(brace: str) -> Iterable[str]:
    found = _RANGE.fullmatch(brace)
    if found is None:
        return brace[1:-1].split(",") if "," in brace else [brace]
    first, last = found.groups()
    padded = any(len(end) > 1 and end.startswith("0") for end in found.groups())
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return (f"{number:0{width}}" for number in range(int(first), int(last) + step, step))


def _is_pattern(path: Path) -> bool:
    text = str(path)
    return (glob.has_magic(text) or _BRACES.search(text) is not None) and not path.exists()


def _fixed(pattern: Path) -> Path:
    """The part of a pattern before the first name that is none itself."""
    fixed = Path()
    for part in pattern.parts[:-1]:
        if glob.has_magic(part) or _BRACES.search(part):
            break
        fixed /= part
    return fixed


def _of_pattern(pattern: Path) -> Listing:
    root = _fixed(pattern)
    names: dict[str, None] = {}
    for name in expanded(str(pattern.relative_to(root))):
        if glob.has_magic(name):
            found = sorted(glob.glob(name, root_dir=root, recursive=True))
        else:
            found = [name] if (root / name).exists() else []
        if not found:
            raise DataError(f"{root / name}: there is no such file")
        names |= dict.fromkeys(found)
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    tars = [name for name in names if name.lower().endswith(".tar")]
    if bool(images) == bool(tars):
        raise DataError(
            f"{pattern}: expected images or .tar shards, got {len(images)} and {len(tars)} of "
            f"{len(names)}; give each folder or COCO file by an option of its own"
        )
    if tars:
        return _of_index(shards.index([root / name for name in tars]), str(pattern))
    return _of_files(root, images, str(pattern))


def _of_files(root: Path, names: list[str], place: str) -> Listing:
    def fingerprint(sizes: bool) -> str:
        lines = (f"{name}\t{_size(root / name)}" for name in names) if sizes else names
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    return Listing(
        place=place,
        names=names,
        content=lambda index: content_of(root / names[index]),
        title=lambda index: str(root / names[index]),
        fingerprint=fingerprint,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot read the image: {error.strerror}") from None


def _of_coco(annotations: Path, folder: Path) -> Listing:
    listed = coco.read_images(annotations)
    if not listed:
        raise DataError(f"{annotations}: lists no images")
    coco.check_present(listed, folder)
    sizes = {image.file_name: (image.height, image.width) for image in listed}  # the last holds
    names = list(sizes)
    with coco.opened(annotations) as text:
        fingerprint = hashlib.sha256(text).hexdigest()
    return Listing(
        place=str(annotations),
        names=names,
        content=lambda index: content_of(coco.inside(folder, names[index])),
        title=lambda index: str(folder / names[index]),
        fingerprint=lambda sizes: fingerprint,
        stated=np.array(list(sizes.values()), dtype=np.float64),  # None becomes NaN
        annotations=annotations,
    )


def _of_index(index: shards.Index | Opened, place: str) -> Listing:
    return Listing(
        place=place,
        names=index.names,
        content=index.content,
        title=index.title,
        fingerprint=index.fingerprint,
    )
