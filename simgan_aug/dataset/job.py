"""The refine job in its plain form: one process, every file whole or absent, annotations last.

OUT/images/<file_name>   refined, under the names and in the formats that they had
OUT/<annotations>.json   byte for byte, and only when every image is there
OUT/run.json             what the images were made from; the same job goes on, another is refused
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from simgan_aug import coco
from simgan_aug.errors import ConfigError, DataError, ImageError
from simgan_aug.folders import check_apart, check_writable
from simgan_aug.files import write_atomically
from simgan_aug.imagefile import encode_image, read_image
from simgan_aug.inference import ImageRefiner

INFO = "run.json"


@dataclass(frozen=True)
class Summary:
    """What a job did."""

    refined: int
    """Images written now."""
    present: int
    """Images that an earlier run had written."""
    seconds: float
    """Time taken."""


class RefineJob:
    """A planned job: everything that can be checked before the first image is refined has been.

    Args:
        annotations: COCO files; they may share images. Their base names must differ.
        images: folder that `file_name`s are relative to; it is only read.
        refiner: checkpoint.
        out: folder of the result, apart from `images`; new, empty, or of an interrupted run of
            the same job.
        strength: share of the change, in [0, 1].
        seed: with an image's name it draws that image's noise and reference photo.
        device: "auto" or what `torch.device` takes.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        SimganAugError: an annotation file, an image, the refiner or the folder cannot be used.
    """

    def __init__(
        self,
        annotations: Sequence[Path],
        images: Path,
        refiner: Path,
        out: Path,
        *,
        strength: float = 1.0,
        seed: int = 0,
        device: str = "auto",
        quality: int = 95,
    ) -> None:
        if not 0 <= strength <= 1:
            raise ConfigError(f"strength must lie in [0, 1], got {strength}")
        if not 1 <= quality <= 100:
            raise ConfigError(f"quality must lie in [1, 100], got {quality}")
        self.images, self.out = images, out
        self.strength, self.seed, self.quality = strength, seed, quality
        check_apart(images, out)
        check_writable(out)
        self.annotations = _by_name(annotations)
        self.planned = _plan(annotations, images)
        # Not bf16, which not every machine of a job rounds alike.
        self.refiner = ImageRefiner.load(refiner, device, precision="fp32")
        self.info = {
            "annotations": {name: _sha256(path) for name, path in self.annotations.items()},
            "refiner": {"sha256": _sha256(refiner), "provenance": self.refiner.provenance},
            "settings": {"strength": strength, "seed": seed, "quality": quality},
            "images": len(self.planned),
            "simgan_aug": metadata.version("simgan-aug"),
        }
        self._check_out()

    def run(self) -> Iterator[str]:
        """Refine what is not there yet; yields each image's name when its file is in place.

        Stopping the iteration leaves a folder that a later run completes.

        Raises:
            ImageError: an image is unreadable, of a wrong size or of a kind not taken.
            OutputError: a file cannot be written.
        """
        write_atomically(self.out / INFO, _json(self.info))
        for image in self.remaining():
            target = self._target(image)
            write_atomically(target, self._refined(image))
            yield image.file_name
        for name, path in self.annotations.items():
            write_atomically(self.out / name, path.read_bytes())

    def remaining(self) -> list[coco.CocoImage]:
        """Images without a file in the result; files appear whole, so one that is there is done."""
        return [image for image in self.planned if not self._target(image).exists()]

    def _target(self, image: coco.CocoImage) -> Path:
        return coco.inside(self.out / "images", image.file_name)

    def _refined(self, image: coco.CocoImage) -> bytes:
        path = coco.inside(self.images, image.file_name)
        source = read_image(path)
        coco.check_size(image, *source.pixels.shape[:2])
        digest = hashlib.sha256(
            f"{self.seed}/{image.file_name}".encode("utf-8", "surrogatepass")
        ).digest()
        try:
            pixels = self.refiner(
                source.pixels, seed=int.from_bytes(digest[:8]), strength=self.strength
            )
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None
        return encode_image(replace(source, pixels=pixels), self.quality)

    def _check_out(self) -> None:
        if not self.out.exists():
            return
        try:
            before = json.loads((self.out / INFO).read_text())
        except (OSError, ValueError):
            before = None
        if before is None and any(self.out.iterdir()):
            raise ConfigError(
                f"{self.out} is not empty and holds no refine run; choose another --out"
            )
        if before is not None and before != json.loads(_json(self.info)):
            raise ConfigError(
                f"{self.out} was begun with another refiner, other annotations or settings; "
                "choose another --out"
            )


def refine(
    annotations: Sequence[Path], images: Path, refiner: Path, out: Path, **settings: Any
) -> Summary:
    """Refine a COCO data set; see `RefineJob` for arguments and errors."""
    job = RefineJob(annotations, images, refiner, out, **settings)
    began, present = time.monotonic(), len(job.planned) - len(job.remaining())
    refined = sum(1 for _ in job.run())
    return Summary(refined, present, time.monotonic() - began)


def _plan(annotations: Sequence[Path], images: Path) -> list[coco.CocoImage]:
    """The unique images of all files; all of them must be there."""
    listed = {image.file_name: image for path in annotations for image in coco.read_images(path)}
    if not listed:
        raise DataError(f"{', '.join(map(str, annotations))}: no images listed")
    coco.check_present(listed.values(), images)
    return list(listed.values())


def _by_name(annotations: Sequence[Path]) -> dict[str, Path]:
    named = {path.name: path for path in annotations}
    if len(named) != len(annotations):
        raise ConfigError(
            "two annotation files have the same name; they would overwrite each other in --out"
        )
    if INFO in named:
        raise ConfigError(
            f"an annotation file is named {INFO}, which the job needs for itself; rename it"
        )
    return named


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(info: dict[str, Any]) -> bytes:
    return (json.dumps(info, indent=2) + "\n").encode()
