"""COCO files, read and never rewritten; where their images lie.

Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from simgan_aug import spans
from simgan_aug.errors import DataError, ImageError

FEW = 64
"""Files of a folder that are looked at one by one; more of them by listing the folder."""

Id = int | str | float
_T = TypeVar("_T", bound=msgspec.Struct)


class CocoImage(msgspec.Struct, frozen=True, gc=False):
    """One entry of `images`; ids are kept as they are, whatever their type."""

    id: Id
    file_name: str
    width: float | None = None
    height: float | None = None


class Annotation(msgspec.Struct, frozen=True):
    """The part of an annotation that says where a label lies."""

    image_id: Id
    category_id: Id | None = None
    bbox: list[float] | None = None
    """x, y, width, height in px."""
    segmentation: Any = None
    """Polygons, or RLE as string or as a list of counts."""
    keypoints: Any = None
    """x, y, visibility (0: not labelled, 1: hidden, 2: visible) of each, in one list."""
    id: Any = None
    iscrowd: Any = 0
    """1: of many objects, none of which is labelled by itself."""


class Category(msgspec.Struct, frozen=True):
    """One entry of `categories`."""

    id: Id
    name: str
    keypoints: Any = None
    """Names of those that its labels have."""


class _Images(msgspec.Struct):
    images: list[CocoImage]


class _Labels(msgspec.Struct):
    annotations: list[Annotation] = []
    categories: list[Category] = []


@dataclass(frozen=True)
class Labels:
    """Annotations by image, and the names of their categories."""

    by_image: dict[Id, list[Annotation]] = field(default_factory=dict)
    categories: dict[Id, str] = field(default_factory=dict)
    points: dict[str, list[Any]] = field(default_factory=dict)
    """Names of keypoints by that of their category, where the file has them."""


def read_images(path: str | os.PathLike[str]) -> list[CocoImage]:
    """The images that a COCO file lists, in its order.

    Raises:
        DataError: the file is missing, is no JSON, or is no COCO file.
    """
    return read(path, _Images).images


def read_labels(path: str | os.PathLike[str]) -> Labels:
    """The annotations of a COCO file by image id.

    Raises:
        DataError: as `read_images`.
    """
    raw = read(path, _Labels)
    labels = Labels(
        categories={category.id: category.name for category in raw.categories},
        points={c.name: c.keypoints for c in raw.categories if isinstance(c.keypoints, list)},
    )
    for annotation in raw.annotations:
        labels.by_image.setdefault(annotation.image_id, []).append(annotation)
    return labels


def inside(folder: Path, name: str) -> Path:
    """The path of `file_name` in an image folder, contained in it after all links are followed.

    Raises:
        DataError: the name is empty, has a NUL or a backslash, or leads out of the folder.
    """
    if not name or "\0" in name or "\\" in name:
        raise DataError(f"file_name {name!r} is not a relative path with forward slashes")
    path = folder / name
    try:
        contained = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a lone surrogate
        raise DataError(f"file_name {name!r} is no usable path: {error}") from None
    if not contained or Path(name).is_absolute():
        raise DataError(f"file_name {name!r} leads out of {folder}; copy the image into it")
    return path


def image_folder(annotations: Path) -> Path:
    """Where the images of a COCO file lie if nobody says.

    `images` beside it, a folder of its own name without .json, or its own folder: the first of them
    that has the first image; if none has, the first that exists.

    Raises:
        DataError: as `read_images`.
    """
    beside = (annotations.parent / "images", annotations.with_suffix(""), annotations.parent)
    present = [folder for folder in beside if folder.is_dir()] or [annotations.parent]
    first = [image.file_name for image in read_images(annotations)[:1]]
    with_it = (folder for folder in present if first and (folder / first[0]).is_file())
    return next(with_it, present[0])


def check_present(images: Iterable[CocoImage], folder: Path, option: str = "--images") -> None:
    """Reject a folder that lacks images.

    Args:
        images: those wanted.
        folder: where they should lie.
        option: what a user says the folder with.

    Raises:
        DataError: says how many, names the first, and which option helps.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; say with {option} where the images lie")
    names = dict.fromkeys(image.file_name for image in images)
    missing = missing_of(names, folder)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images are missing in {folder}, the first is "
            f"{missing[0]!r}; say with {option} where they lie"
        )


