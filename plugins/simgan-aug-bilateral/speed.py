"""CPU milliseconds of one image through each refiner, taking turns in one process.

    python plugins/simgan-aug-bilateral/speed.py

Process CPU time on one thread: medians over the rounds, and against the default refiner the median
of the ratios round by round with their range.
"""

from __future__ import annotations

import itertools
import statistics
import time

import numpy as np
import torch

from simgan_aug import ImageRefiner
from simgan_aug.bank import Bank
from simgan_aug.bench.table import machine
from simgan_aug.plugins import build

DEFAULT, OURS = "unshuffle", ("bilateral", "curves")
SIZE, ROUNDS = (480, 640, 3), 7


def refiners() -> dict[tuple[str, str, str], ImageRefiner]:
    """Each network at either precision, alone and with the tone of photos after it."""
    bank = Bank(
        torch.rand(256, 3, 64, generator=torch.Generator().manual_seed(0)).sort(dim=2).values
    )
    return {
        (tone, precision, name): ImageRefiner(
            build("refiner", name, channels=3),
            3,
            bank if tone == "with" else None,
            device="cpu",
            precision=precision,
        )
        for tone, precision, name in itertools.product(
            ("without", "with"), ("fp32", "bf16"), (DEFAULT, *OURS)
        )
    }


def main() -> None:
    """Print the table as Markdown."""
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 255, SIZE, dtype=np.uint8)
    taking_turns = refiners()
    spent: dict[tuple[str, str, str], list[float]] = {key: [] for key in taking_turns}
    for number in range(ROUNDS + 1):  # the first does not count
        for key in sorted(spent, key=list(spent).index, reverse=bool(number % 2)):
            began = time.process_time()
            taking_turns[key](image, seed=number)
            if number:
                spent[key].append(1000 * (time.process_time() - began))
    print("| tone step | precision | refiner | CPU ms | times as fast as the default |")
    print("|---|---|---|---|---|")
    for (tone, precision, name), taken in spent.items():
        ratios = [a / b for a, b in zip(spent[tone, precision, DEFAULT], taken, strict=True)]
        ahead = f"{statistics.median(ratios):.1f} [{min(ratios):.1f}, {max(ratios):.1f}]"
        print(f"| {tone} | {precision} | {name} | {statistics.median(taken):.0f} | {ahead} |")
    print(f"\n{SIZE[1]}x{SIZE[0]}, {machine()}")


if __name__ == "__main__":
    main()
