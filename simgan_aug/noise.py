"""The noise that a refiner sees beside an image."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def drawn(
    seeds: Sequence[int], shape: tuple[int, ...], device: torch.device, threads: int = 0
) -> Tensor:
    """Standard normal noise for images, by the seed of each: (N, *shape) float32 on the device.

    It is drawn on the CPU, so that no device changes what a seed means. For a GPU, which would wait
    for it longer than it refines, several threads draw, into page-locked memory.

    Args:
        threads: that draw, an image at a time; 0: as many as torch has for a GPU, else one.
    """
    on_gpu = device.type == "cuda"
    noise = torch.empty((len(seeds), *shape), dtype=torch.float32, pin_memory=on_gpu)
    threads = threads or (torch.get_num_threads() if on_gpu else 1)
    if min(threads, len(seeds)) < 2:
        for image, seed in zip(noise, seeds, strict=True):
            _draw(image, seed)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_draw, noise, seeds))
    return noise.to(device, non_blocking=True)


def _draw(image: Tensor, seed: int) -> None:
    image.normal_(generator=torch.Generator().manual_seed(seed % 2**63))
