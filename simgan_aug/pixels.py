"""The only place that knows layouts, value ranges, dtypes and alpha.

`Pixels` takes an image as the user holds it and shows it to a refiner as (N, C, H, W) float32 in
[0, 1]. A refiner answers with a *change*, and `Pixels.add` adds that change to the exact original
values: a change of zero gives back every bit, whatever the dtype.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Iterable
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor

from simgan_aug.errors import ConfigError, ImageError

Image = Any  # np.ndarray | Tensor; the public annotation of what goes in and comes out alike

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""

_HIGHEST: dict[torch.dtype, float] = {torch.uint8: 255.0, torch.uint16: 65535.0} | dict.fromkeys(
    (torch.float16, torch.bfloat16, torch.float32, torch.float64), 1.0
)
"""What the values of a dtype reach."""


class Pixels:
    """One image, or a batch of equal sizes, seen as (N, C, H, W).

    numpy arrays are (H, W), (H, W, C) or (N, H, W, C); tensors are (H, W), (C, H, W) or
    (N, C, H, W). Integers are uint8 or uint16, floats lie in [0, 1].

    Channels, for a refiner of `channels` channels: as many; one more than 1 or 3, which is alpha
    and is kept; and, for a refiner of 3, a grey image (with or without alpha), which is shown as
    three equal channels and receives the luminance (BT.601) of the change. All else is an error,
    above all a colour image for a refiner of 1, where any rule would be a guess.

    Args:
        image: as above; a tensor's subclass (torchvision's `tv_tensors.Image`) is kept.
        channels: of the refiner.
        channel_order: "rgb", or "bgr" as OpenCV reads; of the three colours of an image, if it has
            three, and of the first three of four channels.
        white: level of uint16 that is shown as 1, as are higher ones; 0: 65535. A change is in
            units of it, and what it is added to may lie above.
        look: whether to hold floats on a GPU against [0, 1], which waits for the GPU; on a CPU it
            is always done.

    Raises:
        ImageError: a type, shape, dtype, range or number of channels outside of these.
        ConfigError: another `channel_order`.
    """

    def __init__(
        self,
        image: Image,
        channels: int,
        channel_order: str = "rgb",
        *,
        white: int = 0,
        look: bool = False,
    ) -> None:
        check_channel_order(channel_order)
        self._image = image
        self._native = _to_nchw(image)  # (N, K, H, W) in the dtype that came
        self._scale = _scale(self._native, white, look)
        self._colours, self._grey = _split(self._native.shape[1], channels)
        self._channels = channels
        self._reversed = channel_order == "bgr" and self._colours in (3, 4)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images, height and width."""
        return self._native.shape[0], self._native.shape[2], self._native.shape[3]

    def part(self, rows: slice, device: torch.device) -> Pixels:
        """Some images of the batch, as a tensor (N, K, H, W) of its own.

        A CUDA device gets them as they are: a uint8 is a fourth of a float32. From page-locked
        memory it fetches them by itself. For any other device they stay where they are.
        """
        part = copy.copy(self)
        part._native = self._native[rows]
        if device.type == "cuda":
            part._native = part._native.to(device, non_blocking=True)
        part._image = part._native
        return part

    @property
    def kind(self) -> Hashable:
        """All that tells how its values are seen, beside their shape and dtype."""
        return self._scale, self._colours, self._channels, self._reversed

    def of(self, native: Tensor) -> Pixels:
        """Other values of the same kind, channels and dtype, as `part` gives them."""
        other = copy.copy(self)
        other._native = other._image = native
        return other

    def thinned(self, side: int) -> Pixels:
        """Every third, fifth or so pixel of each row and column: about `side` px each way.

        An odd step, for what repeats in a picture (dither, JPEG's blocks) mostly does so by even
        ones.
        """
        _, _, height, width = self._native.shape
        step = max(1, math.isqrt(height * width) // side) | 1
        return self.of(self._native[..., ::step, ::step])

    @property
    def native(self) -> Tensor:
        """The values, (N, K, H, W) in the dtype that came."""
        return self._native

    def gathered(self, parts: Iterable[Tensor]) -> Image:
        """Parts of the batch, in order and maybe on a GPU, as the image that came.

        Each is fetched from a GPU while the next is made, and all are waited for once.
        """
        home, stream, moved = self._native.device, None, []
        for part in parts:
            moved.append(part.to(home, non_blocking=part.is_cuda))
            if part.is_cuda and home.type == "cpu":
                stream = torch.cuda.current_stream(part.device)
        if stream is not None:
            stream.synchronize()
        if len(moved) == 1:
            whole = moved[0].clone() if stream else moved[0]  # page-locked memory is not for users
        else:
            whole = torch.cat(moved) if moved else self._native[:0]
        return _from_nchw(whole, like=self._image)

    def colour(self) -> Tensor:
        """The colour channels, red first, as (N, channels, H, W) float32 in [0, 1]."""
        colour = self._native[:, : self._colours].to(torch.float32)
        if self._scale != 1:
            colour /= self._scale
        if self._scale < _HIGHEST.get(self._native.dtype, 1):
            colour.clamp_(max=1)
        if self._reversed:
            return _turned(colour)
        return colour.expand(-1, self._channels, -1, -1) if self._grey else colour

    def seen(self) -> Tensor | None:
        """Where alpha shows anything, (N, H, W) bool; None: there is no alpha."""
        alpha = self._native[:, self._colours :]
        return alpha[:, 0].float() > 0 if alpha.shape[1] else None

    def add(self, change: Tensor) -> Image:
        """The image with `change` added, as it came.

        `change` is (N, channels, H, W) in units of the full range. The sum is clamped to the
        range, and rounded where the dtype is an integer.
        """
        if self._reversed:
            change = _turned(change)
        if self._grey:
            # No einsum, which a host's autocast would compute in bf16.
            channels = zip(change.unbind(1), LUMA, strict=True)
            change = torch.stack([each * weight for each, weight in channels]).sum(0)[:, None]
        return self._with(_added(self._native[:, : self._colours], change, self._scale))

    @property
    def is_plain(self) -> bool:
        """Whether the values are the colours, red first, and nothing else."""
        return not (self._grey or self._reversed) and self._native.shape[1] == self._channels

    @property
    def has_levels(self) -> bool:
        """Whether its colours are levels, which tables take: uint8 on a CPU, and no grey that is
        shown as three."""
        native = self._native
        return native.dtype == torch.uint8 and native.device.type == "cpu" and not self._grey

    def levels(self, change: Tensor) -> Tensor:
        """The colours with a change added, red first: (N, channels, H, W) uint8."""
        colour = self._native[:, : self._colours]
        return _added(_turned(colour) if self._reversed else colour, change, self._scale)

    def with_colours(self, colours: Tensor) -> Image:
        """The image with others instead of its own: (N, channels, H, W) of its dtype, red first."""
        return self._with(_turned(colours) if self._reversed else colours)

    def _with(self, colour: Tensor) -> Image:
        """The image with other colours, which lie as they do in it."""
        alpha = self._native[:, self._colours :]
        whole = torch.cat([colour, alpha], dim=1) if alpha.shape[1] else colour
        return _from_nchw(whole, like=self._image)


def all_bits(level: int) -> int:
    """The highest level of as many bits as one uses: 4095 for all from 2048 to 4095."""
    return int(2 ** level.bit_length() - 1)


def check_channel_order(channel_order: str) -> None:
    """Reject an order of channels that is neither "rgb" nor "bgr".

    Raises:
        ConfigError: says what came.
    """
    if channel_order not in ("rgb", "bgr"):
        raise ConfigError(f"channel_order must be 'rgb' or 'bgr', got {channel_order!r}")


def to_display(image: Image, white: int = 0) -> np.ndarray[Any, Any]:
    """A grey or RGB image, with alpha or not, as (H, W, 3) uint8; for sheets and previews only.

    `white` is that of `Pixels`.
    """
    shown = (
        (Pixels(image, 3, white=white).colour()[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
    )
    return cast("np.ndarray[Any, Any]", shown.cpu().numpy())


def channels_last(image: Image) -> np.ndarray[Any, Any]:
    """One image as (H, W) or (H, W, C) on the CPU, of the dtype that it has, but of bfloat16, which
    numpy lacks, float32; shares memory if it can."""
    if isinstance(image, np.ndarray):
        return image
    values = image.detach().as_subclass(Tensor).cpu()
    values = values.float() if values.dtype == torch.bfloat16 else values
    return cast(
        "np.ndarray[Any, Any]", (values.movedim(0, -1) if values.ndim == 3 else values).numpy()
    )


def as_it_was(pixels: np.ndarray[Any, Any], like: Image) -> Image:
    """What `channels_last` has made of an image, of the layout, dtype, kind and device of it."""
    if isinstance(like, np.ndarray):
        return pixels
    values = torch.from_numpy(np.ascontiguousarray(pixels))
    values = (values.movedim(-1, 0) if values.ndim == 3 else values).contiguous()
    values = values.to(like.device, like.dtype)
    return values if type(like) is Tensor else values.as_subclass(type(like))


def blend(old: np.ndarray[Any, Any], new: np.ndarray[Any, Any], share: Any) -> Any:
    """Between two images of one shape and dtype: `share` of the change from the old to the new.

    Args:
        old, new: (H, W) or (H, W, C), as `Pixels` takes them.
        share: in [0, 1]; a number, or (H, W). Where it is 0 or 1, every bit is the old or the new.

    Raises:
        ImageError: their shapes or dtypes differ.
    """
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        raise ImageError(
            f"expected two images of one shape and dtype, got {old.dtype} of {old.shape} and "
            f"{new.dtype} of {new.shape}"
        )
    working = np.float64 if old.dtype == np.float64 else np.float32
    share = np.asarray(share, dtype=working)
    if share.ndim and old.ndim == 3:
        share = share[..., None]
    before: np.ndarray[Any, Any] = old.astype(working)
    mixed: np.ndarray[Any, Any] = before + (new.astype(working) - before) * share
    if old.dtype.kind == "u":
        np.round(mixed, out=mixed)
    return np.where(share == 1, new, mixed.astype(old.dtype)).astype(old.dtype, copy=False)


def bytes_of(image: Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of an image on the CPU, flat and in order; a copy only where they are not.

    Raises:
        ImageError: it is neither a tensor nor an array of numbers.
    """
    if isinstance(image, Tensor):
        flat = image.detach().as_subclass(Tensor).contiguous().flatten()
        return cast("np.ndarray[Any, np.dtype[np.uint8]]", flat.view(torch.uint8).numpy())
    if not isinstance(image, np.ndarray) or image.dtype.hasobject:
        raise ImageError(f"expected a numpy array or a torch tensor, got {_kind(image)}")
    return np.ascontiguousarray(image).reshape(-1).view(np.uint8)


def _added(colour: Tensor, change: Tensor, scale: float) -> Tensor:
    """The sum of colours and a change in units of `scale`, (N, C, H, W), of the colours' dtype."""
    if colour.dtype == torch.uint8 and colour.device.type == "cpu" and colour.numel():
        return _added_by_opencv(colour, change)
    working = torch.float64 if colour.dtype == torch.float64 else torch.float32
    total = colour.to(working, copy=True)
    total.add_(change.to(total), alpha=scale).clamp_(0, _HIGHEST[colour.dtype])
    if not colour.dtype.is_floating_point:
        total.round_()
    return total.to(colour.dtype)


def _added_by_opencv(colour: Tensor, change: Tensor) -> Tensor:
    """The same bits at a third of the cost: added, rounded and clamped in one go."""
    old = colour.movedim(1, -1)  # (N, H, W, C), as it lies in memory
    added = change.to("cpu", torch.float32).movedim(1, -1)
    flat = [each.reshape(1, -1).numpy() for each in (old, added)]
    total = cv2.addWeighted(flat[0], 1, flat[1], 255, 0, dtype=cv2.CV_8U)
    return torch.from_numpy(total).view(old.shape).movedim(-1, 1)


def _to_nchw(image: Image) -> Tensor:
    if isinstance(image, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(_native_order(image)))
        if values.ndim == 2:
            values = values[None, None]
        elif values.ndim in (3, 4):
            values = values.movedim(-1, -3)[None] if values.ndim == 3 else values.movedim(-1, -3)
    elif isinstance(image, Tensor):
        values = image.detach().as_subclass(Tensor)
        if values.ndim in (2, 3):
            values = values[None, None] if values.ndim == 2 else values[None]
    else:
        raise ImageError(f"expected a numpy array or a torch tensor, got {_kind(image)}")
    if values.ndim != 4 or 0 in values.shape[1:]:
        layouts = (
            "(H, W), (H, W, C) or (N, H, W, C) in numpy; (H, W), (C, H, W) or (N, C, H, W) in torch"
        )
        raise ImageError(
            f"expected an image that is not empty, as {layouts}; got shape {tuple(image.shape)}"
        )
    return values


def _turned(colours: Tensor) -> Tensor:
    """(N, C, H, W) from BGR to RGB, or back; what follows on three channels stays."""
    if colours.shape[1] == 3:
        return colours.flip(1)
    return torch.cat([colours[:, :3].flip(1), colours[:, 3:]], dim=1)


def _kind(thing: Any) -> str:
    return "an array of objects" if isinstance(thing, np.ndarray) else type(thing).__name__


def _native_order(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "uf" or array.dtype.itemsize > 8:
        raise ImageError(f"expected uint8, uint16, or a float in [0, 1]; got {array.dtype}")
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()  # torch takes neither
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _scale(values: Tensor, white: int, look: bool) -> float:
    """What is shown as 1."""
    if values.dtype not in _HIGHEST:
        raise ImageError(f"expected uint8, uint16, or a float in [0, 1]; got {values.dtype}")
    if values.dtype.is_floating_point and (look or not values.is_cuda) and values.numel():
        low, high = (float(v) for v in torch.aminmax(values))
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ImageError(
                f"expected floats in [0, 1], got values from {low:g} to {high:g}: "
                f"{_into_range(low, high)}"
            )
    return white if values.dtype == torch.uint16 and white else _HIGHEST[values.dtype]


def _into_range(low: float, high: float) -> str:
    """The way out for floats that are not in [0, 1]."""
    if not math.isfinite(low + high):
        return "some are not finite"
    if low > -0.2 and high < 1.2:
        return "clamp them first (a resize overshoots)"
    return ("refine before Normalize, or " if low < 0 else "") + "divide by the range first"


def _split(present: int, channels: int) -> tuple[int, bool]:
    """How many of the present channels are colour, and whether they are grey shown as three."""
    if present == channels or (channels in (1, 3) and present == channels + 1):
        return channels, False
    if channels == 3 and present in (1, 2):
        return 1, True
    way_out = (
        "convert the image to grey, or train a refiner with channels = 3"
        if channels == 1
        else "convert the image"
        + (f", or train a refiner with channels = {present}" if present in (1, 3) else "")
        + (" (tensors are (C, H, W), arrays (H, W, C))" if present > 4 else "")
    )
    raise ImageError(
        f"this refiner takes {channels} channel(s), the image has {present}: {way_out}"
    )


def _from_nchw(values: Tensor, like: Image) -> Image:
    if isinstance(like, np.ndarray):
        array = values.cpu().numpy() if like.ndim == 2 else values.movedim(1, -1).cpu().numpy()
        return np.ascontiguousarray(array.reshape(like.shape)).astype(like.dtype, copy=False)
    shaped = values.reshape(like.shape)
    if like.is_contiguous():
        shaped = shaped.contiguous()
    return shaped if type(like) is Tensor else shaped.as_subclass(type(like))
