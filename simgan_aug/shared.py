"""A refiner as transforms hold it: by name, opened at the first use, once a process.

What a transform keeps must travel: into workers by fork or spawn, through `copy.deepcopy`, into
JSON. So it keeps the name of a file, and the weights are read where and when they are needed.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from simgan_aug import checkpoint, plugins
from simgan_aug.backends import NAMES, backend_of, is_torch
from simgan_aug.cache import CachedRefiner, DiskStore, MemoryStore
from simgan_aug.devices import keep_freed_memory, one_thread_after_fork, resolve_device
from simgan_aug.draws import DRAWN
from simgan_aug.errors import ConfigError
from simgan_aug.inference import ImageRefiner
from simgan_aug.pixels import Image

MEMORY = "memory"
"""The cache that is no folder."""


class Refiner(Protocol):
    """What refines an image: `ImageRefiner` and all that stands for one."""

    def __call__(
        self,
        image: Image,
        *,
        seed: int | Sequence[int] = 0,
        strength: float | Sequence[float] = 1.0,
        channel_order: str = "rgb",
    ) -> Image:
        """See `ImageRefiner.__call__`."""


class SharedRefiner:
    """A refiner file, checked now, opened at the first use, once a process; pickles as its name.

    Called as an `ImageRefiner`, whose result it gives.

    Args:
        refiner: path of a refiner file, or the name under which a plugin ships one.
        device: "auto" is the device of a tensor that lies on a GPU; for all else CUDA where there
            is one, but the CPU in a worker of a `DataLoader`. Or what `torch.device` takes.
        precision: see `ImageRefiner`.
        backend: see `ImageRefiner.load`.
        cache: "memory" (of each process), or a folder, which processes may share; None: no cache.
        cache_mb: MiB that the cache holds at most.

    Raises:
        CheckpointError: there is no such refiner, or it cannot be used here.
        DependencyError: the backend's library is not installed.
        ConfigError: impossible settings. At a call: there is no such device, or CUDA is asked for
            after a fork.
    """

    def __init__(
        self,
        refiner: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        backend: str | os.PathLike[str] = "torch",
        cache: str | os.PathLike[str] | None = None,
        cache_mb: int = 4096,
    ) -> None:
        self.path = Path(checkpoint.locate(refiner)).absolute()
        # What cannot be used is a mistake to hear of now.
        network = checkpoint.load(self.path).network
        device = device if device == "auto" else _parse(device)
        place = "cpu" if is_torch(backend) else device  # of a GPU is asked at a call
        backend_of(backend, network, place, precision, self.path)
        if not _is_positive(cache_mb):
            raise ConfigError(f"cache_mb must be 1 or more, got {cache_mb!r}")
        self.device, self.precision = device, precision
        self.backend = str(backend) if backend in NAMES else str(Path(backend).absolute())
        self.cache = cache if cache in (None, MEMORY) else str(Path(cache).expanduser().absolute())
        self.cache_mb = cache_mb
        self._process = os.getpid()
        self._opened: dict[torch.device, Refiner] = {}

    def __call__(
        self,
        image: Image,
        *,
        seed: int | Sequence[int] = 0,
        strength: float | Sequence[float] = 1.0,
        channel_order: str = "rgb",
    ) -> Image:
        """See `ImageRefiner.__call__`."""
        refiner = self._refiner(self._device(image))
        return refiner(image, seed=seed, strength=strength, channel_order=channel_order)

    def __getstate__(self) -> dict[str, Any]:
        """Without what this process has opened."""
        return {name: value for name, value in vars(self).items() if name[0] != "_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In the process that it is now in."""
        vars(self).update(state, _process=os.getpid(), _opened={})

    def _device(self, image: Image) -> torch.device:
        if not is_torch(self.backend):
            return torch.device("cpu")
        if self.device != "auto":
            return torch.device(self.device)
        first = image[0] if isinstance(image, (list, tuple)) and image else image
        if isinstance(first, Tensor) and first.device.type != "cpu":
            return first.device
        return resolve_device("auto")

    def _refiner(self, device: torch.device) -> Refiner:
        forked = os.getpid() != self._process or torch.cuda._is_in_bad_fork()
        if device.type == "cuda" and forked:
            raise ConfigError(_AFTER_FORK)
        one_thread_after_fork()
        if device not in self._opened:
            if get_worker_info() is not None:
                keep_freed_memory()
            status = self.path.stat() if self.path.exists() else None
            state = status and (status.st_mtime_ns, status.st_size, status.st_ino)
            self._opened[device] = _open(
                self.path, state, device, self.precision, self.backend, self.cache, self.cache_mb
            )
        return self._opened[device]


