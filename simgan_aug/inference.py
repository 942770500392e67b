"""The one way from synthetic to refined pixels: what seeds draw; `simgan_aug.refining` computes."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from simgan_aug import noise, refining, tone
from simgan_aug.backends import Backend, backend_of
from simgan_aug.bank import SIDE, Bank
from simgan_aug.config import Tone
from simgan_aug.devices import one_thread_after_fork, uploaded
from simgan_aug.errors import ConfigError, ImageError
from simgan_aug.graphs import Replayed, is_recordable
from simgan_aug.pixels import Image, Pixels
from simgan_aug.refining import Refining
from simgan_aug.rows import in_batches


class ImageRefiner:
    """Refines images: texture, and the tone of a real photo; one image, one seed, one result.

    It holds a network and is no `nn.Module`, so that no host's `parameters()` or `state_dict()`
    finds it.

    Args:
        network: a refiner; see `simgan_aug.networks.contract`.
        channels: colour channels that the network takes.
        bank: tones of real photos; None: no tone step, no reference.
        match: when each image is matched to its tone: "after" the network, "before" it, or
            "never", and only a network that takes a reference sees the tone.
        share: of the match after the network, drawn from this range per image by its seed, times
            the reach of the bank.
        device: "auto" is CUDA where there is one, else the CPU; or what `torch.device` takes.
        max_workspace_mb: activations held at once, in MiB; larger images are cut into tiles with a
            halo, which changes no grey level (of 255); in bf16 now and then one.
        precision: "fp32"; "bf16", at most one grey level apart (two of a refiner that turns colours
            into others) and several times as fast on a GPU and on a CPU with AMX; or "auto": bf16
            on these, else fp32. A match after the network enlarges what is apart as it enlarges
            contrast.
        backend: what runs the network: a name of `simgan_aug.backends`, or one that is made.
        white: level of uint16 images that the network is shown as white; 0: 65535.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        bank: Bank | None = None,
        match: str = "after",
        share: tuple[float, float] = (0.5, 1.0),
        *,
        device: str | torch.device = "auto",
        max_workspace_mb: int = 1024,
        precision: str = "auto",
        backend: str | Backend = "torch",
        white: int = 0,
    ) -> None:
        Tone(match=match, share=share)  # refuses what is neither
        self.network: nn.Module = network.eval().requires_grad_(False)
        if isinstance(backend, str):
            backend = backend_of(backend, network, device, precision)
        self.backend: Backend = backend
        self.device, self.precision = backend.device, backend.precision
        self.channels = channels
        self.bank = bank
        self.match, self.share = match, share
        self.white = white
        self.max_workspace_mb = max_workspace_mb
        self._refining = Refining(network, backend, bank, match, max_workspace_mb)
        recorded = is_recordable(network) and is_recordable(backend)
        self._replayed = Replayed(self.device, is_repeatable=True) if recorded else None
        self._looked = False  # whether the range of floats on a GPU has been checked, once
        self.provenance: dict[str, Any] = {}
        """Where the weights come from; filled by `load`."""

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "auto",
        max_workspace_mb: int = 1024,
        precision: str = "auto",
        backend: str | os.PathLike[str] = "torch",
    ) -> ImageRefiner:
        """The refiner of a checkpoint, by its path or by the name under which a plugin ships it.

        Args:
            path: of the file, or a name.
            device, max_workspace_mb, precision: see the class.
            backend: a name of `simgan_aug.backends`, or a folder that `simgan-aug export
                --to openvino` has made of this refiner, whose precision it has.

        Raises:
            CheckpointError: the file is missing, damaged, of another version, or needs an absent
                plugin; or the backend is a folder of another refiner.
            ConfigError: impossible settings.
            DependencyError: the backend's library is not installed.
        """
        from simgan_aug import checkpoint

        path = checkpoint.locate(path)
        loaded = checkpoint.load(path)
        refiner = cls(
            loaded.network,
            loaded.channels,
            loaded.bank,
            loaded.config.tone.match,
            loaded.config.tone.share,
            max_workspace_mb=max_workspace_mb,
            backend=backend_of(backend, loaded.network, device, precision, path),
            white=loaded.config.data.white,
        )
        refiner.provenance = loaded.provenance
        return refiner

    def __call__(
        self,
        image: Image,
        *,
        seed: int | Sequence[int] = 0,
        strength: float | Sequence[float] = 1.0,
        channel_order: str = "rgb",
    ) -> Image:
        """The refined image, of the layout, dtype, size and device that came.

        Args:
            image: see `simgan_aug.pixels.Pixels`; or a list of images of any sizes, answered by a
                list.
            seed: draws the noise and the photo whose tone is taken, per image; one int s for a
                batch or list means s, s + 1, and so on. Images of a batch, not of a list, that
                share a seed, as frames of a video do, share the photo.
            strength: 0 gives the image back, 1 all of the change; the change is blended linearly.
                One number, or one for each image of a batch or list.
            channel_order: "rgb", or "bgr" as OpenCV reads.

        Raises:
            ImageError: an image of another kind, or a seed or strength for each of more or fewer
                images.
            ConfigError: `strength` outside [0, 1], or another `channel_order`.
        """
        if isinstance(image, (list, tuple)):
            seeds, strengths = seeds_of(seed, len(image)), strengths_of(strength, len(image))
            return self._refine_list(image, seeds, strengths, channel_order)
        return self._refine(image, seed, strength, channel_order)

    @property
    def rounding(self) -> str:
        """All that its rounding depends on, beside weights, device and precision."""
        fused = "" if refining.kernels_for(self.device) is None else " fused"
        return f"{self.backend.identity}{fused}"

    def _refine_list(
        self,
        images: Sequence[Image],
        seeds: Sequence[int],
        strengths: Sequence[float],
        channel_order: str,
    ) -> list[Image]:
        def refine(some: Image, rows: list[int]) -> Image:
            drawn = [seeds[row] for row in rows], [strengths[row] for row in rows]
            return self._refine(some, *drawn, channel_order, is_batch=False)

        if self.device.type == "cuda":
            return in_batches(images, refine)
        return [refine(image, [row]) for row, image in enumerate(images)]

    def _refine(
        self,
        image: Image,
        seed: int | Sequence[int],
        strength: float | Sequence[float],
        channel_order: str,
        is_batch: bool = True,
    ) -> Image:
        one_thread_after_fork()
        # Floats on a GPU are looked at once only: each look waits for the GPU.
        look = not self._looked
        pixels = Pixels(image, self.channels, channel_order, white=self.white, look=look)
        self._looked = True
        count = pixels.shape[0]
        seeds, strengths = seeds_of(seed, count), strengths_of(strength, count)
        leading = leading_rows(seeds) if is_batch else list(range(count))

        def made(rows: slice) -> Tensor:
            part = pixels.part(rows, self.device)
            few = self._few(pixels, part, rows, leading)
            return self._refined(part, few, seeds[rows], strengths[rows])

        return pixels.gathered(map(made, self._refining.rows(*pixels.shape)))

    def _few(self, pixels: Pixels, part: Pixels, rows: slice, leading: list[int]) -> Tensor | None:
        """Of each image of a part, pixels of the one that tells its tone; None: none has to."""
        if self.bank is None or not self.bank.chooses:
            return None
        if leading[rows] == list(range(len(leading)))[rows]:  # itself, which is on the device
            return part.thinned(SIDE).native
        few = pixels.thinned(SIDE).native
        first = torch.tensor(leading[rows], device="cpu")
        return few.index_select(0, uploaded(first, few.device))

    def _refined(
        self, pixels: Pixels, few: Tensor | None, seeds: list[int], strengths: list[float]
    ) -> Tensor:
        """A part of a batch, as a tensor: what seeds draw, and all that a GPU may replay of it.

        Args:
            few: of each image, pixels that tell the tone by which it takes that of a photo; of all
                that have one seed, as frames of a video do, those of the first.
        """
        is_whole = all(strength == 1 for strength in strengths)

        @torch.no_grad()  # not inference_mode: a task network trains on what we return
        def made(native: Tensor, *drawn: Tensor | None) -> list[Tensor]:
            return [self._refining(pixels.of(native), *drawn)]

        numbers = torch.tensor(strengths, dtype=torch.float32, device="cpu")
        device, beside = self.device, self._refining.beside
        drawn = (
            (noise.keys(seeds) if self._refining.noise_channels else None, device),
            (None if self.bank is None else self.bank.drawn(seeds), beside),
            (few, beside),
            (self._shares(seeds), device),
            (None if is_whole else numbers, device),
        )
        there = [None if each is None else uploaded(each, where) for each, where in drawn]
        if self._replayed is None:
            return made(pixels.native, *there)[0]
        # A recording reads the weights where they lie now.
        place = [weight.data_ptr() for weight in islice(self.network.parameters(), 1)]
        return self._replayed(made, (pixels.kind, *place), pixels.native, *there)[0]

    def _shares(self, seeds: Sequence[int]) -> Tensor | None:
        """Of the match after the network, (N,); None: there is none."""
        if self.bank is None or self.match != "after":
            return None
        return tone.pick_shares(self.share, seeds) * self.bank.reach


