"""What a job has to do: which images, under which names, from what, and whether that can work."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from simgan_aug import coco
from simgan_aug.audit import Limits
from simgan_aug.audit.gates import Gates
from simgan_aug.audit.guard import POLICIES as GUARD_POLICIES
from simgan_aug.dataset.storage import IMAGES, STATE
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.imagefile import MAX_PIXELS, suffixed

INFO, REPORT = "run.json", "report.json"
"""Files that a job writes beside the annotations: what it is, and what came of it."""

AUDIT = "audit.json"
"""What an audit of a result is called, in it."""

RESERVED = (INFO, REPORT, AUDIT, IMAGES, STATE)
"""Names in a result that no annotation file, nor its folder, may have."""

MAX_NAME = 255
"""Bytes of a file's name, in all common file systems."""

FORMATS = ("keep", "png", "jpeg", "webp")
POLICIES = ("stop", "copy", "skip")
GUARDS = ("off", *GUARD_POLICIES)

UNLABELLED = "nothing is labelled, so that it is as it was (--only-labels)"
"""Note of such an image."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are refined and written, and what is done with one that fails.

    Raises:
        ConfigError: an impossible value.
    """

    strength: float = 1.0
    """Share of the change, in [0, 1]."""
    seed: int = 0
    """With an image's name it draws that image's noise and reference photo."""
    format: str = "keep"
    """"keep", "png", "jpeg" or "webp"."""
    quality: int = 95
    """Of JPEG and WebP, 1 to 100."""
    on_error: str = "stop"
    """An image that fails stops the job ("stop"), is copied as it is ("copy"), or left out
    ("skip")."""
    allow_size_mismatch: bool = False
    """Whether an image may have another size than the annotations say."""
    max_pixels: int = MAX_PIXELS
    """Width x height of an image, checked before it is decoded."""
    guard: str = "off"
    """What is done about labels that moved: nothing ("off"), or as `simgan_aug.audit.Guard` says:
    "image" or "label"."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Of the guard: those of `simgan_aug.audit.Limits` that are not the default."""
    gates: Sequence[str] = ()
    """Of the guard: names of quality gates, which plugins register."""
    only_labels: bool = False
    """Whether what is outside of labels (of their masks, else their boxes) stays as it was."""

    def __post_init__(self) -> None:
        """Reject impossible values."""
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength must lie in [0, 1], got {self.strength}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must lie in [1, 100], got {self.quality}")
        if not 1 <= self.max_pixels <= MAX_PIXELS:
            raise ConfigError(
                f"max_pixels must lie in [1, {MAX_PIXELS:,}] (Pillow's own bound), "
                f"got {self.max_pixels:,}"
            )
        choices = (("format", FORMATS), ("on_error", POLICIES), ("guard", GUARDS))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} must be one of {', '.join(known)}, got {vars(self)[name]!r}"
                )
        for name in ("limits", "gates"):
            if getattr(self, name) and self.guard == "off":
                raise ConfigError(f"{name} are of the guard: choose --guard label or image")
        if self.only_labels and self.allow_size_mismatch:
            raise ConfigError(
                "only_labels needs to know where labels lie, in images of the size that is stated: "
                "leave out allow_size_mismatch, or only_labels"
            )
        Limits.of(self.limits)
        Gates(self.gates)

    @property
    def result(self) -> dict[str, Any]:
        """Those of which the refined pixels are made; a job that goes on must have the same."""
        names = ("strength", "seed", "format", "quality")
        result = {name: getattr(self, name) for name in names}
        if self.guard != "off":
            result |= {"guard": self.guard, "limits": asdict(Limits.of(self.limits))}
        if self.gates:
            result["gates"] = Gates(self.gates).versions
        if self.only_labels:
            result["only_labels"] = True
        return result

    @property
    def as_it_is(self) -> str:
        """What a message says of an image of another size than stated, where it could be taken."""
        return "" if self.only_labels else " (as it is: --allow-size-mismatch)"

    @property
    def needs_labels(self) -> bool:
        """Whether the annotations of an image have a say in its pixels."""
        return self.guard != "off" or self.only_labels

    @property
    def policy(self) -> str:
        """Those under which an image may fail; under others it is tried again."""
        return f"{self.on_error} {self.allow_size_mismatch} {self.max_pixels}"

    def renamed(self, name: str) -> str:
        """The `file_name` of a refined image."""
        return name if self.format == "keep" else suffixed(name, self.format.upper())

    def output(self, name: str) -> str:
        """The file of a refined image, from the result's folder on."""
        return place_of(self.renamed(name))

    def seed_of(self, name: str) -> int:
        """What draws an image's noise and reference photo: its place in the folder decides."""
        key = f"{self.seed}/{posixpath.normpath(name)}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(key).digest()[:8])


