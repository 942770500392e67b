"""What benchmarks work on: scaled photos, untrained refiners as fast as trained ones, peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from simgan_aug import tone
from simgan_aug.bank import Bank
from simgan_aug.checkpoint import Checkpoint, save_checkpoint
from simgan_aug.config import Config, Part, Tone
from simgan_aug.configfile import load_preset
from simgan_aug.folders import list_images
from simgan_aug.networks import UnshuffleRefiner

Array = np.ndarray[Any, Any]

PEERS = {
    "HistogramMatching": "hm_metadata",
    "PixelDistributionAdaptation": "pda_metadata",
    "FDA": "fda_metadata",
}
"""albumentations' transforms that take a real photo, with the key under which they do."""


class Peer:
    """A transform of albumentations that takes a random real photo for each image."""

    def __init__(self, name: str, photos: list[Path]) -> None:
        self.name, self.photos = name, photos
        self._made: tuple[Any, list[Array], np.random.Generator] | None = None

    def __call__(self, image: Array) -> Array:
        """(H, W, 3) uint8 -> the same."""
        import albumentations as A

        key = PEERS[self.name]
        if self._made is None:
            decoded = [decoded_image(photo) for photo in self.photos]
            transform = A.Compose([getattr(A, self.name)(metadata_key=key, p=1)])
            self._made = transform, decoded, np.random.default_rng(0)
        transform, photos, rng = self._made
        photo = photos[rng.integers(len(photos))]
        out: Array = transform(image=image, **{key: [photo]})["image"]
        return out


def networks_of_ours(scratch: Path, photos: Sequence[Path]) -> dict[str, Path]:
    """What the presets "default" and "wide" keep, untrained."""
    return {
        "ours, default": untrained(scratch / "default.safetensors", photos),
        "ours, wide": untrained(scratch / "wide.safetensors", photos, {}),
    }


def untrained(path: Path, photos: Sequence[Path], options: Mapping[str, Any] | None = None) -> Path:
    """Write a refiner that draws something; its speed is that of a trained one.

    Args:
        path: of the file.
        photos: whose tones its tone step draws from; none: there is no such step.
        options: of `unshuffle`; None: those of what the default preset keeps.
    """
    if options is None:
        options = load_preset("default").of_student().refiner.options
    torch.manual_seed(0)
    network = UnshuffleRefiner(3, **options)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    if network.pixels is not None:
        torch.nn.init.normal_(network.pixels.drawn.weight, std=0.02)
    config = Config(
        refiner=Part(name="unshuffle", options=dict(options)), tone=Tone(photos=len(photos))
    )
    bank = _bank(photos) if photos else None
    save_checkpoint(path, Checkpoint(network, 3, bank, config, {}))
    return path


def scaled(folder: Path, out: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Photos of a folder as `count` JPEGs of this width and height, in a new folder."""
    out.mkdir(parents=True)
    files = []
    for number, name in enumerate(islice(cycle(list_images(folder)), count)):
        path = out / f"{number:05d}.jpg"
        with Image.open(folder / name) as file:
            file.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        files.append(path)
    return files


def decoded_image(path: Path) -> Array:
    """A file as (H, W, 3) uint8."""
    with Image.open(path) as file:
        return np.array(file.convert("RGB"))


def private_mb() -> float:
    """Memory in MiB that this process shares with no other; nan where there is no /proc to say."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return float("nan")
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def _bank(photos: Sequence[Path]) -> Bank:
    """As of a run whose synthetic images have the photos' tones."""
    decoded = (torch.from_numpy(decoded_image(photo)).movedim(-1, 0)[None] for photo in photos)
    tones = torch.cat([tone.tones_of(image.float() / 255) for image in decoded])
    return Bank(tones).balanced(tones)