def missing_of(names: Iterable[str], folder: Path) -> list[str]:
    """Those of the names under which no file lies in a folder.

    A folder of which many files are wanted is listed once: a look at each of a million files takes
    a minute, on a network far more.

    Raises:
        DataError: a name leads out of the folder.
    """
    by_parent: dict[str, list[str]] = {}
    for name in names:
        by_parent.setdefault(name.rpartition("/")[0], []).append(name)
    missing = []
    for parent, wanted in by_parent.items():
        plain = _plain_files(folder, parent) if len(wanted) > FEW else frozenset()
        missing += [
            name
            for name in wanted
            if (name[len(parent) + bool(parent) :] not in plain or "\\" in name)
            and not os.path.isfile(inside(folder, name))  # False also for a name too long
        ]
    return missing


def _plain_files(folder: Path, parent: str) -> frozenset[str]:
    """The files of a sub-folder that are no links, and so lie where they seem to."""
    path = inside(folder, parent) if parent else folder
    try:
        with os.scandir(path) as entries:
            return frozenset(e.name for e in entries if e.is_file(follow_symlinks=False))
    except OSError:
        return frozenset()


def check_size(image: CocoImage, height: int, width: int) -> None:
    """Reject an image of another size than its annotations speak of.

    Raises:
        ImageError: says both sizes.
    """
    stated = (image.width or width, image.height or height)
    if not all(abs(said - side) <= 0.5 for said, side in zip(stated, (width, height), strict=True)):
        way_out = (
            "has an orientation tag turned it where they were made? Store it upright"
            if stated == (height, width)
            else "mend whichever is wrong"
        )
        raise ImageError(
            f"{image.file_name}: is {width}x{height}, the annotations say "
            f"{stated[0]:g}x{stated[1]:g}: {way_out}"
        )


def read(path: str | os.PathLike[str], kind: type[_T]) -> _T:
    """The wanted part of a file that is mapped into memory, not read into it."""
    with opened(path) as text:
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # NaN, a BOM or a lone surrogate: legal for Python's reader, and met in the wild
        try:
            return _scanned(text, kind)
        except msgspec.ValidationError as error:
            raise DataError(f"{path}: not a COCO file: {error}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not a JSON file: {error}") from None


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[spans.Text]:
    """The bytes of an annotation file, which may be larger than the memory, for a while.

    Raises:
        DataError: it cannot be read.
    """
    text = mapped(path)
    try:
        yield text
    finally:
        if isinstance(text, mmap.mmap):
            text.close()


def mapped(path: str | os.PathLike[str]) -> spans.Text:
    """The bytes of an annotation file, mapped into memory for as long as anything refers to them.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size  # nothing cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot read the annotation file: {reason}") from None


def _scanned(text: spans.Text, kind: type[_T]) -> _T:
    """The same, one item of each list at a time, by Python's reader; of doubled keys the last."""
    spans.check_encoding(text)
    start, stop = spans.whole(text)
    if text[start : start + 1] != b"{":
        kind_of = {b"[": "array", b'"': "str", b"n": "null"}.get(text[start : start + 1], "number")
        raise msgspec.ValidationError(f"Expected `object`, got `{kind_of}`")
    places = dict(spans.members(text, (start, stop)))
    found: dict[str, Any] = {}
    for part in msgspec.structs.fields(kind):
        if part.name not in places:
            continue
        place = places[part.name]
        if text[place[0] : place[0] + 1] != b"[":
            found[part.name] = json.loads(bytes(text[slice(*place)]))
            continue
        found[part.name] = [
            _converted(text, at, part.type.__args__[0], f"$.{part.name}[{number}]")
            for number, at in enumerate(spans.items(text, place))
        ]
    return msgspec.convert(found, kind)


def _converted(text: spans.Text, place: spans.Span, kind: Any, name: str) -> Any:
    value = json.loads(bytes(text[slice(*place)]).decode("utf-8", "surrogatepass"))
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said = str(error)
        said = said.replace("`$", f"`{name}") if "`$" in said else f"{said} - at `{name}`"
        raise msgspec.ValidationError(said) from None
