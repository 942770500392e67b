"""Time on a CUDA device, by its own events, and what it could do at best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from simgan_aug.bench.rounds import Skip, Work

SIDE = 8192
"""Of the matrices whose product shows what the arithmetic can do."""

COPIED = 2**30
"""Bytes whose copy shows what the memory can do."""


def require_gpu() -> None:
    """There is one.

    Raises:
        Skip: there is none.
    """
    if not torch.cuda.is_available():
        raise Skip("no CUDA device")


def seconds(work: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    """That the device takes for one call, over all inputs in turn, idle time between them too."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for each in inputs:
        work(each)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / len(inputs)


def ring(make: Callable[[], Tensor]) -> list[Tensor]:
    """Inputs that are taken in turns: more than the L2 holds twice, so that none is found there."""
    first = make()
    cached = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    count = math.ceil(2 * cached / first.nbytes) + 1
    return [first, *(make() for _ in range(max(2, count) - 1))]


def flop_time() -> Work:
    """Seconds for one operation of bf16, in a product of large matrices."""
    require_gpu()
    shape, device = (SIDE, SIDE), torch.device("cuda")
    pairs = [torch.randn(2, *shape, device=device).bfloat16() for _ in range(2)]
    return lambda: seconds(lambda pair: pair[0] @ pair[1], pairs) / (2 * SIDE**3)


def byte_time() -> Work:
    """Seconds for one byte to be read or written, in a copy."""
    require_gpu()
    source, copied = torch.randint(256, (2, COPIED), dtype=torch.uint8, device="cuda")
    return lambda: seconds(copied.copy_, [source] * 4) / (2 * COPIED)


def flops(network: nn.Module, inputs: Sequence[tuple[int, ...]]) -> int:
    """Operations of a call with tensors of these shapes; a product and its sum are two.

    As a GPU does them: some are left out on a CPU in float32.
    """
    with (
        torch.autocast("cpu", torch.bfloat16),
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False) as counter,
    ):
        network(*(torch.empty(shape) for shape in inputs))  # shapes alone pass through it
    return int(counter.get_total_flops())
