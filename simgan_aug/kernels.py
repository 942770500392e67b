# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What refining does around the network on a CUDA device, fused: a kernel before it, two after it.

Torch goes through all pixels once for each operation, which takes as long as the default network
does. What is done here is what `simgan_aug.refining`, `noise`, `tone` and `pixels` do in torch,
which other devices and rarer kinds of images go by, and in the same order; results are apart by
roundings (one grey level where a value lies between two).

Needs Triton, which torch's builds for a GPU bring on Linux; the import raises `DependencyError`
without it.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from simgan_aug import noise
from simgan_aug.errors import DependencyError
from simgan_aug.tone import LEVELS

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise DependencyError(
        f"Triton cannot be imported ({error}); torch's builds for a GPU bring it"
    ) from None

DTYPES = {torch.uint8: 255.0, torch.float16: 1.0, torch.bfloat16: 1.0, torch.float32: 1.0}
"""Of images, and what is 1 of each."""

BLOCK = 1024
"""Pixels that are gone through at once."""

_ROUNDER = tl.constexpr(1.5 * 2**23)
"""Added to a float32 and taken away again, it leaves the nearest whole number, of two the even."""


def takes(native: Tensor) -> bool:
    """Whether images are of a dtype that these kernels know."""
    return native.dtype in DTYPES


def probe(device: torch.device) -> None:
    """Run each of them once; what is wrong with Triton here is raised."""
    native = torch.zeros(1, 3, 8, 8, dtype=torch.uint8, device=device)
    change, _ = begin(native, noise.keys([0]).to(device), 1)
    curve = histograms(native, change)
    finish(native, change, (curve, curve), None)


def begin(native: Tensor, keys: Tensor | None, channels: int) -> tuple[Tensor, Tensor | None]:
    """What a network is shown: images in [-1, 1] float32, channels last; noise (N, channels, H, W).

    Args:
        native: (N, C, H, W) of one of `DTYPES`, however it lies.
        keys: of the noise, as `noise.of_keys` takes them; None: there is none.
        channels: of the noise.
    """
    count, colours, height, width = native.shape
    shown = torch.empty(
        native.shape,
        dtype=torch.float32,
        device=native.device,
        memory_format=torch.channels_last,
    )
    grain = quantiles = shown  # any, where there is no noise
    if keys is not None:
        grain = torch.empty((count, channels, height, width), device=native.device)
        quantiles = noise.quantiles(native.device)
    with _on(native):
        _begin[_grid(native)](
            native,
            shown,
            grain,
            native if keys is None else keys,
            quantiles,
            DTYPES[native.dtype],
            height * width,
            width,
            *native.stride(),
            CHANNELS=colours,
            NOISE=0 if keys is None else channels,
            BITS=noise.BITS,
            BLOCK=BLOCK,
            enable_fp_fusion=False,
        )
    return shown, None if keys is None else grain


def histograms(native: Tensor, change: Tensor) -> Tensor:
    """Counts of the levels of refined images, (N, C, LEVELS) float32.

    Args:
        native: as for `begin`.
        change: (N, C, H, W) float32, what the network adds, in units of [-1, 1].
    """
    counts = torch.zeros((*native.shape[:2], LEVELS), dtype=torch.int32, device=native.device)
    with _on(native):
        _count[_grid(native)](
            native,
            change,
            counts,
            *_common(native, change),
            CHANNELS=native.shape[1],
            LEVELS=LEVELS,
            BLOCK=BLOCK,
            enable_fp_fusion=False,
        )
    return counts.float()


def finish(
    native: Tensor,
    change: Tensor,
    curves: tuple[Tensor, Tensor] | None,
    strengths: Tensor | None,
) -> Tensor:
    """The refined images, as `native` is.

    Args:
        native, change: as for `histograms`.
        curves: what each level becomes, and how much of what lies between levels passes, (N, C,
            LEVELS) float32 each; None: there is no tone step.
        strengths: (N,) float32; None: all of the change.
    """
    made = torch.empty_like(native)
    curve, gain = curves or (change, change)
    with _on(native):
        _finish[_grid(native)](
            native,
            change,
            made,
            curve,
            gain,
            change if strengths is None else strengths,
            *made.stride(),
            *_common(native, change),
            CHANNELS=native.shape[1],
            LEVELS=LEVELS,
            TONED=curves is not None,
            BLENDED=strengths is not None,
            WHOLE=not native.dtype.is_floating_point,
            BLOCK=BLOCK,
            enable_fp_fusion=False,
        )
    return made


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton starts its kernels on torch's current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _grid(native: Tensor) -> tuple[int]:
    return (len(native) * triton.cdiv(native.shape[2] * native.shape[3], BLOCK),)


def _common(native: Tensor, change: Tensor) -> tuple[Any, ...]:
    """What both kernels after the network are told of images and changes."""
    height, width = native.shape[2:]
    scale = DTYPES[native.dtype]
    return scale, height * width, width, *native.stride(), *change.stride()


