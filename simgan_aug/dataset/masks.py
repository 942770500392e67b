"""Panoptic PNG files: they hold ids, not colours, and are copied as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from simgan_aug.dataset.journal import Writer
from simgan_aug.dataset.plan import RESERVED, panoptic_masks
from simgan_aug.dataset.storage import Folder, LocalFolder, sha256
from simgan_aug.errors import ConfigError, DataError

Masks = dict[str, tuple[LocalFolder, str]]
"""By the name in the result: the folder and the name there."""


def find_masks(annotations: Mapping[str, Path], panoptic: Path | None) -> Masks:
    """The PNG files of the panoptic ones among annotation files.

    Args:
        annotations: by the name in the result.
        panoptic: their folder; None: beside each annotation file, of its name without .json.

    Raises:
        DataError: not all of them are there.
        ConfigError: their folder would have a name that the job needs for itself.
    """
    found = {}
    for name, path in annotations.items():
        wanted = panoptic_masks(path)
        folder = LocalFolder(panoptic or path.with_suffix(""))
        if wanted and (not folder.path.is_dir() or folder.missing(wanted)):
            raise DataError(
                f"{name} is panoptic, but not all of its PNG files are in {folder}; say with "
                "--panoptic where they are"
            )
        below = Path(name).with_suffix("").name
        if wanted and below in RESERVED:
            raise ConfigError(
                f"the PNG files of {name} would be written to {below}, which the job needs for "
                "itself; rename it"
            )
        found.update({f"{below}/{mask}": (folder, mask) for mask in wanted})
    return found


def copy_masks(masks: Masks, target: Folder, writer: Writer, present: Collection[str]) -> None:
    """Copy those of which the journals do not say that they are there.

    Raises:
        OutputError: one cannot be written.
    """
    for output, (folder, name) in masks.items():
        if output not in present:
            target.write(output, folder.parts(name), sync=True)
            writer.add(mask=output, sha256=sha256(folder, name), size=folder.size(name))
