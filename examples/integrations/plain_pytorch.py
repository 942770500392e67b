"""A plain PyTorch loop on refined renders, in two ways.

    python examples/integrations/plain_pytorch.py --refiner run/refiner.safetensors --where batch

--where batch   `RefinedLoader` refines whole batches after they are collated; on a GPU it works one
                batch ahead. What is drawn for an image depends on the seed, the epoch and its id.
--where worker  albumentations' `Refine` refines image by image in the loader's workers, on the CPU.

The task is a small classifier of the hands shipped with the sources.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from simgan_aug.data import RefinedLoader
from simgan_aug.transforms.albumentations import Refine, reseed_worker

HANDS = Path(__file__).parents[1] / "data" / "hands"


class Hands(Dataset[Any]):
    """Images of a COCO file, (3, H, W) uint8, each with its id and the class of its first object.

    Args:
        pipeline: where `reseed_worker` looks for it: in an attribute.
    """

    def __init__(self, annotations: Path, images: Path, pipeline: A.Compose | None = None) -> None:
        coco = json.loads(annotations.read_text())
        number = {category["id"]: n for n, category in enumerate(coco["categories"])}
        first: dict[int, int] = {}
        for annotation in coco["annotations"]:
            first.setdefault(annotation["image_id"], number[annotation["category_id"]])
        self.entries = [entry for entry in coco["images"] if entry["id"] in first]
        self.images, self.classes, self.pipeline = images, first, pipeline

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int]]:
        entry = self.entries[index]
        image = np.array(Image.open(self.images / entry["file_name"]).convert("RGB"))
        if self.pipeline is not None:
            image = self.pipeline(image=image)["image"]
        target = {"image_id": entry["id"], "class": self.classes[entry["id"]]}
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), target


def refined_batches(args: argparse.Namespace) -> Iterable[Any]:
    """Images are refined after collating, next to the model."""
    dataset = Hands(args.annotations, args.images)
    loader = DataLoader(dataset, args.batch_size, shuffle=True, num_workers=args.workers)
    return RefinedLoader(loader, args.refiner, p=args.p, device=args.device)


def refined_in_workers(args: argparse.Namespace) -> Iterable[Any]:
    """Images are refined in the workers; Refine comes first: it was trained on whole renders."""
    pipeline = A.Compose([Refine(args.refiner, p=args.p), A.HorizontalFlip()], seed=0)
    dataset = Hands(args.annotations, args.images, pipeline)
    return DataLoader(
        dataset,
        args.batch_size,
        shuffle=True,
        num_workers=args.workers,
        worker_init_fn=reseed_worker,  # else all workers flip alike
    )


def train(args: argparse.Namespace) -> None:
    """Print the loss of each step."""
    torch.manual_seed(0)
    loader = {"batch": refined_batches, "worker": refined_in_workers}[args.where](args)
    model = small_network().to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    for epoch in range(args.epochs):
        if hasattr(loader, "set_epoch"):  # a RefinedLoader; it would also count by itself
            loader.set_epoch(epoch)
        for images, target in loader:  # images: (B, 3, H, W) uint8
            scores = model(images.to(args.device).float() / 255)
            loss = nn.functional.cross_entropy(scores, target["class"].to(args.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"epoch {epoch}: loss {loss.item():.6f}")


def small_network() -> nn.Module:
    """Three convolutions and a mean."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(64, 3),
    )


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, default=HANDS / "synthetic.json")
    parser.add_argument("--images", type=Path, default=HANDS / "synthetic")
    parser.add_argument("--refiner", required=True, help="a refiner file")
    parser.add_argument("--where", choices=("batch", "worker"), default="batch")
    parser.add_argument("--p", type=float, default=0.5, help="probability of refining an image")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
