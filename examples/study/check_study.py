"""The study, checked: raw against raw makes no difference, real photos reach the oracle.

    python examples/study/check_study.py --data DIR --out WORK [--shuffles 40] [--task classify]

DIR is a folder with synthetic_train.json, real_train.json, real_test.json and folders of images of
the same names. A shuffle divides the synthetic images into two random halves; each is an arm, with
seeds that no other arm has. Nothing but chance tells the two apart, so that any verdict but "no
difference" is false. The real photos are halved in the same way: one half, with its labels, stands
for synthetic images, the other one is the oracle. Probes are reduced (`--steps`, `--batch-size`),
so that all of it takes some twenty minutes of a core. Finished probes are kept in WORK, and not
trained again.

`--simulate` needs no data: how often intervals hold the truth, for gaps drawn from normal
distributions whose parts are known, ours beside the percentiles of a bootstrap over seeds and
images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simgan_aug.study import HELPED, HURT, Settings, Study, gain, verdict
from simgan_aug.study.augment import SEARCH
from simgan_aug.study.forms import plain
from simgan_aug.study.gains import chosen
from simgan_aug.study.verdict import said

Array = np.ndarray[Any, Any]
SEEDS = 3


class Checked:
    """A study, and the values of probes that were trained on parts of its data."""

    def __init__(self, study: Study, record: Path) -> None:
        self.study, self.record = study, record
        lines = record.read_text().splitlines() if record.exists() else []
        self.known: dict[str, Any] = {
            line["key"]: line["values"] for line in map(json.loads, lines)
        }

    def arm(self, side: str, name: str, rows: Array, first_seed: int) -> Array:
        """(S, n) values of an arm that is trained on some rows of a side."""
        material = self.study.material
        whole = material.oracle if side == "real" else material.synthetic
        assert whole is not None
        split = whole.rows(np.sort(rows))
        found = []
        for seed in range(first_seed, first_seed + SEEDS):
            key = f"{side} {name} {seed}"
            if key not in self.known:
                values = _last(self.study.score(split, plain(split.images[None]), SEARCH, seed))
                self.known[key] = values
                with self.record.open("a") as file:
                    file.write(json.dumps({"key": key, "values": values}) + "\n")
            values = {name: np.array(each) for name, each in self.known[key].items()}
            found.append(chosen(values, material.halves)[0])
        return np.stack(found)


def raw_against_raw(checked: Checked, shuffles: int) -> Iterator[str]:
    """The rate of false verdicts: against one other raw arm, and against the best of five."""
    groups, count = checked.study.material.groups, len(checked.study.material.synthetic)
    pairs = []
    for number in range(shuffles):
        order = np.random.default_rng(number).permutation(count)
        halves = order[: count // 2], order[count // 2 :]
        seeds = (2 * number * SEEDS, (2 * number + 1) * SEEDS)
        pairs.append(
            [checked.arm("raw", f"{number}", r, s) for r, s in zip(halves, seeds, strict=True)]
        )
        print(f"shuffle {number + 1} of {shuffles}", flush=True)
    single = [verdict("b", {"raw": a, "b": b}, ["raw"], groups) for a, b in pairs]
    several = []
    for number, (_, own) in enumerate(pairs):
        others = {f"raw{k}": pairs[(number + k) % shuffles][0] for k in range(5)}
        others["raw"] = others.pop("raw0")
        several.append(verdict("b", {**others, "b": own}, list(others), groups))
    scores = [float(values.mean()) for pair in pairs for values in pair]
    yield f"raw arms: {np.mean(scores):.3f}, from {min(scores):.3f} to {max(scores):.3f}"
    gaps = [each.over_best.value for each in single]
    widths = [(each.over_best.high - each.over_best.low) / 2 for each in single]
    yield f"gaps: deviation {np.std(gaps):.3f}, half width of intervals {np.median(widths):.3f}"
    for title, verdicts in (("one baseline", single), ("the best of five", several)):
        words = Counter(each.word for each in verdicts)
        false = words[HELPED] + words[HURT]
        parts = f"{words[HELPED]} helped, {words[HURT]} hurt"
        yield f"{title}: {false} false verdicts of {shuffles} ({parts})"


def real_as_synthetic(checked: Checked) -> Iterator[str]:
    """Half of the real photos as synthetic images, the other half as the oracle."""
    material = checked.study.material
    assert material.oracle is not None
    order = np.random.default_rng(0).permutation(len(material.oracle))
    middle = len(order) // 2
    oracle = checked.arm("real", "oracle", order[middle:], 0)
    real = checked.arm("real", "as synthetic", order[:middle], 0)
    raw = checked.arm("raw", "whole", np.arange(len(material.synthetic)), 0)
    for name, values in (("raw synthetic", raw), ("real as synthetic", real), ("oracle", oracle)):
        yield f"{name}: {values.mean():.3f} ({' '.join(f'{v:.3f}' for v in values.mean(1))})"
    yield f"real as synthetic over oracle: {said(gain(real, oracle, material.groups))}"
    yield str(verdict("real", {"raw": raw, "real": real, "oracle": oracle}, ["raw"],
                      material.groups, "oracle"))  # fmt: skip


PARTS = {
    "seeds alone": (1.0, 0.0, 0.0),
    "test images alone": (0.0, 1.0, 0.0),
    "noise of each probe and image alone": (0.0, 0.0, 1.0),
    "seeds and test images alike": (1.0, 1.0, 0.3),
}
"""Deviations of a mean over images that seeds, images and noise make, in one unit."""


def simulated(rounds: int = 4000, images: int = 100) -> Iterator[str]:
    """Coverage of intervals that say 95 %, as a table."""
    yield "| what varies | seeds | ours | bootstrap |"
    yield "|---|---|---|---|"
    rng, groups = np.random.default_rng(0), np.arange(images)
    for name, (by_seed, by_image, noise) in PARTS.items():
        for seeds in (2, 3, 5, 10):
            held = np.zeros(2)
            for _ in range(rounds):
                gaps = by_seed * rng.normal(size=(seeds, 1))
                gaps = gaps + images**0.5 * by_image * rng.normal(size=(1, images))
                gaps = gaps + images**0.5 * noise * rng.normal(size=(seeds, images))
                found = gain(gaps, np.zeros_like(gaps), groups)
                low, high = _percentiles(gaps, rng)
                held += found.low <= 0 <= found.high, low <= 0 <= high
            ours, theirs = held / rounds
            yield f"| {name} | {seeds} | {ours:.1%} | {theirs:.1%} |"


def _percentiles(gaps: Array, rng: np.random.Generator, draws: int = 400) -> Array:
    """The usual bootstrap: seeds and images drawn with replacement."""
    counts = [rng.multinomial(side, np.full(side, 1 / side), draws) / side for side in gaps.shape]
    means: Array = ((counts[0] @ gaps) * counts[1]).sum(1)
    return np.percentile(means, [2.5, 97.5])


def _last(work: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


def main() -> None:
    """Train what is not yet trained, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--shuffles", type=int, default=40)
    parser.add_argument("--task", default="classify")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    args, began = parser.parse_args(), time.process_time()
    if args.simulate:
        print("\n".join(simulated()))
        return
    if args.data is None or args.out is None:
        parser.error("--data and --out are needed, but for --simulate")
    settings = Settings(
        synthetic=args.data / "synthetic_train.json",
        real_train=args.data / "real_train",
        real_labels=args.data / "real_train.json",
        real_test=args.data / "real_test.json",
        out=args.out / "study",
        task=args.task,
        steps=args.steps,
        batch_size=args.batch_size,
        arms=("raw", "oracle"),
    )
    checked = Checked(Study(settings), args.out / f"probes-{args.task}-{args.steps}.jsonl")
    args.out.mkdir(parents=True, exist_ok=True)
    print("\n".join(real_as_synthetic(checked)))
    if args.shuffles:
        print("\n".join(raw_against_raw(checked, args.shuffles)))
    print(f"{time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    main()
