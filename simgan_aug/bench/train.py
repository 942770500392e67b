"""`bench train`: a step of training, against the same step written plainly."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from simgan_aug import data
from simgan_aug.bench.plain import plain_steps, plain_student_steps
from simgan_aug.bench.rounds import Figures, Skip, Work, take_turns
from simgan_aug.bench.table import Row, Table
from simgan_aug.configfile import load_preset
from simgan_aug.parts import build_loss, build_network, build_student, regularization
from simgan_aug.run import Inputs
from simgan_aug.state import TrainingState
from simgan_aug.training import train as steps_of

STEPS = 4
"""Steps of a round."""

_COLUMNS = {
    "ms a step": ".0f",
    "times as fast": "",
    "adversarial": ".3f",
    "regularization": ".4f",
    "discriminator": ".3f",
    "student": ".4f",
    "losses apart": ".1%",
    "peak MiB": ".0f",
}

Losses = dict[str, float]


@dataclass(frozen=True)
class _Job:
    """What a variant does, and where its losses go."""

    folder: Path
    losses: Path
    seed: int = 0
    device: str = "cpu"
    precision: str = "auto"
    is_plain: bool = False
    of_student: bool = False


def train(
    folder: Path,
    scratch: Path,
    *,
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """Steps of the default training: the package's, and those written with no thought of speed.

    They are of the game, or of the student that learns after it; in the table, each is held against
    the plain one of its kind and device. All take the same crops, noise and draws, but for the seed
    of one that tells how far apart losses are by chance. CPU time; on a GPU the time until it has
    done.

    Args:
        folder: of the hands sample: synthetic.json, synthetic and real.
        scratch: an empty folder.
        rounds: of `STEPS` steps that are counted, after two that are not.
        progress: shows the rounds as they go.
    """
    job = _Job(folder, scratch / "losses")
    jobs = {
        "plain, fp32": replace(job, is_plain=True),
        "plain, another seed": replace(job, is_plain=True, seed=1),
        "ours, fp32": replace(job, precision="fp32"),
        "ours": job,
        "student, plain, fp32": replace(job, is_plain=True, of_student=True),
        "student, ours": replace(job, of_student=True),
    }
    jobs |= {
        f"{name}, GPU": replace(jobs[name], device="cuda")
        for name in ("plain, fp32", "ours", "student, plain, fp32", "student, ours")
    }
    jobs = {
        name: replace(each, losses=scratch / f"{number}.json")
        for number, (name, each) in enumerate(jobs.items())
    }
    variants = {name: partial(_stepping, each) for name, each in jobs.items()}
    figures = take_turns(variants, rounds=rounds, seconds=0, progress=progress)
    rows = [_row(name, jobs, figures) for name in jobs]
    return Table("training step", _COLUMNS, rows, _said(figures))


def _stepping(job: _Job) -> Work:
    if job.device == "cuda" and not torch.cuda.is_available():
        raise Skip("no GPU here")
    steps, losses = _steps(job), list[Losses]()

    def work() -> float | None:
        began = time.perf_counter()
        losses.extend(islice(steps, STEPS))
        if job.device == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - began
        job.losses.write_text(json.dumps(losses))
        return took if job.device == "cuda" else None

    return work


def _steps(job: _Job) -> Iterator[Losses]:
    """The losses of one step after the other."""
    config = load_preset("default")
    training = replace(config.training, precision=job.precision, seed=job.seed)
    if job.of_student:
        training = replace(training, steps=0)
    inputs = Inputs.of([job.folder / "synthetic.json"], [], [job.folder / "real"])
    synthetic = data.read_synthetic(inputs.synthetic_origins, config.data, {})
    real = data.read_real(inputs.real_origins, config.data, synthetic)
    device, batches = torch.device(job.device), []
    for number, side in enumerate((synthetic, real)):
        resident = None if job.is_plain else data.Resident.of(side, config.data, device)
        seed = 2 * job.seed + number
        crops = data.Crops(side, config.data, training.batch_size, seed, resident=resident)
        batches.append(crops.batches())
    torch.manual_seed(job.seed)
    parts = {"refiner": config.refiner, "discriminator": config.discriminator}
    refiner, discriminator = (
        build_network(kind, part, 3).to(job.device) for kind, part in parts.items()
    )
    student = None
    if job.of_student:
        torch.nn.init.normal_(
            refiner.get_parameter("head.weight"), std=0.1
        )  # else there is nothing to learn
        student = build_student(config, refiner, 3).to(job.device)
    term = regularization(config)
    if job.is_plain and student is not None:
        return plain_student_steps(refiner, student, batches[0], training)
    if job.is_plain:
        return plain_steps(refiner, discriminator, term, batches[0], batches[1], training)
    loss = build_loss(config.loss)
    state = TrainingState(refiner, discriminator, training, student=student)
    done = steps_of(refiner, discriminator, loss, term, batches[0], batches[1], training, state)
    return (dict(step.losses) for step in done)


def _row(name: str, jobs: dict[str, _Job], figures: Figures) -> Row:
    if name in figures.skipped:
        return Row(name, skipped=figures.skipped[name])
    plain = _plain_of(jobs[name])
    mine, its = (json.loads(jobs[each].losses.read_text()) for each in (name, plain))
    means = {kind: statistics.mean(step[kind] for step in mine) for kind in mine[0]}
    return Row(
        name,
        {
            "ms a step": 1000 * figures.median(name) / STEPS,
            "times as fast": None if name == plain else figures.ratio(plain, name),
            **means,
            "losses apart": None if name == plain else _apart(mine, its),
            "peak MiB": figures.peak_mb[name],
        },
    )


def _plain_of(job: _Job) -> str:
    """The name of what a job is held against."""
    kind = "student, " if job.of_student else ""
    return f"{kind}plain, fp32" + (", GPU" if job.device == "cuda" else "")


def _apart(mine: Sequence[Losses], its: Sequence[Losses]) -> float:
    """Mean distance of a loss from the plain one, as a share of its mean; the worst of all."""
    return max(
        statistics.mean(abs(a[kind] - b[kind]) for a, b in zip(mine, its, strict=True))
        / statistics.mean(b[kind] for b in its)
        for kind in its[0]
    )


def _said(figures: Figures) -> list[str]:
    names = {"auto": "ours", "fp32": "ours, fp32"}
    best = min(names, key=lambda precision: figures.median(names[precision]))
    return [
        "losses apart: of the same crops and draws; what another seed makes of them is chance.",
        f"Recommended here: training.precision = {best!r}, "
        f"{figures.ratio('plain, fp32', names[best])} times as fast as plain.",
    ]
