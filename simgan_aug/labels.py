"""The labels of many images: found at once, decoded when their image is at hand."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
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
        only: names of the images whose labels are wanted; None: of all.

    Raises:
        DataError: a file cannot be read, or is no COCO file.
    """

    def __init__(self, paths: Iterable[Path], only: Container[str] | None = None) -> None:
        self._raw: dict[str, list[msgspec.Raw | coco.Annotation]] = {}
        self.categories: dict[coco.Id, str] = {}
        """Names by id; of an id that two files name differently, the first."""
        for path in paths:
            owned: Mapping[str, Sequence[msgspec.Raw | coco.Annotation]]
            try:
                owned = self._indexed(path)
            except (msgspec.DecodeError, UnicodeDecodeError):  # NaN, a BOM; or damaged
                owned = self._read(path)
            for owner, labels in owned.items():
                if only is None or owner in only:
                    self._raw.setdefault(owner, []).extend(labels)

    def of(self, name: str) -> str:
        """The annotations of an image as a list in JSON, for `decoded`; they may be no good."""
        found = (
            _encoded(raw) if isinstance(raw, coco.Annotation) else bytes(raw)
            for raw in self._raw.get(name, ())
        )
        return f"[{b','.join(found).decode('utf-8', 'replace')}]"

    def _indexed(self, path: Path) -> dict[str, list[msgspec.Raw]]:
        listed = msgspec.json.decode(coco.mapped(path), type=_Files)
        names = {image.id: image.file_name for image in listed.images}
        owned: dict[str, list[msgspec.Raw]] = {}
        for raw in listed.annotations:
            owner = names.get(_OWNERS.decode(raw).image_id)
            if owner is not None:
                owned.setdefault(owner, []).append(raw)
        self._name({category.id: category.name for category in listed.categories})
        return owned

    def _read(self, path: Path) -> dict[str, list[coco.Annotation]]:
        names = {image.id: image.file_name for image in coco.read_images(path)}
        labels = coco.read_labels(path)
        self._name(labels.categories)
        owned: dict[str, list[coco.Annotation]] = {}
        for image, some in labels.by_image.items():
            if image in names:
                owned.setdefault(names[image], []).extend(some)
        return owned

    def _name(self, categories: Mapping[coco.Id, str]) -> None:
        for id, name in categories.items():
            self.categories.setdefault(id, name)


def decoded(labels: str) -> list[coco.Annotation]:
    """What `Labels.of` has given.

    Raises:
        DataError: an annotation has parts of other types than COCO's.
    """
    try:
        return _DECODER.decode(labels)
    except msgspec.DecodeError as error:
        raise DataError(f"an annotation cannot be read: {error}") from None


def _encoded(annotation: coco.Annotation) -> bytes:
    try:
        return msgspec.json.encode(annotation)
    except UnicodeEncodeError:  # a lone surrogate, which `decoded` is to complain of
        return json.dumps(msgspec.to_builtins(annotation)).encode()


_DECODER = msgspec.json.Decoder(list[coco.Annotation])
_OWNERS = msgspec.json.Decoder(_Owner)
