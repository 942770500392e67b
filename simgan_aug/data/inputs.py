"""What a run is told of its data, and how `run.json` keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simgan_aug.data.addresses import place
from simgan_aug.data.listings import Origin
from simgan_aug.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the two sides of a run lie.

    Raises:
        ConfigError: weights that do not fit the places.
    """

    annotations: Path | str
    """COCO file of the synthetic images; or what else `Origin` takes, without labels."""
    images: Path | str
    """Folder that the `file_name`s of a COCO file are relative to; of an address the address."""
    real: Path | str
    """Folder of real photos, or what else `Origin` takes; labels are never read."""
    more_synthetic: tuple[Origin, ...] = ()
    """Further places of synthetic images."""
    more_real: tuple[Origin, ...] = ()
    """Further places of real photos."""
    synthetic_weights: tuple[float, ...] = ()
    """How often each place is drawn from, `annotations` first, in any unit; (): every image of the
    side is as likely as any other."""
    real_weights: tuple[float, ...] = ()
    """The same of real photos, `real` first."""

    def __post_init__(self) -> None:
        """Tell addresses from paths; reject weights that do not fit."""
        for name in ("annotations", "images", "real"):
            object.__setattr__(self, name, place(getattr(self, name)))
        for side in ("synthetic", "real"):
            weights, places = (
                getattr(self, f"{side}_weights"),
                len(getattr(self, f"{side}_origins")),
            )
            if weights and len(weights) != places:
                raise ConfigError(
                    f"{len(weights)} weights for {places} places of {side} images: give one for "
                    f"each --{side}, in the same order, or none"
                )
            if not all(0 < weight < float("inf") for weight in weights):
                raise ConfigError(f"weights of {side} images must be above 0, got {weights}")

    @classmethod
    def of(
        cls,
        synthetic: Sequence[Path | str],
        images: Sequence[Path],
        real: Sequence[Path | str],
        **weights: tuple[float, ...],
    ) -> Inputs:
        """Inputs of one or more places a side; `images` are of the COCO files in their order.

        Raises:
            ConfigError: another number of `images` than of COCO files, or as the class.
            DataError: a COCO file cannot be read.
        """
        origins = [Origin(where=place) for place in synthetic]
        files = [number for number, origin in enumerate(origins) if origin.kind == "coco"]
        if images and len(images) != len(files):
            raise ConfigError(
                f"{len(images)} --images for {len(files)} COCO files: give one for each, in the "
                "order of --synthetic, or none"
            )
        for number, folder in zip(files, images, strict=False):
            origins[number] = Origin(where=origins[number].where, images=folder)
        first = origins[0]
        return cls(
            annotations=first.where,
            images=[*first.image_folders(), first.where][0],
            real=real[0],
            more_synthetic=tuple(origins[1:]),
            more_real=tuple(Origin(where=place) for place in real[1:]),
            **weights,
        )

    def moved(
        self, synthetic: Sequence[Path | str], images: Sequence[Path], real: Sequence[Path | str]
    ) -> Inputs:
        """The same data at other places; what is not given has stayed where it was."""
        if not (synthetic or images or real):
            return self
        origins = self.synthetic_origins
        return Inputs.of(
            synthetic or [origin.where for origin in origins],
            images or [folder for origin in origins for folder in origin.image_folders()],
            real or [origin.where for origin in self.real_origins],
            synthetic_weights=self.synthetic_weights,
            real_weights=self.real_weights,
        )

    @property
    def synthetic_origins(self) -> tuple[Origin, ...]:
        """All places of synthetic images."""
        folder = None if isinstance(self.images, str) else self.images
        return Origin(where=self.annotations, images=folder), *self.more_synthetic

    @property
    def real_origins(self) -> tuple[Origin, ...]:
        """All places of real photos."""
        return Origin(where=self.real), *self.more_real

    @property
    def taken_for_both(self) -> list[Path]:
        """Folders whose images are drawn as synthetic ones and as real ones; not of patterns."""
        photos, whole = (
            [Path(each.where) for each in side if each.kind == "folder"]
            for side in (self.real_origins, self.synthetic_origins)
        )
        listed = [folder for each in self.synthetic_origins for folder in each.image_folders()]
        among = [folder for folder in listed + whole if _lies_in(folder, photos)]
        return among or [folder for folder in photos if _lies_in(folder, whole)]

    def to_builtins(self) -> dict[str, Any]:
        """Plain JSON values, paths in full; what is not used is left out, as older runs have it."""
        found: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Path | str):
                found[name] = _in_full(value)
            elif value:
                found[name] = [_plain(each) for each in value]
        return found

    @classmethod
    def from_builtins(cls, raw: Mapping[str, Any]) -> Inputs:
        """The inverse of `to_builtins`.

        Raises:
            TypeError, ValueError, KeyError: the values are none of ours.
        """
        found: dict[str, Any] = {}
        for name, value in raw.items():
            if name.startswith("more_"):
                found[name] = tuple(_origin(each) for each in value)
            elif name.endswith("_weights"):
                found[name] = tuple(float(each) for each in value)
            else:
                found[name] = value
        return cls(**found)


def _lies_in(folder: Path, others: Sequence[Path]) -> bool:
    return any(folder.resolve().is_relative_to(other.resolve()) for other in others)


def _plain(value: Origin | float) -> Any:
    if isinstance(value, float | int):
        return value
    paths = dataclasses.asdict(value)
    return {name: path and _in_full(path) for name, path in paths.items()}


def _in_full(where: Path | str) -> str:
    """A path from the root on; an address is what it is."""
    return where if isinstance(where, str) else str(where.resolve())


def _origin(raw: Mapping[str, Any]) -> Origin:
    images = raw.get("images")
    return Origin(where=str(raw["where"]), images=images and Path(images))
