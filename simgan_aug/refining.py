"""The arithmetic of refining: what the network is shown, what it adds, and the tone of the sum."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from simgan_aug import noise, tone
from simgan_aug.backends import Backend
from simgan_aug.bank import Bank
from simgan_aug.errors import ConfigError, DependencyError, ImageError
from simgan_aug.networks.contract import halo, memory_per_pixel
from simgan_aug.pixels import Pixels
from simgan_aug.tiles import Box, Tile, tiled, whole


class Refining:
    """Computes refined pixels on a backend's device, waiting for nothing.

    Args:
        network: a refiner; see `simgan_aug.networks.contract`.
        backend: what runs it.
        bank: tones of real photos; None: no tone step, no reference.
        match: when images are matched to tones: "after" the network, "before" it, or "never".
        max_workspace_mb: activations held at once, in MiB.

    Raises:
        ConfigError: less than 1 MiB.
    """

    def __init__(
        self,
        network: nn.Module,
        backend: Backend,
        bank: Bank | None,
        match: str,
        max_workspace_mb: int,
    ) -> None:
        if max_workspace_mb < 1:
            raise ConfigError(f"max_workspace_mb must be 1 or more, got {max_workspace_mb}")
        self._network, self._backend, self._match = network, backend, match
        self._workspace_mb = max_workspace_mb
        on_gpu = backend.device.type == "cuda"
        self.beside: torch.device = backend.device if on_gpu else torch.device("cpu")
        """Where photos are picked: in float64, which not all other devices have."""
        self._bank = None if bank is None else bank.to(self.beside)
        self.noise_channels = int(getattr(network, "noise_channels", 0))

    def rows(self, count: int, height: int, width: int) -> Iterator[slice]:
        """Slices of a batch that fit into the workspace together."""
        size = max(1, self._budget() // (height * width))
        return (slice(start, start + size) for start in range(0, count, size))

    def __call__(
        self,
        pixels: Pixels,
        keys: Tensor | None,
        photos: Tensor | None,
        few: Tensor | None,
        shares: Tensor | None,
        strengths: Tensor | None,
    ) -> Tensor:
        """A part of a batch refined; the tone is that of what is seen.

        Args:
            pixels: of the part.
            keys: of the noise of each image.
            photos: what draws the photo whose tone each image takes; see `Bank.drawn`.
            few: some pixels of what is to tell each image's own tone, native as of `pixels`; None
                will do where that does not count (`Bank.chooses`).
            shares: of the match after the network, (N,).
            strengths: (N,); None: all of the change.

        Raises:
            ImageError: images do not fit into the workspace and cannot be tiled.
        """
        references = self._references(pixels, photos, few)
        fused = kernels_for(self._backend.device) if self._may_fuse(pixels) else None
        if fused is not None and fused.takes(pixels.native):
            return self._fused(fused, pixels, keys, references, shares, strengths)
        colour, seen = pixels.colour().to(self._backend.device), pixels.seen()
        if seen is not None:
            seen = seen.to(self._backend.device)
        change = self._drawn(colour, references, keys, seen)
        if references is not None and shares is not None:
            if pixels.has_levels:
                toned = self._matched(pixels.levels(change), references, shares, seen)
                if strengths is None:
                    return cast(Tensor, pixels.with_colours(toned))
                change = toned.float().div_(255).sub_(colour)
            else:
                refined = change.add_(colour).nan_to_num_(0).clamp_(0, 1)
                change = self._matched(refined, references, shares, seen).sub_(colour)
        if strengths is not None:
            change.mul_(strengths[:, None, None, None])
        return cast(Tensor, pixels.add(change))

    def _references(
        self, pixels: Pixels, photos: Tensor | None, few: Tensor | None
    ) -> Tensor | None:
        """The tones that images take, (N, C, Q) on the backend's device, by what they show before
        they are refined: levels are exact, so that no precision or device takes another photo."""
        if self._bank is None or photos is None:
            return None
        own = None
        if few is not None:
            shown = pixels.of(few)
            own = tone.tones_of(shown.colour(), shown.seen())
        return self._bank.pick(photos, own).to(self._backend.device)

    def _may_fuse(self, pixels: Pixels) -> bool:
        """Whether nothing but the network comes between what kernels begin with and end with."""
        _, height, width = pixels.shape
        if self._bank is not None and self._bank.channels != pixels.native.shape[1]:
            return False
        return self._match != "before" and pixels.is_plain and height * width <= self._budget()

    def _fused(
        self,
        kernels: Any,
        pixels: Pixels,
        keys: Tensor | None,
        references: Tensor | None,
        shares: Tensor | None,
        strengths: Tensor | None,
    ) -> Tensor:
        """The same by `simgan_aug.kernels`."""
        native, known = pixels.native, None if references is None else references * 2 - 1
        shown, grain = kernels.begin(native, keys, self.noise_channels)
        change, curves = self._backend.added(shown, grain, known), None
        if references is not None and shares is not None:
            counts = kernels.histograms(native, change)
            curve = tone.shared_curves(counts, references, shares)
            curves = curve, tone.gain(curve.flatten(0, 1))
        made = kernels.finish(native, change, curves, strengths)
        return cast(Tensor, pixels.with_colours(made))

    def _drawn(
        self,
        colour: Tensor,
        references: Tensor | None,
        keys: Tensor | None,
        seen: Tensor | None,
    ) -> Tensor:
        """What the network adds to (N, C, H, W) in [0, 1], and a match before it."""
        toned = colour
        if references is not None and self._match == "before":
            toned = self._matched(colour, references, references.new_ones(len(colour)), seen)
        # For whole images: neither device nor tiles change the result.
        size = (self.noise_channels, *colour.shape[2:])
        grain = None if keys is None else noise.of_keys(keys, size)
        change = self._texture(toned, references, grain)
        if toned is not colour:
            change.add_(toned).sub_(colour)
        return change

    def _texture(self, toned: Tensor, references: Tensor | None, grain: Tensor | None) -> Tensor:
        """What the network adds, tile by tile."""
        known = None if references is None else references * 2 - 1

        def added(outer: Box) -> Tensor:
            inputs = (toned[..., *outer] * 2).sub_(1).contiguous(memory_format=torch.channels_last)
            seen = None if grain is None else grain[..., *outer]
            change = self._backend.added(inputs, seen, known)  # in units of [-1, 1]
            _check_numbers(change)
            return change.div_(2).clamp_(-1, 1)

        tiles = self._tiles(*toned.shape[2:])
        if len(tiles) == 1:
            return added(tiles[0].seen)
        change = torch.empty_like(toned)
        for tile in tiles:
            change[..., *tile.place] = added(tile.seen)[..., *tile.inner]
        return change

    def _matched(
        self, images: Tensor, references: Tensor, shares: Tensor, seen: Tensor | None
    ) -> Tensor:
        """The images, as `tone.matched` takes them, in these tones, each by its share; channels
        beyond those of the tones stay."""
        toned = references.shape[1]
        if toned < images.shape[1]:
            colours = self._matched(images[:, :toned], references, shares, seen)
            return torch.cat([colours, images[:, toned:]], dim=1)
        if images.is_cuda:  # all at once; a CPU has one image at a time in its cache
            return tone.matched_together(images, references, shares, seen)
        masks = [None] * len(images) if seen is None else list(seen)
        each = zip(images, references, shares.tolist(), masks, strict=True)
        matched = [tone.matched(*one) for one in each]
        return matched[0][None] if len(matched) == 1 else torch.stack(matched)

    def _tiles(self, height: int, width: int) -> list[Tile]:
        """What covers an image; itself, where it fits into the workspace."""
        if height * width <= self._budget():
            return whole(height, width)
        margin = halo(self._network)
        if margin is None:
            raise ImageError(
                f"a {width}x{height} image needs more than {self._workspace_mb} MiB and this "
                "refiner declares no receptive_field, so it cannot be tiled; raise max_workspace_mb"
            )
        return tiled(height, width, margin, self._budget(), getattr(self._network, "multiple", 1))

    def _budget(self) -> int:
        """Pixels whose activations fit into the workspace."""
        return max(1, self._workspace_mb * 2**20 // memory_per_pixel(self._network))


def _check_numbers(change: Tensor) -> None:
    """Reject what a network adds on a CPU, if it is not a number: a pixel would be black.

    A GPU would have to be waited for.

    Raises:
        ImageError: there are such.
    """
    if change.device.type != "cpu" or math.isfinite(change.sum(dtype=torch.float32).item()):
        return
    if change.isnan().any():
        raise ImageError(
            "what the network adds to an image is not a number (NaN): hold it to "
            "simgan_aug.testing.check_refiner, or take an earlier checkpoint"
        )


@functools.cache
def kernels_for(device: torch.device) -> Any:
    """`simgan_aug.kernels`, if they run on this device; None: torch's own operations are to do.

    On a GPU where Triton is installed and does not work, a warning says why.
    """
    if device.type != "cuda":
        return None
    try:
        from simgan_aug import kernels

        kernels.probe(device)
    except DependencyError:
        return None
    except torch.OutOfMemoryError:
        raise  # says nothing of Triton
    except Exception as error:  # it compiles C and asks for the driver: anything may be missing
        warnings.warn(
            f"Triton does not work here ({type(error).__name__}: {error}), so that refining on "
            f"{device} takes up to twice as long",
            stacklevel=2,
        )
        return None
    return kernels
