"""Built-in observers of training: metrics and alarms as JSON lines, sheets, TensorBoard."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simgan_aug.hookspecs import hookimpl
from simgan_aug.sheet import save_png

METRICS, ALARMS = "metrics.jsonl", "alarms.jsonl"
LOG_EVERY = 20
"""Steps between two lines of metrics."""
SAMPLE_EVERY = 200
"""Steps between two sheets."""

DIVERGED = "diverged"
"""The name under which a rollback stands among the alarms."""

_boards: dict[Path, Any] = {}
_lines: dict[Path, tuple[int, float]] = {}
"""Step and time of the last line of metrics, or of the start."""


@hookimpl
def simgan_training_started(out: Path, first_step: int) -> None:
    """Forget lines of steps that a resumed run takes again; open TensorBoard."""
    _lines[out] = first_step - 1, time.monotonic()
    for path in (out / METRICS, out / ALARMS):
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _number(line) < first_step]
            path.write_text("".join(line + "\n" for line in kept))
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    _boards[out] = SummaryWriter(str(out / "tensorboard"), purge_step=first_step)


@hookimpl
def simgan_training_step(out: Path, step: Any, preview: Callable[[], Any]) -> None:
    """Write a line of metrics and a sheet now and then."""
    if step.number % LOG_EVERY == 0 or step.number == 1:
        (before, then), now = _lines[out], time.monotonic()
        _lines[out] = step.number, now
        seconds = round((now - then) / max(1, step.number - before), 6)
        line = {
            "step": step.number,
            "phase": step.phase,
            "time": round(time.time(), 3),
            "seconds": seconds,  # a step, since the last line
            "rates": step.rates,
            "state": {name: round(value, 6) for name, value in step.state.scalars.items()},
            **step.losses,
        }
        _append(out / METRICS, line)
        scalars = {f"loss/{name}": value for name, value in step.losses.items()}
        scalars |= {f"rate/{name}": rate for name, rate in step.rates.items()}
        scalars |= {f"state/{name}": value for name, value in step.state.scalars.items()}
        for name, value in (scalars | {"seconds": seconds}).items():
            _add_scalar(out, name, value, step.number)
    if step.number % SAMPLE_EVERY == 0:
        save_png(preview(), out / "samples" / f"step-{step.number:06d}.png")


@hookimpl
def simgan_training_alarm(out: Path, step: Any, alarm: Any) -> None:
    """Write a line; to TensorBoard the value, under the alarm's name."""
    _append(out / ALARMS, {"step": step.number, **dataclasses.asdict(alarm)})
    _add_scalar(out, f"alarm/{alarm.name}", alarm.value, step.number)


@hookimpl
def simgan_training_rollback(out: Path, rollback: Any) -> None:
    """Forget lines of steps that are taken again, and note it among the alarms."""
    _close(out)
    simgan_training_started(out, rollback.step + 1)
    left = f"gone on from step {rollback.step} with {rollback.rate:g} of the learning rates"
    line = {"name": DIVERGED, "value": rollback.rate, "message": f"{rollback.reason}: {left}"}
    _append(out / ALARMS, {"step": rollback.step, **line})
    _add_scalar(out, f"alarm/{DIVERGED}", rollback.rate, rollback.step)


@hookimpl
def simgan_training_ended(out: Path, reason: str, preview: Callable[[], Any]) -> None:
    """Close TensorBoard, and draw the sheet of the refiner that was saved."""
    _close(out)
    if reason in ("finished", "interrupted"):
        save_png(preview(), out / "samples" / "last.png")


def _close(out: Path) -> None:
    board = _boards.pop(out, None)
    if board is not None:
        board.close()


def _add_scalar(out: Path, name: str, value: float, step: int) -> None:
    if out in _boards:
        _boards[out].add_scalar(name, value, step)


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _number(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that a kill has torn
        return 2**63
