"""A loader whose batches come refined: the GPU refines the next one while you train on this one."""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from simgan_aug.data.batches import BatchRefiner
from simgan_aug.devices import resolve_device
from simgan_aug.errors import ConfigError
from simgan_aug.graphs import UNRECORDED, undisturbed
from simgan_aug.shared import Refiner


class RefinedLoader:
    """Wraps a `DataLoader` (or any iterable of batches) and refines what it gives.

        for images, targets in RefinedLoader(loader, "run/refiner.safetensors", p=0.5): ...

    On a GPU a thread takes the next batch, moves its images there and refines them on a stream of
    its own, one batch ahead; the images then come on the GPU. On a CPU a batch is refined when it
    is asked for. All else of the loader (`dataset`, `batch_size`, `num_workers`) is its own.

    Args:
        loader: gives batches; errors of its workers are raised where you iterate.
        refiner: see `BatchRefiner`; or a `BatchRefiner`.
        prefetch: refine one batch ahead in a thread; None: on a GPU.
        options: of `BatchRefiner`.

    Raises:
        SimganAugError: as `BatchRefiner`.
    """

    def __init__(
        self,
        loader: Any,
        refiner: str | os.PathLike[str] | Refiner | BatchRefiner,
        *,
        prefetch: bool | None = None,
        **options: Any,
    ) -> None:
        self.loader = loader
        if isinstance(refiner, BatchRefiner):
            if options:
                raise ConfigError(
                    f"{', '.join(options)}: options go to the BatchRefiner that was given"
                )
            self.refine = refiner
        else:
            options = {"move": options.get("cache") is None} | options
            self.refine = BatchRefiner(refiner, **options)
        self.prefetch = prefetch
        self._epoch = 0

    def __iter__(self) -> Iterator[Any]:
        """One epoch; the epoch's number counts up by itself, unless `set_epoch` says otherwise.

        It is that of all iterators: begin one at a time.
        """
        self.refine.set_epoch(self._epoch)
        self._epoch += 1
        device = resolve_device(self.refine.device)
        on_gpu = device.type == "cuda"
        if self.prefetch or (self.prefetch is None and on_gpu):
            stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
            # The first ones may be recorded, while nobody else is at work.
            return _ahead(self.loader, self.refine, stream, UNRECORDED + 1 if on_gpu else 0)
        return map(self.refine, self.loader)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """The number of the next epoch, for the draws, and for the loader and its samplers."""
        self._epoch = epoch
        parts = (getattr(self.loader, name, None) for name in ("sampler", "batch_sampler"))
        for part in (*parts, self.loader):
            if part is not None and hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def __getattr__(self, name: str) -> Any:
        """What the loader has: `dataset`, `sampler`, `batch_sampler` and so on."""
        if name == "loader":  # while being unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)


_END = object()


class _Failure:
    """An error on its way from the thread to whoever iterates."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _ahead(
    loader: Any, refine: Callable[[Any], Any], stream: torch.cuda.Stream | None, asked_for: int = 0
) -> Iterator[Any]:
    """Refined batches, each made in a thread while the one before it is used.

    Args:
        asked_for: of the first so many, each is made when it is asked for.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=1)
    stopped, asked = threading.Event(), threading.Semaphore(0)

    def next_item() -> Any:
        asked.release()
        return ready.get()

    def offer(item: Any) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for number, batch in enumerate(loader):
                waited_for = number < asked_for
                while waited_for and not asked.acquire(timeout=0.1) and not stopped.is_set():
                    pass
                if stopped.is_set():
                    return
                with undisturbed() if waited_for else nullcontext():
                    refined = _refined_on(stream, refine, batch)
                offer(refined)
            offer(_END)
        except BaseException as error:  # raised again where the user iterates
            offer(_Failure(error))

    thread = threading.Thread(target=work, name="RefinedLoader", daemon=True)

    def end(seconds: float | None = None) -> None:
        stopped.set()
        thread.join(seconds)

    # The interpreter may end while somebody holds this iterator, and must not beside a thread that
    # is at work in torch.
    atexit.register(end, 10)
    thread.start()
    try:
        while (item := next_item()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            batch, done = item
            if done is not None:
                current = torch.cuda.current_stream(stream.device if stream else None)
                current.wait_event(done)
                _record(_on_gpu(batch), current)
            yield batch
    finally:
        atexit.unregister(end)
        end()


def _refined_on(
    stream: torch.cuda.Stream | None, refine: Callable[[Any], Any], batch: Any
) -> tuple[Any, torch.cuda.Event | None]:
    if stream is None:
        return refine(batch), None
    given = list(_on_gpu(batch))
    if given:  # they may still be made on the stream that the loader works on
        stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        refined = refine(batch)
        _record(given, stream)
        return refined, stream.record_event()


def _record(tensors: Iterable[Tensor], stream: torch.cuda.Stream) -> None:
    """Tell the allocator that what was made on one stream is used on another."""
    for tensor in tensors:
        tensor.record_stream(stream)


def _on_gpu(value: Any) -> Iterator[Tensor]:
    """The tensors of a batch that lie on a GPU."""
    if isinstance(value, Tensor):
        if value.is_cuda:
            yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _on_gpu(part)
    elif hasattr(value, "values"):
        for part in value.values():
            yield from _on_gpu(part)
