"""OpenVINO, on a CPU: the network compiled for each size of image, a few of which are kept.

A compiled network belongs to the process that made it. It is made at the first image, is not
pickled, and a process that was forked makes its own; the one of its parent it never frees, for that
would wait for threads that the fork has left behind.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simgan_aug import exported
from simgan_aug.backends.graph import Graph
from simgan_aug.devices import has_amx, plain_defaults
from simgan_aug.errors import ConfigError, DependencyError

SIZES = 4
"""Compiled networks that a process keeps, of one size of image each; the least used is dropped."""

GRAPH = "refiner.xml"
"""The file of a graph in the folder of an export; its weights lie in the .bin beside it."""


class OpenVINOBackend:
    """Runs a network in OpenVINO, image by image (a batch gains nothing on a CPU).

    It takes as many threads as torch does, which is one in a worker of a `DataLoader`.

    Args:
        network: a refiner.
        precision: "fp32"; "bf16", on a CPU with AMX; "int8", of a graph that was exported so.
        graph: an exported graph of the network; None: it is made now.
        identity: what else tells its results from others'.

    Raises:
        ConfigError: bf16 without AMX.
        DependencyError: OpenVINO is not installed.
    """

    def __init__(
        self, network: nn.Module, precision: str, graph: Path | None = None, identity: str = ""
    ) -> None:
        if precision == "bf16" and not has_amx():
            raise ConfigError(
                "bf16 in OpenVINO needs a CPU with AMX, and is slower than fp32 elsewhere; take "
                + ("fp32" if graph is None else "fp32: export the refiner again with it")
            )
        self.device, self.precision = torch.device("cpu"), precision
        self.identity = f"openvino {openvino().__version__} {identity}".rstrip()
        self._graph, self._file = Graph(network.to(self.device)), graph
        self._sessions: dict[int, _Session] = {}  # by process

    @classmethod
    def of_folder(
        cls,
        folder: Path,
        network: nn.Module,
        precision: str,
        refiner: str | os.PathLike[str] | None,
    ) -> OpenVINOBackend:
        """What `simgan-aug export --to openvino` has written; see `backend_of`."""
        told = exported.read(folder, refiner)
        if told.format != "openvino":
            raise ConfigError(f"{folder} holds {told.format}; a backend is an export --to openvino")
        if precision not in ("auto", told.precision):
            raise ConfigError(
                f"{folder} was exported in {told.precision}, not {precision}: take the precision "
                "'auto', or export it again"
            )
        digests = " ".join(told.files[name] for name in sorted(told.files))
        return cls(network, told.precision, folder / GRAPH, digests)

    def added(self, images: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """See `Backend`."""
        session = self._session()
        rows = [
            session.added(
                images[row : row + 1],
                None if noise is None else noise[row : row + 1],
                None if reference is None else reference[row : row + 1],
            )
            for row in range(len(images))
        ]
        return rows[0] if len(rows) == 1 else torch.cat([images[:0], *rows])

    def __getstate__(self) -> dict[str, Any]:
        """Without what this process has compiled."""
        return vars(self) | {"_sessions": {}}

    def _session(self) -> _Session:
        """That of this process; one from before a fork is left alone, its threads are not here."""
        if os.getpid() not in self._sessions:
            made = _Session(self._graph, self._file, self.precision)
            self._sessions.setdefault(os.getpid(), made)  # another thread may have been quicker
        return self._sessions[os.getpid()]


class _Session:
    """What a process has compiled."""

    def __init__(self, graph: Graph, file: Path | None, precision: str) -> None:
        self._graph, self._file = graph, file
        self._core = openvino().Core()
        self._settings = {
            # Of int8 it is what is left in floats.
            "INFERENCE_PRECISION_HINT": "bf16" if precision != "fp32" and has_amx() else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # else all workers share one core
        }
        self._request = lru_cache(SIZES)(self._compiled)
        self._model = lru_cache(1)(self._made)
        self._alone = threading.Lock()  # a request holds one image

    def added(self, image: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """What the network adds to one image, (1, C, H, W)."""
        inputs = self._graph.inputs_of(image, noise, reference)
        with self._alone:
            request = self._request(tuple(tuple(each.shape) for each in inputs))
            for number, each in enumerate(inputs):
                shared = openvino().Tensor(each.numpy(), shared_memory=True)
                request.set_input_tensor(number, shared)
            request.infer()
            made = torch.from_numpy(request.get_output_tensor().data)
            return self._graph.added_by(made, image)

    def _compiled(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """A request for inputs of these shapes."""
        model = self._model(*self._example(shapes)).clone()
        model.reshape({number: list(shape) for number, shape in enumerate(shapes)})
        return request_of(self._core, model, self._settings)

    def _made(self, *shapes: tuple[int, ...]) -> Any:
        """The graph that was exported, or one of the network."""
        if self._file is not None:
            return self._core.read_model(self._file)
        example = [torch.zeros(shape, dtype=torch.float32, device="cpu") for shape in shapes]
        return model_of(self._graph, example)

    def _example(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        """Shapes to make the graph with; the same for all where it takes any."""
        if not self._graph.is_staged:
            return shapes
        return ((1, 8, 8, shapes[0][-1]), *shapes[1:])


def request_of(core: Any, model: Any, settings: dict[str, Any]) -> Any:
    """A model compiled for the CPU, which runs one image at a time."""
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    _KEPT.update((core, request))
    return request


_KEPT: weakref.WeakSet[Any] = weakref.WeakSet()


def _keep_for_ever() -> None:
    """In a forked process: what was compiled before, also what only waits to be collected."""
    for made in list(_KEPT):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_keep_for_ever)


def model_of(graph: Graph, example: list[Tensor]) -> Any:
    """A graph as a model of OpenVINO; of any size where the graph is.

    Not by `openvino.convert_model`, which tells its maker's servers of its use.

    Raises:
        DependencyError: OpenVINO is not installed.
    """
    openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # What a host has set, autocast or default dtype and device, goes into no graph.
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        plain_defaults(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenVINO traces by torch.jit
        decoder = TorchScriptPythonDecoder(graph.eval(), example_input=tuple(example))
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))


def openvino() -> Any:
    """The library.

    Raises:
        DependencyError: it is not installed, or cannot be imported.
    """
    try:
        with untold():
            import openvino as library
    except ImportError as error:
        raise DependencyError(
            f"the backend 'openvino' needs OpenVINO: pip install 'simgan-aug[openvino]' ({error})"
        ) from None
    return library


@contextmanager
def untold() -> Iterator[None]:
    """What is imported within it for the first time does not tell its maker's servers of its use.

    OpenVINO would at the import, from a process that it forks.
    """
    telling = "openvino_telemetry"
    before = sys.modules.get(telling)
    sys.modules[telling] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        yield
    finally:
        sys.modules.pop(telling)
        if before is not None:
            sys.modules[telling] = before
