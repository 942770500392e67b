"""The JSON beside an exported network: what the graph computes, and of which refiner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from simgan_aug.errors import CheckpointError
from simgan_aug.files import sha256_of, write_atomically

NAME = "simgan_aug.json"

FORM = 2
"""What a graph takes and gives: raised when a network's `fold` and `unfold` change, which stay
outside of it. 2: blocks of pixels come without a border."""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far a graph's refined images are from those of torch in fp32, without the tone step."""

    images: int
    """Compared; 0: noise."""
    most: float
    """Grey levels, of the pixel that is furthest apart."""
    mean: float
    """Grey levels."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What an exported graph is."""

    simgan_aug: str
    """Version that has written it."""
    form: int = 1
    """See `FORM`."""
    refiner_sha256: str
    """Of the refiner file that it was made of."""
    format: str
    """ "onnx", "openvino" or "torch-export"."""
    precision: str
    """ "fp32", "bf16" or "int8"."""
    files: dict[str, str]
    """sha256 of each file of the graph, by name."""
    size: tuple[int, int] | None
    """Width and height that the graph takes; None: any."""
    inputs: dict[str, str]
    """What each input is, in words."""
    output: str
    """What comes out, in words."""
    outside: list[str]
    """What the graph does not do, in order."""
    receptive_field: int | None
    """Px; None: the whole image."""
    parity: Parity
    """Measured when it was exported."""
    versions: dict[str, str]
    """Of the programs that made it."""

    def write(self, folder: Path) -> None:
        """Into the folder, beside the graph."""
        told = msgspec.json.format(msgspec.json.encode(self), indent=2)
        write_atomically(folder / NAME, told + b"\n")


def read(folder: Path, refiner: str | os.PathLike[str] | None) -> Exported:
    """What a folder holds, checked against its hashes and against the refiner it is used for.

    Raises:
        CheckpointError: it holds no export, a damaged one, or one of another form or refiner.
    """
    path = folder / NAME
    try:
        told = msgspec.json.decode(path.read_bytes(), type=Exported)
    except OSError:
        raise CheckpointError(
            f"{folder}: no {NAME} in it; expected a folder that simgan-aug export has written"
        ) from None
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{path}: damaged: {error}; export it again") from None
    if told.form != FORM:
        raise CheckpointError(
            f"{folder} was exported by simgan_aug {told.simgan_aug} in form {told.form}; this "
            f"version runs form {FORM}: export it again"
        )
    for name, digest in told.files.items():
        file = folder / name
        if os.sep in name or not file.is_file() or sha256_of(file) != digest:
            raise CheckpointError(f"{file}: missing or changed since the export; export it again")
    if refiner is not None and sha256_of(Path(refiner)) != told.refiner_sha256:
        raise CheckpointError(
            f"{folder} was exported from another refiner than {os.fspath(refiner)}; export this one"
        )
    return told


def described(told: Exported) -> dict[str, Any]:
    """As plain values."""
    return dict(msgspec.to_builtins(told))
