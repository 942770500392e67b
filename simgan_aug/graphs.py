"""Work on a CUDA device that is recorded once and replayed: CUDA graphs.

A GPU is through with small images before Python has asked for the next piece of work. A recording
asks for all of it at once. It holds for one form of what it is given (shapes, dtypes, layouts) and
reads and writes the same memory every time, so that what goes in is copied there and what comes out
is copied from there. (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])

Work = Callable[..., Sequence[Tensor]]
"""Tensors, or None, on the device -> tensors. It waits for nothing, says itself whether gradients
are wanted, and does the same work every time: what it takes from elsewhere stays where it is in
memory."""

UNRECORDED = 2
"""Calls of a form in a thread before it is recorded: libraries set themselves up, each thread anew,
and some forms come once."""

MOST = 8
"""Forms that are recorded; all others run as they are. Their memory is held, that of the largest
once for all of them."""


def is_recordable(part: object) -> bool:
    """Whether a part declares that its work may be recorded, by an attribute `recordable` of its
    own or of its very class: a subclass may draw or count what that did not."""
    own = {**vars(type(part)), **getattr(part, "__dict__", {})}
    return bool(own.get("recordable", False))


def recordable(function: Function) -> Function:
    """Declare a function to be so."""
    function.recordable = True  # type: ignore[attr-defined]
    return function


@contextmanager
def undisturbed() -> Iterator[None]:
    """Says, within it, that the main thread waits for this one: it may record in its place.

    A recording fails where another thread waits for the GPU meanwhile, and makes one fail that
    draws there (https://github.com/NVIDIA/TensorRT/issues/2888).
    """
    _threads.waited_for = True
    try:
        yield
    finally:
        _threads.waited_for = False


_threads = threading.local()


class Replayed:
    """Does work on a device; on a CUDA device that of a form that comes again as a recording.

    Any threads and streams may use it: calls come one after the other.

    Args:
        device: where the work is done.
        is_repeatable: whether it changes nothing elsewhere and may be done once more before it is
            recorded, in the same memory: kernels are compiled for how memory lies, and a recording
            is no place for that.
    """

    def __init__(self, device: torch.device, is_repeatable: bool = False) -> None:
        self._device, self._is_repeatable = device, is_repeatable
        self._calls = Counter[Hashable]()
        self._recordings: dict[Hashable, _Recording] = {}
        self._refused = set[Hashable]()
        self._lock = threading.Lock()
        self._done: torch.cuda.Event | None = None
        self._place: tuple[Any, torch.cuda.Stream] | None = None  # memory goes with its stream

    def __call__(self, work: Work, key: Hashable, *tensors: Tensor | None) -> list[Tensor]:
        """What the work gives, in memory of its own.

        Args:
            work: see `Work`.
            key: tells works apart, and all that they depend on beside tensors.
            tensors: on the device, or in page-locked memory of the host; None stays None.
        """
        if self._device.type != "cuda":
            return list(work(*tensors))
        form = (key, *(_form(tensor) for tensor in tensors))
        # What inference mode makes could not be written to outside of it.
        usable = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        with self._lock, usable:
            stream = torch.cuda.current_stream(self._device)
            if self._done is not None:  # the memory may still be in use on another stream
                stream.wait_event(self._done)
            if form not in self._recordings and self._is_due(form):
                self._record(work, form, tensors)
            if form not in self._recordings:
                return list(work(*(self._moved(tensor) for tensor in tensors)))
            made = self._recordings[form].play(tensors)
            self._done = stream.record_event()
            return made

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, and what arrives in another process, has recorded nothing."""
        return Replayed, (self._device, self._is_repeatable)

    def _is_due(self, form: Hashable) -> bool:
        """Whether a form is to be recorded now."""
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main and not getattr(_threads, "waited_for", False):
            return False
        if len(self._recordings) >= MOST or form in self._refused:
            return False
        if torch.are_deterministic_algorithms_enabled():
            return False  # some work then looks at values
        self._calls[form, threading.get_ident()] += 1
        return self._calls[form, threading.get_ident()] > UNRECORDED

    def _moved(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self._device, non_blocking=True)

    def _place_for(self, tensor: Tensor) -> Tensor:
        """Memory on the device, with its values."""
        return torch.empty_like(tensor, device=self._device).copy_(tensor, non_blocking=True)

    def _record(self, work: Work, form: Hashable, tensors: Sequence[Tensor | None]) -> None:
        """Record a form, if there is memory for it."""
        if self._place is None:
            stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._place = torch.cuda.graph_pool_handle(), stream
        pool, stream = self._place
        try:
            taken = [None if each is None else self._place_for(each) for each in tensors]
            if self._is_repeatable:
                work(*taken)
            graph = torch.cuda.CUDAGraph()
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"),
            ):
                made = list(work(*taken))
        except torch.OutOfMemoryError:
            self._refused.add(form)
        else:
            self._recordings[form] = _Recording(graph, taken, made)


class _Recording:
    """One form of work, and the memory that it reads and writes."""

    def __init__(
        self, graph: torch.cuda.CUDAGraph, taken: list[Tensor | None], made: list[Tensor]
    ) -> None:
        self._graph, self._taken, self._made = graph, taken, made

    def play(self, tensors: Sequence[Tensor | None]) -> list[Tensor]:
        for place, tensor in zip(self._taken, tensors, strict=True):
            if place is not None and tensor is not None:
                place.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return [each.clone() for each in self._made]


def _form(tensor: Tensor | None) -> Hashable:
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype)
