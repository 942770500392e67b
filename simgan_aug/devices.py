"""Where arithmetic runs, and how precisely: what "auto" means."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from simgan_aug.errors import ConfigError

_IMPORTED_IN = os.getpid()
_DEFAULTS = threading.RLock()
if hasattr(os, "register_at_fork"):  # not on Windows
    # Else a fork beside a thread that reads a refiner would leave the child waiting for ever.
    _release = _DEFAULTS.release
    os.register_at_fork(before=_DEFAULTS.acquire, after_in_parent=_release, after_in_child=_release)


def resolve_device(wanted: str | torch.device) -> torch.device:
    """The device for a wish that may be "auto".

    "auto" is CUDA where there is one, but the CPU within a `DataLoader` worker: there a CUDA
    context would cost some 500 MiB of GPU memory a worker, and after a fork it cannot be made.

    Raises:
        ConfigError: there is no such device here.
    """
    if wanted == "auto":
        on_gpu = torch.cuda.is_available() and get_worker_info() is None
        return torch.device("cuda" if on_gpu else "cpu")
    try:
        device = torch.device(wanted)
        _touch(device)
    except (RuntimeError, NotImplementedError, AssertionError):
        raise ConfigError(
            f"no device {str(wanted)!r} here; take 'auto', 'cpu', or 'cuda' where torch sees a GPU"
        ) from None
    return device


@contextlib.contextmanager
def plain_defaults() -> Iterator[None]:
    """New tensors are float32 on the CPU, whatever a host (Lightning's "bf16-true") has set.

    torch's default is that of all threads: others see it too, meanwhile.
    """
    with _DEFAULTS:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.device("cpu"):
                yield
        finally:
            torch.set_default_dtype(before)


def one_thread_after_fork() -> None:
    """In a forked process: hold torch to one thread. Its pool of threads does not survive a fork,
    and whatever waited for it would hang."""
    if os.getpid() != _IMPORTED_IN and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def resolve_precision(wanted: str, device: torch.device) -> str:
    """ "fp32" or "bf16" for a wish that may be "auto": bf16 where there are units for it.

    That is on a GPU of NVIDIA's Ampere or later or of AMD's, and on a CPU with AMX; an older GPU
    only imitates it.

    Raises:
        ConfigError: another wish.
    """
    if wanted not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"precision must be 'auto', 'fp32' or 'bf16', got {wanted!r}")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        has_units = bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has_units = device.type == "cpu" and has_amx()
    return "bf16" if has_units else "fp32"


def uploaded(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, without a wait.

    To a GPU it goes through page-locked memory: a copy from any other may wait until the GPU has
    done all that was asked of it before.
    """
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def has_amx() -> bool:
    """Whether this CPU multiplies matrices of bf16; not, where an older torch cannot say."""
    known: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return known.get("amx_bf16", False)


@functools.cache  # it waits for the device
def _touch(device: torch.device) -> None:
    """Fails where there is no such device."""
    torch.zeros(1, device=device).item()


def keep_freed_memory() -> None:
    """In a worker of its own: keep what is freed for the next image, up to 96 MiB, on Linux.

    glibc gives large pieces back to the system at once, and to touch them anew costs time: at
    640x480 in bf16 the default network in torch takes 77 ms for an image without this and 51 with
    it, a light one 20 to 26 and 15.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_TRIM_THRESHOLD, 96 * 2**20)
        library.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