def as_refiner(refiner: str | os.PathLike[str] | Refiner, **options: Any) -> Refiner:
    """What a transform was given as its refiner: a name to be shared, or one that is open already.

    Args:
        refiner: see `SharedRefiner`, or an `ImageRefiner`.
        options: of `SharedRefiner`; with one that is open they must be as if left out.

    Raises:
        CheckpointError, ConfigError: as `SharedRefiner`; or an option for one that is open.
    """
    if isinstance(refiner, (str, os.PathLike)):
        return SharedRefiner(refiner, **options)
    if not callable(refiner) or isinstance(refiner, nn.Module):
        raise ConfigError(
            f"refiner must be a path, a name or an ImageRefiner, got {type(refiner).__name__}; a "
            "bare network would become a part of its host: wrap it: ImageRefiner(network, channels)"
        )
    defaults = inspect.signature(SharedRefiner).parameters
    for name, value in options.items():
        if value != defaults[name].default:
            raise ConfigError(f"{name} goes with a refiner given by its file, not with an open one")
    return refiner


def check_cache(cache: str | os.PathLike[str] | None, variants: int) -> None:
    """Reject a cache of forms that never come again.

    Raises:
        ConfigError: there is a cache, and `variants` is 0.
    """
    if cache is not None and not variants:
        raise ConfigError(
            "a cache needs variants of 1 or more (forms that one image has, such as 4): with 0 "
            "every draw is a new form, and nothing would ever be found in the cache"
        )


def described(refiner: str | os.PathLike[str] | Refiner) -> str:
    """What a host's repr shows of a refiner: its file or name, or what it is."""
    named = isinstance(refiner, (str, os.PathLike))
    return os.fspath(refiner) if named else type(refiner).__name__  # type: ignore[arg-type]


_AFTER_FORK = (
    "device='cuda' was asked for in a forked worker, where CUDA cannot be used. Two ways out: "
    "refine whole batches in the main process (simgan_aug.data.RefinedLoader), or start workers "
    "afresh (DataLoader(..., multiprocessing_context='spawn')); device='auto' takes the CPU here"
)


@functools.lru_cache(maxsize=8)
def _open(
    path: Path,
    state: tuple[int, int, int] | None,  # of the file: another one of this name is opened anew
    device: torch.device,
    precision: str,
    backend: str,
    cache: str | None,
    cache_mb: int,
) -> Refiner:
    place = resolve_device(device)
    refiner = ImageRefiner.load(path, place, precision=precision, backend=backend)
    if cache is None:
        return refiner
    if cache == MEMORY:
        return CachedRefiner(refiner, MemoryStore(cache_mb * 2**20))
    return CachedRefiner(refiner, DiskStore(Path(cache), _space(path, refiner), cache_mb * 2**20))


def _space(path: Path, refiner: ImageRefiner) -> str:
    """Names all that a cached result depends on, beside the image and its draws."""
    network = checkpoint.load(path).config.refiner.name
    code = (version("simgan-aug"), *plugins.provider("refiner", network))
    how = f"{code} {DRAWN} {refiner.device.type} {refiner.precision} {refiner.rounding}"
    return hashlib.sha256(path.read_bytes() + how.encode()).hexdigest()[:32]


def _is_positive(number: Any) -> bool:
    """Whether it is 1 or more, and a number at all."""
    try:
        return bool(number >= 1)
    except TypeError:
        return False


def _parse(device: str | torch.device) -> str:
    """The name of a device; reject what names none, without a look at whether there is one: that
    would begin CUDA, and no worker could be forked after it."""
    try:
        return str(torch.device(device))
    except (RuntimeError, TypeError):
        raise ConfigError(
            f"no device is named {device!r}; take 'auto', 'cpu', 'cuda' or 'cuda:1'"
        ) from None
