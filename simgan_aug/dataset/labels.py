"""The labels of a job's images: found at once, decoded when their image is at hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from simgan_aug import coco
from simgan_aug.errors import DataError


class _Files(msgspec.Struct):
    images: list[coco.CocoImage]
    annotations: list[msgspec.Raw] = []
    categories: list[coco.Category] = []


class _Owner(msgspec.Struct, gc=False):
    image_id: coco.Id


class Labels:
    """Annotations of COCO files by the name of their image.

    They stay in the files, which are mapped into memory: some hundred bytes of each are held.

    Args:
        paths: COCO files; they may share images.

    Raises:
        DataError: a file cannot be read, or is no COCO file.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._raw: dict[str, list[msgspec.Raw | coco.Annotation]] = {}
        self.categories: dict[coco.Id, str] = {}
        """Names by id; of an id that two files name differently, the first."""
        for path in paths:
            try:
                self._index(path)
            except (msgspec.DecodeError, UnicodeDecodeError):  # NaN, a BOM; or damaged
                self._read(path)

    def of(self, name: str) -> str:
        """The annotations of an image as a list in JSON, for `decoded`; they may be no good."""
        found = (
            msgspec.json.encode(raw) if isinstance(raw, coco.Annotation) else bytes(raw)
            for raw in self._raw.get(name, ())
        )
        return f"[{b','.join(found).decode('utf-8', 'replace')}]"

    def _index(self, path: Path) -> None:
        listed = msgspec.json.decode(coco.mapped(path), type=_Files)
        names = {image.id: image.file_name for image in listed.images}
        self._name(listed.categories)
        for raw in listed.annotations:
            owner = names.get(_OWNERS.decode(raw).image_id)
            if owner is not None:
                self._raw.setdefault(owner, []).append(raw)

    def _read(self, path: Path) -> None:
        names = {image.id: image.file_name for image in coco.read_images(path)}
        labels = coco.read_labels(path)
        for id, name in labels.categories.items():
            self.categories.setdefault(id, name)
        for image, some in labels.by_image.items():
            if image in names:
                self._raw.setdefault(names[image], []).extend(some)

    def _name(self, categories: list[coco.Category]) -> None:
        for category in categories:
            self.categories.setdefault(category.id, category.name)


def decoded(labels: str) -> list[coco.Annotation]:
    """What `Labels.of` has given.

    Raises:
        DataError: an annotation has parts of other types than COCO's.
    """
    try:
        return _DECODER.decode(labels)
    except msgspec.DecodeError as error:
        raise DataError(f"an annotation cannot be read: {error}") from None


_DECODER = msgspec.json.Decoder(list[coco.Annotation])
_OWNERS = msgspec.json.Decoder(_Owner)
