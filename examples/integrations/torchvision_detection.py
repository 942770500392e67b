"""A torchvision detector trained on COCO renders that are refined as they are loaded.

    python examples/integrations/torchvision_detection.py --refiner run/refiner.safetensors

The task is the detector of the hands shipped with the sources.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import tv_tensors
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.transforms import v2

from simgan_aug.transforms.torchvision import Refine

HANDS = Path(__file__).parents[1] / "data" / "hands"


def refined(args: argparse.Namespace) -> Any:
    """Images with their boxes and labels; Refine comes first, for it was trained on renders."""
    floats = (tv_tensors.Image, tv_tensors.BoundingBoxes)
    transforms = v2.Compose(
        [
            Refine(args.refiner, p=args.p),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype({**dict.fromkeys(floats, torch.float32), "others": None}, scale=True),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    dataset = CocoDetection(args.images, args.annotations, transforms=transforms)
    return wrap_dataset_for_transforms_v2(dataset, target_keys=("boxes", "labels"))


def train(args: argparse.Namespace) -> None:
    """Print the loss of each step."""
    torch.manual_seed(0)
    dataset = refined(args)
    classes = max(dataset.coco.getCatIds()) + 1  # 0 is the background
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=classes
    ).to(args.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)

    boxed = [row for row, image in enumerate(dataset.ids) if dataset.coco.getAnnIds(image)]
    for step, (images, targets) in enumerate(batches(Subset(dataset, boxed), args), 1):
        images = [image.to(args.device) for image in images]
        targets = [{name: part.to(args.device) for name, part in t.items()} for t in targets]
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.6f}", flush=True)


def batches(dataset: Dataset[Any], args: argparse.Namespace) -> Iterator[Any]:
    """One for each step: a tuple of images and one of targets."""
    loader = DataLoader(
        dataset, args.batch_size, shuffle=True, num_workers=args.workers, collate_fn=transposed
    )
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    return itertools.islice(epochs, args.steps)


def transposed(samples: list[Any]) -> tuple[Any, ...]:
    """Images of all sizes cannot be stacked."""
    return tuple(zip(*samples, strict=True))


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, default=HANDS / "synthetic.json")
    parser.add_argument("--images", type=Path, default=HANDS / "synthetic")
    parser.add_argument("--refiner", required=True, help="a refiner file")
    parser.add_argument("--p", type=float, default=0.5, help="probability of refining an image")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
