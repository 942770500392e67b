"""Refine the images of a batch, between the collating of a loader and the training step."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simgan_aug import draws
from simgan_aug.audit import Guard
from simgan_aug.coco import Annotation
from simgan_aug.data.places import ID_KEYS, check_images, contents, find_ids, find_images, identity
from simgan_aug.devices import resolve_device
from simgan_aug.errors import ConfigError, DataError, PluginError
from simgan_aug.pixels import (
    Image,
    as_it_was,
    bytes_of,
    channels_last,
    check_channel_order,
)
from simgan_aug.rows import rows_of, with_rows
from simgan_aug.shared import Refiner, as_refiner, check_cache
from simgan_aug.variety import Form, Variety, check_probability, check_seed, identity_of


class BatchRefiner:
    """Refines the images of a batch as a loader collates it; annotations stay the same objects.

    Whether an image is refined, how strongly, and with which noise, depends on the seed, the epoch
    and the image's id alone: neither the order of arrival nor the number of workers matters.

    Args:
        refiner: path of a refiner file, a name under which a plugin ships one, or an
            `ImageRefiner`.
        p: probability of refining an image.
        strength: share of the change, in [0, 1]; or the two ends of a range to draw it from.
        key: where the images are. None: under the first of `places.KEYS` in a mapping, or in each
            of a list of mappings; the batch itself if it is a tensor; else the first element of a
            tuple or list. Or the key or index; or a function of the batch and of `refine` (images
            -> images) that returns the new batch, as it takes for a plain list of images.
        ids: what tells the images of a batch apart: a key, or a function from the batch to one int
            or str an image. None: the first of `places.ID_KEYS` in the batch, or in the targets
            beside its images; if there is none, a hash of each image's content, and for images on a
            GPU, whose content it would be slow to fetch, their number in the epoch.
        seed: of all draws.
        device: where to refine; see `SharedRefiner`.
        move: put the images on `device` first, and leave them there. False: they come out where
            they came in.
        precision: see `ImageRefiner`.
        backend: see `ImageRefiner.load`.
        channel_order: "rgb" or "bgr".
        variants: refined forms that one image has; 0: a new one in each epoch.
        cache: "memory" or a folder; needs `variants`. For images on a CPU.
        cache_mb: MiB that the cache holds at most.
        guard: take back what moved a label: "image", "label", or a `simgan_aug.audit.Guard`. It
            works on the CPU (images on a GPU are fetched for it) and costs more than refining
            does, up to ten times as much again for an image that fails.
        boxes: for the guard, a function from the batch to the boxes of each image, (N, 4) of x, y,
            width and height in px. None: cells of the image stand for labels.

    Raises:
        CheckpointError: there is no such refiner, or it cannot be used here.
        ConfigError: impossible settings.
    """

    def __init__(
        self,
        refiner: str | os.PathLike[str] | Refiner,
        p: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        *,
        key: str | int | Callable[[Any, Callable[[Image], Image]], Any] | None = None,
        ids: str | Callable[[Any], Sequence[Any]] | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
        move: bool = False,
        precision: str = "auto",
        backend: str | os.PathLike[str] = "torch",
        channel_order: str = "rgb",
        variants: int = 0,
        cache: str | os.PathLike[str] | None = None,
        cache_mb: int = 4096,
        guard: str | Guard | None = None,
        boxes: Callable[[Any], Sequence[Any]] | None = None,
    ) -> None:
        check_probability(p)
        check_channel_order(channel_order)
        check_cache(cache, variants)
        if cache is not None and move:
            raise ConfigError("a cache is of images on the CPU: leave out move, or the cache")
        self.variety = Variety(strength, variants)
        named = isinstance(refiner, (str, os.PathLike))
        self.refiner = as_refiner(
            refiner,
            device=device if named else "auto",  # of an open one it says where to `move`
            precision=precision,
            backend=backend,
            cache=cache,
            cache_mb=cache_mb,
        )
        self.p, self.key, self.ids, self.seed = p, key, ids, check_seed(seed)
        self.device, self.move, self.channel_order = device, move, channel_order
        self.guard = Guard(guard) if isinstance(guard, str) else guard
        if not isinstance(self.guard, Guard | None):
            raise ConfigError(f"guard must be 'image', 'label', a Guard or None, got {guard!r}")
        if boxes is not None and self.guard is None:
            raise ConfigError("boxes are for the guard: set guard='label' or 'image', or drop them")
        self.boxes = boxes
        self.guarded: Counter[str] = Counter()
        """What the guard did in this process: images it looked at ("images"), of which it has taken
        back a part ("blended") or all ("kept")."""
        self.epoch = 0
        self._arrived = 0  # images without an id in this epoch

    def set_epoch(self, epoch: int) -> None:
        """Draw anew: what is drawn for an image depends on the epoch."""
        self.epoch, self._arrived = epoch, 0

    def __call__(self, batch: Any) -> Any:
        """The batch with its images refined: a shallow copy; what came in is not changed.

        Args:
            batch: what `key` tells of, with images (B, C, H, W), or a list of (C, H, W) of any
                sizes; or numpy, channels last; uint8, or floats in [0, 1].

        Raises:
            DataError: the images or their ids are not where they are looked for.
            ImageError: images of another kind.
        """
        if callable(self.key):
            return self.key(batch, lambda images: self._refine(images, batch))
        images, put = find_images(batch, self.key)
        return put(self._refine(images, batch))

    def _refine(self, images: Any, batch: Any) -> Any:
        check_images(images, is_certain=self.key is not None)
        if self.move:
            images = _moved(images, resolve_device(self.device))
        if not len(images):
            return images
        drawn = self._drawn(self._identities(images, self._ids(batch)))
        if not drawn:
            return images
        rows, forms = list(drawn), list(drawn.values())
        refined = self.refiner(
            rows_of(images, rows),
            seed=[form.seed for form in forms],
            strength=[form.strength for form in forms],
            channel_order=self.channel_order,
        )
        if self.guard is not None:
            labels = None if self.boxes is None else self.boxes(batch)
            refined = self._guarded(self.guard, images, rows, refined, labels)
        return with_rows(images, rows, refined)

    def _guarded(
        self, guard: Guard, images: Any, rows: list[int], refined: Any, labels: Any
    ) -> Any:
        """The refined images as far as they pass."""
        boxes = None if labels is None else _annotations(labels, len(images))
        passed, acted = list(refined), False
        for place, row in enumerate(rows):
            # The order of channels, which luminance depends on, is that of RGB here.
            old, new = (self._seen(image) for image in (images[row], passed[place]))
            try:
                pixels, done = guard(old, new, None if boxes is None else boxes[row])
            except PluginError as error:  # of a gate, which knows only pixels
                raise PluginError(f"image {row} of the batch: {error}") from error
            self.guarded["images"] += 1
            if not done.is_untouched:
                self.guarded["blended" if done.strength else "kept"] += 1
                passed[place] = as_it_was(self._turned(pixels), like=passed[place])
                acted = True
        if not acted:
            return refined
        if isinstance(refined, (list, tuple)):
            return type(refined)(passed)
        if not isinstance(refined, Tensor):
            return np.stack(passed)
        whole = torch.stack(passed)  # of tv_tensors, which neither rows nor a stack of them are
        return whole if type(refined) is Tensor else whole.as_subclass(type(refined))

    def _seen(self, image: Any) -> np.ndarray[Any, Any]:
        return self._turned(channels_last(image))

    def _turned(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """From the order of channels that came to RGB, or back."""
        turn = self.channel_order == "bgr" and pixels.ndim == 3 and pixels.shape[2] in (3, 4)
        return np.take(pixels, [2, 1, 0, 3][: pixels.shape[2]], axis=2) if turn else pixels

    def _drawn(self, identities: list[int]) -> dict[int, Form]:
        """The rows that are refined, and to which forms."""
        count = len(identities)
        words = draws.keyed([self.seed] * count, [self.epoch] * count, identities)
        refined = draws.uniforms(words, draws.CHOICE) < self.p
        forms = self.variety.forms(words, identities)
        return {row: forms[row] for row in np.flatnonzero(refined).tolist()}

    def _ids(self, batch: Any) -> Sequence[Any] | None:
        if callable(self.ids):
            return self.ids(batch)
        if self.ids is None:
            found = (find_ids(batch, key) for key in ID_KEYS)
            return next((ids for ids in found if ids is not None), None)
        ids = find_ids(batch, self.ids)
        if ids is None:
            raise DataError(f"no ids under {self.ids!r} in the batch ({contents(batch)})")
        return ids

    def _identities(self, images: Any, ids: Sequence[Any] | None) -> list[int]:
        if ids is not None:
            if len(ids) != len(images):
                raise DataError(
                    f"expected an id for each of {len(images)} images, got {len(ids)}; say with "
                    "ids= where they are"
                )
            return [identity(each) for each in ids]
        if isinstance(images[0], Tensor) and images[0].device.type != "cpu":
            self._arrived += len(images)
            return list(range(self._arrived - len(images), self._arrived))
        return [identity_of([bytes_of(image).data]) for image in images]


def _annotations(labels: Any, count: int) -> list[list[Annotation]]:
    """The boxes of each image of a batch, as COCO would have them; None: there are none.

    Raises:
        DataError: they are of another number of images, or not four numbers each.
    """
    try:
        known = [() if some is None else _xywh(some) for some in labels]
        found = [[_annotation(box) for box in boxes] for boxes in known]
    except TypeError:
        raise DataError(f"expected the boxes of each of {count} images, got {labels!r}") from None
    if len(found) != count:
        raise DataError(f"expected the boxes of each of {count} images, got {len(found)}")
    return found


def _xywh(boxes: Any) -> Any:
    """Boxes; of torchvision's, which say what their numbers are, those of x, y, width, height."""
    form = getattr(getattr(boxes, "format", None), "value", "XYWH")
    if form != "XYWH":
        raise DataError(
            f"expected boxes of x, y, width and height, got {form}: convert them, "
            "v2.functional.convert_bounding_box_format(boxes, new_format='XYWH')"
        )
    return boxes


def _annotation(box: Any) -> Annotation:
    try:
        sides = [float(side) for side in box]
    except (TypeError, ValueError):
        sides = []
    if len(sides) != 4:
        raise DataError(f"expected boxes of x, y, width and height, got {box!r}")
    return Annotation(image_id=0, bbox=sides)


def _moved(images: Any, device: torch.device) -> Any:
    """Tensors on the device; arrays, which have none, as they are."""
    if isinstance(images, (list, tuple)):
        return type(images)(_moved(image, device) for image in images)
    return images.to(device, non_blocking=True) if isinstance(images, Tensor) else images