def leading_rows(seeds: list[int]) -> list[int]:
    """Of each image the first that has its seed."""
    first: dict[int, int] = {}
    return [first.setdefault(seed, row) for row, seed in enumerate(seeds)]


def _is_one(value: Any) -> bool:
    """Whether it is one value for all images, a tensor of one number too."""
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return getattr(value, "ndim", 0) == 0 and not many


def seeds_of(seed: Any, count: int) -> list[int]:
    """A seed for each of `count` images: s, s + 1, and so on for one int s."""
    try:
        if _is_one(seed):
            first = operator.index(seed)
            return [first + number for number in range(count)]
        seeds = [operator.index(each) for each in seed]
    except TypeError:
        raise ConfigError(
            f"seed must be a whole number, or one for each image, got {seed!r}"
        ) from None
    if len(seeds) != count:
        raise ImageError(f"expected one seed for each of {count} images, got {len(seeds)}")
    return seeds


def strengths_of(strength: Any, count: int) -> list[float]:
    """A strength for each of `count` images: the same for all if it is one number."""
    try:
        each = [strength] * count if _is_one(strength) else strength
        strengths = [float(one) for one in each]
    except (TypeError, ValueError):
        raise ConfigError(
            f"strength must be a number in [0, 1], or one for each image, got {strength!r}"
        ) from None
    if len(strengths) != count:
        raise ImageError(f"expected one strength for each of {count} images, got {len(strengths)}")
    for value in strengths:
        if not 0 <= value <= 1:
            raise ConfigError(f"strength must lie in [0, 1], got {value}")
    return strengths