@triton.jit
def _begin(
    native,
    shown,
    grain,
    keys,
    quantiles,
    scale,
    pixels,
    width,
    of_image,
    of_channel,
    of_row,
    of_pixel,
    CHANNELS: tl.constexpr,
    NOISE: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image, place = _place(pixels, BLOCK)
    within = place < pixels
    at = native + _offset(image, place, width, of_image, of_row, of_pixel)
    for channel in tl.static_range(CHANNELS):
        value = tl.load(at + channel * of_channel, within, other=0).to(tl.float32)
        seen = tl.div_rn(value, scale) * 2 - 1
        tl.store(shown + (image * pixels + place) * CHANNELS + channel, seen, within)
    for channel in tl.static_range(NOISE):
        factor = tl.load(keys + image * 2).to(tl.uint32, bitcast=True)
        offset = tl.load(keys + image * 2 + 1).to(tl.uint32, bitcast=True)
        hashed = (channel * pixels + place).to(tl.uint32) * factor + offset
        hashed = (hashed ^ (hashed >> 16)) * 0x7FEB352D
        hashed = (hashed ^ (hashed >> 15)) * 0x846CA68B
        drawn = tl.load(quantiles + (hashed >> (32 - BITS)).to(tl.int32), within, other=0)
        tl.store(grain + (image * NOISE + channel) * pixels + place, drawn, within)


@triton.jit
def _count(
    native,
    change,
    counts,
    scale,
    pixels,
    width,
    of_image,
    of_channel,
    of_row,
    of_pixel,
    change_of_image,
    change_of_channel,
    change_of_row,
    change_of_pixel,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image, place = _place(pixels, BLOCK)
    within = place < pixels
    at = native + _offset(image, place, width, of_image, of_row, of_pixel)
    beside = change + _offset(image, place, width, change_of_image, change_of_row, change_of_pixel)
    outside = tl.sum((~within).to(tl.int32))  # those are counted as level 0
    level = tl.arange(0, LEVELS)
    for channel in tl.static_range(CHANNELS):
        value = tl.load(at + channel * of_channel, within, other=0).to(tl.float32)
        added = tl.load(beside + channel * change_of_channel, within, other=0)
        position = _position(tl.div_rn(value, scale), added, LEVELS)
        nearest = tl.where(within, _rounded(position), 0).to(tl.int32)
        found = tl.histogram(nearest, LEVELS) - tl.where(level == 0, outside, 0)
        tl.atomic_add(counts + (image * CHANNELS + channel) * LEVELS + level, found, found != 0)


@triton.jit
def _finish(
    native,
    change,
    made,
    curve,
    gain,
    strengths,
    made_of_image,
    made_of_channel,
    made_of_row,
    made_of_pixel,
    scale,
    pixels,
    width,
    of_image,
    of_channel,
    of_row,
    of_pixel,
    change_of_image,
    change_of_channel,
    change_of_row,
    change_of_pixel,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    TONED: tl.constexpr,
    BLENDED: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image, place = _place(pixels, BLOCK)
    within = place < pixels
    at = native + _offset(image, place, width, of_image, of_row, of_pixel)
    beside = change + _offset(image, place, width, change_of_image, change_of_row, change_of_pixel)
    to = made + _offset(image, place, width, made_of_image, made_of_row, made_of_pixel)
    for channel in tl.static_range(CHANNELS):
        value = tl.load(at + channel * of_channel, within, other=0).to(tl.float32)
        added = tl.load(beside + channel * change_of_channel, within, other=0)
        colour = tl.div_rn(value, scale)
        if TONED:
            position = _position(colour, added, LEVELS)
            nearest = _rounded(position)
            table = (image * CHANNELS + channel) * LEVELS + nearest.to(tl.int32)
            between = (position - nearest) * tl.load(gain + table)
            added = tl.load(curve + table) + between - colour
        else:
            added = _bounded(added * 0.5)
        if BLENDED:
            added = added * tl.load(strengths + image)
        total = value + added * scale
        total = tl.where(total < 0, 0, tl.where(total > scale, scale, total))  # leaves NaN
        if WHOLE:
            total = _rounded(total)
        tl.store(to + channel * made_of_channel, total.to(made.dtype.element_ty), within)


@triton.jit
def _place(pixels, BLOCK: tl.constexpr):
    """Which image a program works on, and which pixels of it."""
    blocks = tl.cdiv(pixels, BLOCK)
    program = tl.program_id(0)
    return (program // blocks).to(tl.int64), program % blocks * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _offset(image, place, width, of_image, of_row, of_pixel):
    """Where pixels of an image lie, in its first channel."""
    return image * of_image + place // width * of_row + place % width * of_pixel


@triton.jit
def _position(colour, added, LEVELS: tl.constexpr):
    """Of a refined value on the scale of levels."""
    refined = _bounded(added * 0.5) + colour
    refined = tl.where(refined > 0, refined, 0)  # and what is none
    return tl.where(refined < 1, refined, 1) * (LEVELS - 1)


@triton.jit
def _bounded(change):
    """In [-1, 1]; what is none remains so."""
    return tl.where(change < -1, -1, tl.where(change > 1, 1, change))


@triton.jit
def _rounded(value):
    return (value + _ROUNDER) - _ROUNDER