def place_of(name: str) -> str:
    """Where in a result the file of an image lies that is listed under this name."""
    return posixpath.normpath(f"{IMAGES}/{name}")


def planned(annotations: Sequence[Path], settings: Settings) -> list[coco.CocoImage]:
    """The images that COCO files list, each once, in order.

    Raises:
        DataError: no image is listed; one is listed with two sizes; two would be written to one
            file.
    """
    listed: dict[str, coco.CocoImage] = {}
    for path in annotations:
        for image in coco.read_images(path):
            other = listed.setdefault(image.file_name, image)
            if other is not image and not settings.allow_size_mismatch:
                listed[image.file_name] = _agreed(other, image, path, settings)
    if not listed:
        raise DataError(f"{', '.join(map(str, annotations))}: no images listed")
    _check_distinct(listed, settings)
    return list(listed.values())


def _agreed(
    one: coco.CocoImage, other: coco.CocoImage, path: Path, settings: Settings
) -> coco.CocoImage:
    """Two entries of one image, of which one may not say its size."""
    for mine, its in ((one.width, other.width), (one.height, other.height)):
        if mine != its and None not in (mine, its):
            raise DataError(
                f"{one.file_name}: listed as {_size(one)} and, in {path}, as {_size(other)}; one "
                f"of them is wrong{settings.as_it_is}"
            )
    return other if None in (one.width, one.height) else one


def _size(image: coco.CocoImage) -> str:
    return f"{image.width or 0:g}x{image.height or 0:g}"


def _check_distinct(names: Iterable[str], settings: Settings) -> None:
    """Two names of one file, such as a.png and ./a.png, or a.jpg and a.bmp that become a.png."""
    taken: dict[str, str] = {}
    for name in names:
        output = settings.output(name)
        if posixpath.normpath(name).startswith(("../", "/")):
            raise DataError(f"file_name {name!r} leads out of the images; rename it")
        if output in taken:
            raise DataError(
                f"{taken[output]!r} and {name!r} would both be written to {output}; rename one"
            )
        taken[output] = name
    folders = {folder for name in {posixpath.dirname(o) for o in taken} for folder in _above(name)}
    for folder in folders & taken.keys():
        raise DataError(
            f"{taken[folder]!r} would be written to {folder}, which is a folder of other images; "
            "rename one"
        )
    if settings.format == "keep":
        return
    for output, name in taken.items():
        if len(os.fsencode(posixpath.basename(output))) > MAX_NAME:
            raise DataError(f"{name!r} is too long for its new ending; rename it")


def _above(folder: str) -> Iterator[str]:
    """A folder and those above it."""
    while folder:
        yield folder
        folder = posixpath.dirname(folder)


def by_name(annotations: Sequence[Path]) -> dict[str, Path]:
    """Annotation files under the names that they will have in the result, in their order.

    Raises:
        ConfigError: two have one name, or one has a name that the job needs.
    """
    # Sorted, for the numbers of images follow it, however a command lists them.
    named = {path.name: path for path in sorted(annotations, key=lambda path: path.name)}
    if len(named) != len(annotations):
        raise ConfigError(
            "two annotation files have the same name; they would overwrite each other in --out"
        )
    for name in RESERVED:
        if name in named:
            raise ConfigError(
                f"an annotation file is named {name}, which the job needs for itself; rename it"
            )
    return named


class _Masks(msgspec.Struct, gc=False):
    file_name: str | None = None


class _Panoptic(msgspec.Struct):
    annotations: list[_Masks] = []


def panoptic_masks(path: Path) -> list[str]:
    """The PNG files that a panoptic annotation file names; of any other kind of file, none."""
    with coco.opened(path) as text:
        if text.find(b'"segments_info"') < 0:
            return []
    names = (entry.file_name for entry in coco.read(path, _Panoptic).annotations)
    return list(dict.fromkeys(name for name in names if name is not None))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Which entries of two records are not alike, for a message."""
    now = json.loads(json.dumps(now))
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
