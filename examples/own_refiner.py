"""A refiner of one's own in one file, without installing anything: a camera in some 50 numbers.

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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug import ImageRefiner, hookimpl
from simgan_aug.config import Config, parse
from simgan_aug.preview import preview_folders
from simgan_aug.run import REFINER, Inputs, Run
from simgan_aug.sheet import save_png
from simgan_aug.testing import check_refiner, offered

HANDS = Path(__file__).parent / "data" / "hands"


# 1. The network. It adds something to the image, 0 at the start; it takes every height and width;
#    its only randomness is the noise that it is given.
class CameraRefiner(nn.Module):
    """What a camera does to light: a tone curve per channel, a lens that blurs, grain.

    Args:
        channels: of the image.
        knots: of each curve over brightness.
    """

    noise_channels = 1
    receptive_field = 5  # of the lens; curves and grain look at one pixel

    def __init__(self, channels: int = 3, knots: int = 9) -> None:
        super().__init__()
        self.bytes_per_pixel = 4 * (2 * channels * knots + 8 * channels)
        self.curve = nn.Parameter(torch.zeros(channels, knots))
        self.grain = nn.Parameter(torch.zeros(knots))
        self.blur = nn.Parameter(torch.zeros(()))
        row = torch.tensor([1.0, 4, 6, 4, 1]) / 16
        self.register_buffer("lens", torch.outer(row, row).expand(channels, 1, 5, 5).clone())

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] and (B, 1, H, W) -> (B, C, H, W)."""
        padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
        blurred = F.conv2d(padded, self.lens, groups=images.shape[1])
        seen = images + torch.tanh(self.blur) * (blurred - images)  # below 0 it sharpens
        toned = seen + torch.einsum("bckhw,ck->bchw", self._near(seen), self.curve)
        grey = self._near(seen.mean(1, keepdim=True))[:, 0]  # (B, knots, H, W)
        return (toned + noise * torch.einsum("bkhw,k->bhw", grey, self.grain)[:, None]).float()

    def _near(self, images: Tensor) -> Tensor:
        """How near each pixel is to each knot, 1 to 0: (B, C, H, W) -> (B, C, knots, H, W)."""
        knots = len(self.grain)
        places = torch.linspace(-1, 1, knots, device=images.device)[:, None, None]
        return (1 - (images.clamp(-1, 1)[:, :, None] - places).abs() * (knots - 1) / 2).relu()


# 2. The hook, the same as in an installed plugin.
@hookimpl
def simgan_register_refiners() -> Mapping[str, type[nn.Module]]:
    """Now `[refiner] name = "camera"` works."""
    return {"camera": CameraRefiner}


def config(steps: int) -> Config:
    """What differs from the default: few weights, which may move fast; hands held, backdrop free.

    Without the hold on hands it finds that they, too, can be painted green.
    """
    tables = {
        "refiner": {"name": "camera"},
        "regularization": {"labels": {"background": 0.0, "labels": 4.0}},
        "tone": {"photos": 0},
        "training": {"steps": steps, "refiner_rate": 0.01, "average": 0.9},
    }
    return parse(tables, source="own_refiner.py")


def train(steps: int, out: Path) -> nn.Module:
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
    return refiner.network


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
        camera = train(given.steps, given.out)

    # 5. The camera that was found.
    levels = camera.curve.mean(0) * 255 / 2
    print("grey levels added, dark to bright:", [round(level, 1) for level in levels.tolist()])
    grain = camera.grain.abs() * 255 / 2
    print("grain in grey levels:             ", [round(level, 1) for level in grain.tolist()])
    print(f"blur: {torch.tanh(camera.blur).item():+.2f} (1: a lens of 5 px; below 0: sharper)")


if __name__ == "__main__":
    main()
