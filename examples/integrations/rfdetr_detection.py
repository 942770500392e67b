"""Train RF-DETR on refined renders: the batch is refined once it is on the device.

    python examples/integrations/rfdetr_detection.py --refiner run/refiner.safetensors --out run

`RFDETR.train()` takes no transform of yours; the three Lightning parts that it is made of do, and
the hook is the data module's. RF-DETR hands over images that are normalised (on its CPU path), so
that is undone for the refiner and done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from rfdetr.config import RFDETRNanoConfig, TrainConfig
from rfdetr.training import RFDETRDataModule, RFDETRModelModule, build_trainer

from simgan_aug.data import BatchRefiner

HANDS = Path(__file__).parents[1] / "data" / "hands"


class RefinedData(RFDETRDataModule):
    """RF-DETR's data, the training images refined; "image_id" in the targets keys the draws."""

    refine: BatchRefiner

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Refine what is trained on; images.tensors: (B, 3, H, W), normalised as for ImageNet."""
        images, targets = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.trainer.training:
            self.refine.set_epoch(self.trainer.current_epoch)
            mean = images.tensors.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
            std = images.tensors.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
            pixels = (images.tensors * std + mean).clamp(0, 1)
            images.tensors = (self.refine((pixels, targets))[0] - mean) / std
        return images, targets


def train(args: argparse.Namespace) -> None:
    """Train, from scratch unless there are weights."""
    folder = to_roboflow(args.annotations, args.images, args.out / "data")
    classes = len(json.loads(args.annotations.read_text())["categories"])
    model = RFDETRNanoConfig(
        pretrain_weights=args.weights, num_classes=classes, resolution=args.resolution
    )
    options = TrainConfig(
        dataset_dir=str(folder),
        output_dir=str(args.out),
        epochs=args.epochs,
        batch_size=args.batch_size,
        num_workers=args.workers,
    )
    data = RefinedData(model, options)
    data.refine = BatchRefiner(args.refiner, p=args.p)
    trainer = build_trainer(
        options, model, accelerator=args.accelerator, fast_dev_run=args.fast_dev_run
    )
    trainer.fit(RFDETRModelModule(model, options), data)


def to_roboflow(annotations: Path, images: Path, out: Path) -> Path:
    """Write the folders train and valid that RF-DETR reads; every tenth image is held out.

    Hold out photographs instead, where you have some with labels.
    """
    coco = json.loads(annotations.read_text())
    for split in ("train", "valid"):
        (out / split).mkdir(parents=True, exist_ok=True)
        part = [e for n, e in enumerate(coco["images"]) if (n % 10 == 0) == (split == "valid")]
        ids = {entry["id"] for entry in part}
        objects = [each for each in coco["annotations"] if each["image_id"] in ids]
        content = {**coco, "images": part, "annotations": objects}
        (out / split / "_annotations.coco.json").write_text(json.dumps(content))
        for entry in part:
            shutil.copy(images / entry["file_name"], out / split / entry["file_name"])
    return out


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, default=HANDS / "synthetic.json")
    parser.add_argument("--images", type=Path, default=HANDS / "synthetic")
    parser.add_argument("--refiner", required=True, help="a refiner file")
    parser.add_argument("--p", type=float, default=0.5, help="probability of refining an image")
    parser.add_argument("--weights", help="such as rf-detr-nano.pth, which is downloaded")
    parser.add_argument("--resolution", type=int, default=384, help="a multiple of 32")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fast-dev-run", type=int, default=0, help="only try so many batches")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--out", type=Path, default=Path("run"))
    train(parser.parse_args())


if __name__ == "__main__":
    main()
