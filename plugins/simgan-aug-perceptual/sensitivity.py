"""What a psi minds: the change of features by what is done to an image.

    python plugins/simgan-aug-perceptual/sensitivity.py examples/data/hands/synthetic

Mean absolute change, as a share of that between two images of the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from simgan_aug_perceptual import perceptual
from torch import Tensor

from simgan_aug.losses import edge_direction

COUNT = 32


def changes(images: Tensor) -> dict[str, Tensor]:
    """What is done to (B, 3, H, W) in [-1, 1]; the last is another image in its place."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return {
        "grain, 2.5 levels": images + 0.02 * noise,
        "grain, 6 levels": images + 0.05 * noise,
        "contrast x 0.8": images * 0.8,
        "a colour cast": images * torch.tensor([1, 0.8, 0.6])[:, None, None],
        "moved by 1 px": images.roll(1, 3),
        "moved by 2 px": images.roll(2, 3),
        "another image": images.roll(1, 0),
    }


def main() -> None:
    """Print the table as Markdown."""
    files = sorted(Path(sys.argv[1]).iterdir())[:COUNT]
    images = np.stack([np.array(Image.open(f).convert("RGB").resize((96, 64))) for f in files])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    psis = {"identity": lambda x: x, "edge_direction": edge_direction, "perceptual": perceptual}
    print("| change |", " | ".join(f"`{name}`" for name in psis), "|\n|---|---|---|---|")
    with torch.no_grad():
        table = {
            what: [float((psi(other) - psi(batch)).abs().mean()) for psi in psis.values()]
            for what, other in changes(batch).items()
        }
    most = table["another image"]
    for what, row in table.items():
        shares = [f"{value / of:.2f}" for value, of in zip(row, most, strict=True)]
        print(f"| {what} |", " | ".join(shares), "|")


if __name__ == "__main__":
    main()
