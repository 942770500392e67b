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

_boards: dict[Path, Any] = {}


@hookimpl
def simgan_training_started(out: Path, first_step: int) -> None:
    """Forget lines of steps that a resumed run takes again; open TensorBoard."""
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
        line = {
            "step": step.number,
            "phase": step.phase,
            "time": round(time.time(), 3),
            **step.losses,
        }
        _append(out / METRICS, line)
        if out in _boards:
            for name, value in step.losses.items():
                _boards[out].add_scalar(f"loss/{name}", value, step.number)
    if step.number % SAMPLE_EVERY == 0:
        save_png(preview(), out / "samples" / f"step-{step.number:06d}.png")


@hookimpl
def simgan_training_alarm(out: Path, step: Any, alarm: Any) -> None:
    """Write a line; to TensorBoard the value, under the alarm's name."""
    _append(out / ALARMS, {"step": step.number, **dataclasses.asdict(alarm)})
    if out in _boards:
        _boards[out].add_scalar(f"alarm/{alarm.name}", alarm.value, step.number)


@hookimpl
def simgan_training_ended(out: Path, reason: str, preview: Callable[[], Any]) -> None:
    """Close TensorBoard, and draw the sheet of the refiner that was saved."""
    board = _boards.pop(out, None)
    if board is not None:
        board.close()
    if reason in ("finished", "interrupted"):
        save_png(preview(), out / "samples" / "last.png")


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _number(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that a kill has torn
        return 2**63
