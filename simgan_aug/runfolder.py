"""The folder of a training run: what it holds, and whether it can be gone on with.

RUN/refiner.safetensors   the averaged refiner, or its student; all that inference needs
RUN/teacher.safetensors   the averaged refiner, where a student has learned from it; in a run that
                          goes on for longer both stay until the student has learned anew
RUN/state.safetensors     what --resume goes on from
RUN/run.json              config, inputs and their fingerprints
RUN/metrics.jsonl         one line of losses every `observers.LOG_EVERY` steps
RUN/alarms.jsonl          one line for each thing found wrong, every `run.SAVE_EVERY` steps, and for
                          each time that the training was taken back
RUN/samples/*.png         synthetic over refined over real
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from simgan_aug import checkpoint
from simgan_aug.config import Config
from simgan_aug.configfile import parse
from simgan_aug.data import Source
from simgan_aug.data.inputs import Inputs
from simgan_aug.errors import CheckpointError, ConfigError, DataError
from simgan_aug.files import write_atomically
from simgan_aug.folders import check_apart, check_writable
from simgan_aug.state import COUNTS, TrainingState

REFINER, TEACHER = checkpoint.REFINER, "teacher.safetensors"
STATE, INFO = "state.safetensors", "run.json"


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a run that was stopped left to go on from."""

    tensors: dict[str, Tensor]
    """See `TrainingState.tensors`."""
    shares: int
    """That batches were cut into, each with its history."""


def check_folder(out: Path, inputs: Inputs, resume: bool) -> None:
    """Make sure that a run can be started in a folder, or gone on with.

    Raises:
        ConfigError: it holds a run already, or none; or it overlaps with the data.
        OutputError: it cannot be written.
    """
    if resume != (out / INFO).exists():
        way_out = (
            "start without --resume" if resume else "go on with --resume, or choose another --out"
        )
        raise ConfigError(f"{out} holds {'no' if resume else 'a'} training run: {way_out}")
    for origin in (*inputs.synthetic_origins, *inputs.real_origins):
        for folder in origin.folders():
            check_apart(folder, out)
    check_writable(out)


def written(out: Path) -> list[tuple[int, int] | None]:
    """What tells whether somebody has begun a run in a folder, or gone on with it."""
    found: list[tuple[int, int] | None] = []
    for name in (INFO, STATE):
        try:
            status = (out / name).stat()
            found.append((status.st_mtime_ns, status.st_size))
        except OSError:
            found.append(None)
    return found


def read_saved(out: Path) -> Saved | None:
    """The last save; None: the run was killed before its first.

    Raises:
        CheckpointError: it is damaged, or gone from beside its refiner.
    """
    if not (out / STATE).exists():
        if (out / REFINER).exists():
            raise CheckpointError(
                f"{out} holds a refiner and no {STATE}, without which a training cannot go on: "
                "bring it back, or begin a new run in another --out"
            )
        return None
    tensors, header = checkpoint.load_state(out / STATE)
    shares, counts = header.get("shares"), tensors.get("counts", ())
    if not isinstance(shares, int) or len(counts) != COUNTS:
        raise CheckpointError(
            f"{out / STATE}: written by an earlier version; begin a new run in another --out"
        )
    return Saved(tensors, shares)


def cut_alike(config: Config, saved: Saved, out: Path, world: int) -> Config:
    """The config with which so many ranks cut batches into the shares that the state has.

    Raises:
        ConfigError: they cannot.
    """
    if saved.shares % world:
        raise ConfigError(
            f"{out} was trained with batches in {saved.shares} share(s), each with its history: go "
            f"on with a number of ranks that divides {saved.shares}, not {world}"
        )
    training = dataclasses.replace(config.training, accumulate=saved.shares // world)
    return dataclasses.replace(config, training=training)


def restore(state: TrainingState, saved: Saved, out: Path, fingerprints: Mapping[str, str]) -> None:
    """Set a state to the last save.

    Args:
        fingerprints: of the data, as they are now.

    Raises:
        DataError: the data are others than those that the run was started with.
        CheckpointError: the state is of other networks.
    """
    info = read_info(out)
    for side, fingerprint in fingerprints.items():
        if info["fingerprints"][side] != fingerprint:
            raise DataError(
                f"the {side} data has changed since {out} was started; "
                "begin a new run in another --out"
            )
    try:
        state.load(saved.tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{out / STATE}: belongs to another config: {error}") from None


def provenance(
    state: TrainingState, seed: int, sides: Mapping[str, Source], licence: str
) -> dict[str, Any]:
    """Where a refiner comes from, for its header.

    Args:
        sides: what it was trained on, "synthetic" and "real".
        licence: of these.
    """
    versions = {name: metadata.version(name) for name in ("simgan-aug", "torch", "numpy")}
    data = {
        name: {"sha256": side.fingerprint, "images": len(side.images)}
        for name, side in sides.items()
    }
    return {
        "steps": state.step,
        "student_steps": state.student_step,
        "seed": seed,
        "rollbacks": int(state.scalars["rollbacks"]),
        **data,
        "versions": versions | {"python": platform.python_version()},
        "licence": licence,
    }


def write_info(
    out: Path, config: Config, inputs: Inputs, fingerprints: Mapping[str, str], licence: str
) -> None:
    """Write `run.json`.

    Raises:
        OutputError: the folder cannot be written.
    """
    info = {
        "config": config.to_builtins(),
        "inputs": inputs.to_builtins(),
        "fingerprints": dict(fingerprints),
        "licence": licence,
    }
    write_atomically(out / INFO, (json.dumps(info, indent=2) + "\n").encode())


def read_info(out: Path) -> dict[str, Any]:
    """What `run.json` of a run says.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    try:
        info: dict[str, Any] = json.loads((out / INFO).read_text(encoding="utf-8"))
        if isinstance(info["config"].get("tone", {}).get("match"), bool):
            raise CheckpointError(
                f"{out}: a run of an earlier simgan_aug; begin a new one in another --out"
            )
        if "tone" in info["config"]:  # one of an earlier simgan_aug goes on as it was begun
            info["config"]["tone"].setdefault("choice", "any")
        parse(info["config"], str(out / INFO), is_whole=True)
        Inputs.from_builtins(info["inputs"])
        if set(info["fingerprints"]) != {"synthetic", "real"}:
            raise KeyError("fingerprints")
    except OSError:
        raise CheckpointError(
            f"{out}: no training run in it (no {INFO}); start one without --resume"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{out / INFO}: damaged: {type(error).__name__}: {error}") from None
    return info
