"""What a job has to do: which images, under which names, from what, and whether that can work."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from simgan_aug import coco
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.imagefile import MAX_PIXELS, suffixed

INFO, REPORT = "run.json", "report.json"
"""Files that a job writes beside the annotations: what it is, and what came of it."""

FORMATS = ("keep", "png", "jpeg", "webp")
POLICIES = ("stop", "copy", "skip")


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
        for name, known in (("format", FORMATS), ("on_error", POLICIES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} must be one of {', '.join(known)}, got {vars(self)[name]!r}"
                )

    @property
    def result(self) -> dict[str, Any]:
        """Those of which the refined pixels are made; a job that goes on must have the same."""
        names = ("strength", "seed", "format", "quality")
        return {name: getattr(self, name) for name in names}

    @property
    def policy(self) -> str:
        """Those under which an image may fail; under others it is tried again."""
        return f"{self.on_error} {self.allow_size_mismatch} {self.max_pixels}"

    def output(self, name: str) -> str:
        """The name under which a refined image is written."""
        return name if self.format == "keep" else suffixed(name, self.format.upper())

    def seed_of(self, name: str) -> int:
        """What draws an image's noise and reference photo: its place in the folder decides."""
        key = f"{self.seed}/{posixpath.normpath(name)}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(key).digest()[:8])


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
            if _size(other) != _size(image) and not settings.allow_size_mismatch:
                raise DataError(
                    f"{image.file_name}: listed as {_size(other)} and, in {path}, as "
                    f"{_size(image)}; one of them is wrong (or: allow a size mismatch)"
                )
    if not listed:
        raise DataError(f"{', '.join(map(str, annotations))}: no images listed")
    _check_distinct(listed, settings)
    return list(listed.values())


def _size(image: coco.CocoImage) -> str:
    return f"{image.width}x{image.height}".replace(".0", "")


def _check_distinct(names: Iterable[str], settings: Settings) -> None:
    """Two names of one file, such as a.png and ./a.png, or a.jpg and a.bmp that become a.png."""
    taken: dict[str, str] = {}
    for name in names:
        output = posixpath.normpath(settings.output(name))
        if output in taken:
            raise DataError(
                f"{taken[output]!r} and {name!r} would both be written to images/{output}; "
                "rename one of them"
            )
        taken[output] = name


def by_name(annotations: Sequence[Path]) -> dict[str, Path]:
    """Annotation files under the names that they will have in the result.

    Raises:
        ConfigError: two have one name, or one has a name that the job needs.
    """
    named = {path.name: path for path in annotations}
    if len(named) != len(annotations):
        raise ConfigError(
            "two annotation files have the same name; they would overwrite each other in --out"
        )
    for name in (INFO, REPORT, "images"):
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
