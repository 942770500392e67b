"""torchvision's Keypoint R-CNN trained on COCO renders that are refined as they are loaded.

    python examples/integrations/torchvision_keypoints.py --refiner run/refiner.safetensors \\
        --annotations keypoints.json --images renders

It needs torchvision 0.23, the first whose transforms know keypoints.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.datasets import CocoDetection
from torchvision.models.detection import keypointrcnn_resnet50_fpn
from torchvision.transforms import v2

from simgan_aug.transforms.torchvision import Refine


def refined(args: argparse.Namespace) -> Poses:
    """Images with their keypoints; Refine comes first, for it was trained on renders."""
    transforms = v2.Compose(
        [
            Refine(args.refiner, p=args.p),
            v2.RandomZoomOut(side_range=(1, 1.5)),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return Poses(args.images, args.annotations, transforms)


class Poses(CocoDetection):  # type: ignore[misc]
    """Images with the keypoints of all in them, as torchvision's transforms know them.

    torchvision's own wrapper of COCO files leaves keypoints out.
    """

    def __init__(self, images: Path, annotations: Path, both: v2.Compose) -> None:
        super().__init__(images, annotations)
        self.both = both
        self.ids: list[int] = [i for i in self.ids if self._poses(self._load_target(i))]

    def __getitem__(self, index: int) -> Any:
        image, target = super().__getitem__(index)
        poses = self._poses(target)
        size = (image.height, image.width)
        boxes = torch.tensor([pose["bbox"] for pose in poses], dtype=torch.float32)
        boxes = tv_tensors.BoundingBoxes(boxes, format="XYWH", canvas_size=size)
        points = torch.tensor([pose["keypoints"] for pose in poses], dtype=torch.float32)
        points = points.view(len(poses), -1, 3)  # (N, K, 3): x, y, visibility
        return self.both(
            image,
            {
                "boxes": v2.functional.convert_bounding_box_format(boxes, new_format="XYXY"),
                "labels": torch.tensor([pose["category_id"] for pose in poses]),
                "keypoints": tv_tensors.KeyPoints(points[..., :2], canvas_size=size),
                "visible": points[..., 2:],
            },
        )

    @staticmethod
    def _poses(target: list[Any]) -> list[Any]:
        return [t for t in target if any(t.get("keypoints", [])[2::3]) and min(t["bbox"][2:]) > 0]


def train(args: argparse.Namespace) -> None:
    """Print the loss of each step."""
    torch.manual_seed(0)
    dataset = refined(args)
    model = keypointrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=max(dataset.coco.getCatIds()) + 1,  # 0 is the background
        num_keypoints=dataset[0][1]["visible"].shape[1],
        min_size=args.size,
    ).to(args.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)

    for step, (images, targets) in enumerate(batches(dataset, args), 1):
        images = [image.to(args.device) for image in images]
        loss = sum(model(images, [for_the_model(t, args.device) for t in targets]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.6f}", flush=True)


def for_the_model(target: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    """With places and visibility in one again, as it takes them."""
    points = torch.cat([target["keypoints"], target["visible"]], dim=-1)  # (N, K, 3)
    parts = {"boxes": target["boxes"], "labels": target["labels"], "keypoints": points}
    return {name: part.to(device) for name, part in parts.items()}


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
    parser.add_argument("--annotations", type=Path, required=True, help="a COCO keypoint file")
    parser.add_argument("--images", type=Path, required=True, help="the folder of its images")
    parser.add_argument("--refiner", required=True, help="a refiner file")
    parser.add_argument("--p", type=float, default=0.5, help="probability of refining an image")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--size", type=int, default=800, help="shorter side of what it sees")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
