"""A Hugging Face dataset whose images are refined as they are read, in the workers of a loader.

    python examples/integrations/huggingface_datasets.py --refiner run/refiner.safetensors

The images reach `with_transform` as RGB. They are refined before the Compose, alone: a Compose
with `bbox_params` passes boxes through float32, and so changes them even where it does nothing.
No transformers needed; a `Trainer` takes the same dataset with `remove_unused_columns=False`.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import datasets
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from simgan_aug.transforms.albumentations import Refine, reseed

HANDS = Path(__file__).parents[1] / "data" / "hands"


def augment(rows: dict[str, list[Any]], refine: Refine, pipeline: A.Compose) -> dict[str, Any]:
    """Refine each image, then augment it with its boxes."""
    out: dict[str, list[Any]] = {"pixel_values": [], "boxes": [], "class": rows["class"]}
    for image, boxes in zip(rows["image"], rows["boxes"], strict=True):
        refined = refine(image=np.array(image.convert("RGB")))["image"]
        augmented = pipeline(image=refined, bboxes=boxes)
        pixels = np.ascontiguousarray(augmented["image"].transpose(2, 0, 1))
        out["pixel_values"].append(torch.from_numpy(pixels))  # (3, H, W) uint8
        out["boxes"].append(torch.tensor(np.array(augmented["bboxes"])))
    return out


def seed_worker(worker_id: int, pipeline: A.Compose) -> None:
    """albumentations 2.0.8 lets all workers draw alike; Refine sees to itself."""
    reseed(pipeline, torch.initial_seed())


def refined_loader(args: argparse.Namespace) -> DataLoader[Any]:
    """A dataset, its transform, and a loader whose workers run it."""
    refine = Refine(args.refiner, p=args.p, seed=0)
    boxes = A.BboxParams(format="coco")
    pipeline = A.Compose([A.HorizontalFlip()], bbox_params=boxes, seed=0)
    dataset = hands(args.annotations, args.images).with_transform(
        partial(augment, refine=refine, pipeline=pipeline)
    )
    return DataLoader(
        dataset,
        args.batch_size,
        shuffle=True,
        num_workers=args.workers,
        worker_init_fn=partial(seed_worker, pipeline=pipeline),
        collate_fn=collate,
    )


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Boxes stay a list: images have any number of them."""
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "class": torch.tensor([sample["class"] for sample in samples]),
        "boxes": [sample["boxes"] for sample in samples],
    }


def hands(annotations: Path, images: Path) -> datasets.Dataset:
    """A COCO file as a dataset with the columns image, boxes (x, y, width, height) and class."""
    coco = json.loads(annotations.read_text())
    number = {category["id"]: n for n, category in enumerate(coco["categories"])}
    rows = []
    for entry in coco["images"]:
        objects = [each for each in coco["annotations"] if each["image_id"] == entry["id"]]
        if objects:
            rows.append(
                {
                    "image": str(images / entry["file_name"]),
                    "boxes": [each["bbox"] for each in objects],
                    "class": number[objects[0]["category_id"]],
                }
            )
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, default=HANDS / "synthetic.json")
    parser.add_argument("--images", type=Path, default=HANDS / "synthetic")
    parser.add_argument("--refiner", required=True, help="a refiner file")
    parser.add_argument("--p", type=float, default=0.5, help="probability of refining an image")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    torch.manual_seed(0)
    loader = refined_loader(args)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for epoch in range(args.epochs):
        for batch in loader:
            scores = model(batch["pixel_values"].float() / 255)
            loss = nn.functional.cross_entropy(scores, batch["class"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"epoch {epoch}: loss {loss.item():.6f}")


if __name__ == "__main__":
    main()
