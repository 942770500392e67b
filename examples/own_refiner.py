"""A refiner of one's own in one file, without installing anything: a camera in some 100 numbers.

    python examples/own_refiner.py --steps 150 --out own-run

It is written, offered through the hook, held to the contract, and trained on the shipped hands; a
sheet (`own-run/sheet.png`) shows what it does, and so few weights can be read. To ship a refiner,
`simgan-aug new-plugin` writes a distribution; `examples/plugins.md` goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug import ImageRefiner, hookimpl
from simgan_aug.config import Config
from simgan_aug.configfile import parse
from simgan_aug.preview import preview_folders
from simgan_aug.run import REFINER, Inputs, Run
from simgan_aug.sheet import save_png
from simgan_aug.testing import check_refiner, offered

HANDS = Path(__file__).parent / "data" / "hands"


# 1. The network. It adds something to the image, 0 at the start; it takes every height and width;
#    its only randomness is the noise that it is given.
class CameraRefiner(nn.Module):
    """What a camera does to light: colours become others, a lens blurs, grain is added.

    Args:
        channels: of the image.
        features: of the colours that are told apart.
    """

    noise_channels = 1
    receptive_field = 5  # of the lens; the rest looks at one pixel and cannot move an edge

    def __init__(self, channels: int = 3, features: int = 16) -> None:
        super().__init__()
        self.bytes_per_pixel = 4 * (2 * features + 6 * channels)
        self.colours = nn.Sequential(
            nn.Conv2d(channels, features, 1), nn.ReLU(), nn.Conv2d(features, channels, 1)
        )
        for weight in self.colours[-1].parameters():
            nn.init.zeros_(weight)
        self.grain = nn.Parameter(torch.zeros(channels, 1, 1))
        self.blur = nn.Parameter(torch.zeros(()))
        row = torch.tensor([1.0, 4, 6, 4, 1]) / 16
        self.register_buffer("lens", torch.outer(row, row).expand(channels, 1, 5, 5).clone())

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] and (B, 1, H, W) -> (B, C, H, W)."""
        coloured = images + self.colours(images)
        padded = F.pad(coloured, (2, 2, 2, 2), mode="replicate")
        blurred = F.conv2d(padded, self.lens, groups=images.shape[1])
        seen = coloured + torch.tanh(self.blur) * (blurred - coloured)  # below 0 it sharpens
        return (seen + self.grain * noise).to(images.dtype)


# 2. The hook, the same as in an installed plugin.
@hookimpl
def simgan_register_refiners() -> Mapping[str, type[nn.Module]]:
    """Now `[refiner] name = "camera"` works."""
    return {"camera": CameraRefiner}


def config(steps: int) -> Config:
    """What differs from the default: few weights, which may move fast; hands held, backdrop free.

    With less weight on the hands it finds that these, too, may be painted green.
    """
    tables = {
        "refiner": {"name": "camera"},
        "regularization": {"weight": 0.3, "labels": {"background": 0.0, "labels": 4.0}},
        "tone": {"photos": 0},
        "training": {"steps": steps, "refiner_rate": 0.005, "average": 0.9},
    }
    return parse(tables, source="own_refiner.py")


def train(steps: int, out: Path) -> ImageRefiner:
    """Train on the hands; writes the sheet, synthetic over refined over real."""
    inputs = Inputs(
        annotations=HANDS / "synthetic.json", images=HANDS / "synthetic", real=HANDS / "real"
    )
    for step in Run(config(steps), inputs, out).steps():
        if step.number % 25 == 0:
            print(step.number, {name: round(loss, 3) for name, loss in step.losses.items()})
    refiner = ImageRefiner.load(out / REFINER)
    save_png(preview_folders(refiner, inputs.images, inputs.real), out / "sheet.png")
    print(f"sheet: {out / 'sheet.png'}")
    return refiner


def main() -> None:
    """Check, train, show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("own-run"), help="a new folder")
    given = parser.parse_args()

    # 3. The contract: each check says what is wrong, if anything, and what helps.
    check_refiner(CameraRefiner)
    print("the contract is kept")

    # 4. Training, as `simgan-aug train` does it, and a look.
    with offered(sys.modules[__name__], "own"):
        refiner = train(given.steps, given.out)

    # 5. The camera that was found.
    for name, colour in {"white": (250, 250, 250), "skin": (150, 110, 100)}.items():
        flat = np.full((32, 32, 3), colour, dtype=np.uint8)
        print(f"{name} {colour} becomes", refiner(flat).mean((0, 1)).round().astype(int).tolist())
    lens, grain = torch.tanh(refiner.network.blur).item(), refiner.network.grain.abs() * 255 / 2
    print(f"lens: {lens:+.2f} (1: it blurs over 5 px; below 0: it sharpens)")
    print("grain in grey levels:", [round(level, 1) for level in grain.flatten().tolist()])


if __name__ == "__main__":
    main()
