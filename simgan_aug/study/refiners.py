"""The refiners that arms train, one for each seed, and the commands that arms run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from simgan_aug.config import Config
from simgan_aug.configfile import load_config, load_preset
from simgan_aug.errors import CheckpointError, ConfigError, DataError, OutputError
from simgan_aug.inference import ImageRefiner
from simgan_aug.run import INFO, REFINER, Inputs, Run, check_parts
from simgan_aug.study.arms import Arm

PAPER_BATCH = 8
"""Images a step that a CPU can feed the paper's networks with; the paper does not state its own."""

PAPER_STEPS = 1500
"""Adversarial steps of the arm "paper", after its 1,200 warm-ups: about the default's time."""

PLACEHOLDERS = ("annotations", "images", "real", "out", "seed")
"""What stands in braces in a command of one's own."""


def config_of(arm: Arm, given: Path | None, steps: int | None) -> Config | None:
    """What an arm trains; None: nothing.

    Args:
        arm: which.
        given: TOML file that stands for the default.
        steps: adversarial steps instead of the config's own; of the paper's arm, in proportion.

    Raises:
        ConfigError: a file or a part of it cannot be used.
    """
    if arm.kind == "config":
        config, source = load_config(arm.source), arm.source
    elif arm.kind == "paper":
        return _paper(steps)
    elif arm.kind in ("default", "mixed", "strength"):
        config = load_config(given) if given else load_preset("default")
        source = str(given or "preset default")
    else:
        return None
    check_parts(config, source)
    training = config.training.of_steps(steps) if steps else config.training
    return dataclasses.replace(config, training=training)


def train_refiner(
    config: Config, inputs: Inputs, out: Path, device: str
) -> Generator[None, None, Path]:
    """Train a refiner, or go on with it; yields at each step, returns its file.

    Raises:
        SimganAugError: as `Run`.
    """
    if _steps_of(out / REFINER) < config.training.total:
        run = Run(config, inputs, out, device=device, resume=(out / INFO).exists())
        yield from (None for _ in range(run.state.number))
        with contextlib.closing(run.steps()) as steps:  # type: ignore[type-var]  # a generator
            for _ in steps:
                yield  # it saves when it is closed here
    return out / REFINER


def run_command(
    command: str, values: Mapping[str, str], out: Path, check: Callable[[Path], object]
) -> Path:
    """Run a user's command, which writes images to a folder; returns that folder.

    Args:
        command: split as a shell would, and run without one.
        values: of `PLACEHOLDERS` but for "out".
        out: the folder; not run again if it is there.
        check: raises where the images that were written are of no use; they are not kept then.

    Raises:
        ConfigError: the command cannot be split, or started.
        DataError: it failed.
    """
    if out.exists():
        return out
    partial, log = out.with_name(out.name + ".partial"), out.with_name(out.name + ".log")
    shutil.rmtree(partial, ignore_errors=True)
    words = command_words(command, {**values, "out": str(partial.resolve())})
    try:
        partial.mkdir(parents=True)
        with log.open("wb") as said:
            code = _wait(words, said.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {partial}: {error.strerror or error}") from None
    if code:
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise DataError(
            f"the command {shlex.join(words)} failed with exit code {code}: "
            f"{' / '.join(tail) or 'it said nothing'} (all of it: {log})"
        )
    check(partial)
    partial.replace(out)
    return out


def command_words(command: str, values: Mapping[str, str]) -> list[str]:
    """The words of a command, its placeholders filled after splitting.

    Raises:
        ConfigError: it cannot be split, is empty, or does not say {out}.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"cmd:{command}: cannot be split into words: {error}") from None
    if not words or "{out}" not in command:
        raise ConfigError(
            f"cmd:{command}: expected a command that writes its images to {{out}} (known "
            f"placeholders: {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)})"
        )
    place = re.compile("|".join(re.escape(f"{{{name}}}") for name in values) or r"(?!)")
    return [place.sub(lambda found: values[found[0][1:-1]], word) for word in words]


def _wait(words: list[str], log: int) -> int:
    """The exit code of a program; it does not hear the Ctrl-C that we hear."""
    try:
        process = subprocess.Popen(
            words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise ConfigError(f"{words[0]}: cannot be run: {error.strerror or error}") from None
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # we are being aborted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started itself
            process.wait()


def _paper(steps: int | None) -> Config:
    config = load_preset("paper-eyes")
    scale = 1.0 if steps is None else steps / 1000
    training = dataclasses.replace(
        config.training,
        batch_size=PAPER_BATCH,
        steps=max(1, round(PAPER_STEPS * scale)),
        refiner_warmup=round(config.training.refiner_warmup * scale),
        discriminator_warmup=round(config.training.discriminator_warmup * scale),
    )
    return dataclasses.replace(config, training=training)


def _steps_of(refiner: Path) -> int:
    """How far a refiner has been trained; 0: there is none, or none that can be read."""
    if not refiner.exists():
        return 0
    try:
        done = ImageRefiner.load(refiner, device="cpu").provenance
        return int(done["steps"]) + int(done["student_steps"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return 0
