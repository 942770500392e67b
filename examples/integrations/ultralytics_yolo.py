"""Train YOLO (Ultralytics) on refined renders.

    python examples/integrations/ultralytics_yolo.py --refiner run/refiner.safetensors --path cpu

--path cpu  `augmentations=[Refine(...)]`: image by image in the loader, after mosaic, BGR uint8.
--path gpu  `RefiningTrainer`: whole batches on the device that trains, which may also be a CPU.

The trap of the first: Ultralytics keeps `augmentations` by name, in checkpoints and for the
processes of multi-GPU training. A process in which nobody has imported the class, or where the
refiner's file is gone, logs one line and trains on with no augmentation at all. So always train,
and resume, with `trainer=CheckedTrainer`: it brings the import along, and stops without Refine.

    python examples/integrations/ultralytics_yolo.py --resume run/train/weights/last.pt --path cpu
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.data.augment import Albumentations
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import YAML

from simgan_aug.data import BatchRefiner
from simgan_aug.transforms.albumentations import Refine

HANDS = Path(__file__).parents[1] / "data" / "hands"


class CheckedTrainer(DetectionTrainer):
    """Trains only where Refine is in the pipeline; where this class goes, its import goes too."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Ultralytics' dataset, looked at."""
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train":
            hosts = [t for t in dataset.transforms.transforms if isinstance(t, Albumentations)]
            found = [each for host in hosts if host.transform for each in host.transform.transforms]
            if not any(isinstance(each, Refine) for each in found):
                raise RuntimeError("Refine is not in the pipeline; see 'albumentations:' above")
        return dataset


class RefiningTrainer(DetectionTrainer):
    """Refines each training batch on its device, and nothing that is validated.

    The file is named by an environment variable, for only that and the class itself reach the
    processes of multi-GPU training.
    """

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Ultralytics' batch, whose "img" is (B, 3, H, W) RGB in [0, 1], refined."""
        batch = super().preprocess_batch(batch)
        if not hasattr(self, "refine"):
            self.refine = BatchRefiner(os.environ["SIMGAN_REFINER"], p=0.5)
        self.refine.set_epoch(self.epoch)
        return self.refine(batch)


def train(args: argparse.Namespace) -> None:
    """Train from scratch, or go on from a checkpoint."""
    if args.refiner:
        os.environ["SIMGAN_REFINER"] = str(args.refiner.resolve())
    trainer = {"cpu": CheckedTrainer, "gpu": RefiningTrainer}[args.path]
    if args.resume:
        YOLO(args.resume).train(trainer=trainer, resume=True)
        return
    options: dict[str, Any] = {}
    if args.path == "cpu":  # in place of Ultralytics' own rare blurs; mosaic, flips, colours remain
        refine = Refine(args.refiner.resolve(), p=0.5, channel_order="bgr")
        options["augmentations"] = [refine]
    YOLO(args.model).train(
        trainer=trainer,
        data=to_yolo(args.annotations, args.images, args.out.resolve() / "data"),
        epochs=args.epochs,
        imgsz=args.imgsz,
        device=args.device,
        workers=args.workers,
        project=str(args.out.resolve()),  # absolute, as all paths that a checkpoint keeps
        name="train",
        plots=False,  # they would fetch a font
        **options,
    )


def to_yolo(annotations: Path, images: Path, out: Path) -> str:
    """Write a COCO file's boxes as a YOLO folder, and return the path of its data.yaml.

    Every tenth image is held out; where you have labelled photographs, hold out those instead.
    """
    coco = json.loads(annotations.read_text())
    classes = {category["id"]: n for n, category in enumerate(coco["categories"])}
    boxes = defaultdict(list)
    for annotation in coco["annotations"]:
        if not annotation.get("iscrowd"):
            boxes[annotation["image_id"]].append(annotation)
    for split in ("train", "val"):
        (out / "images" / split).mkdir(parents=True, exist_ok=True)
        (out / "labels" / split).mkdir(parents=True, exist_ok=True)
    for n, image in enumerate(coco["images"]):
        split, width, height = "train" if n % 10 else "val", image["width"], image["height"]
        source = images / image["file_name"]
        shutil.copy(source, out / "images" / split / f"{image['id']}{source.suffix}")
        lines = []
        for annotation in boxes[image["id"]]:
            x, y, w, h = annotation["bbox"]
            box = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(" ".join(map(str, (classes[annotation["category_id"]], *box))))
        (out / "labels" / split / f"{image['id']}.txt").write_text("\n".join(lines))
    names = {n: category["name"] for n, category in enumerate(coco["categories"])}
    content = {"path": str(out), "train": "images/train", "val": "images/val"}
    YAML.save(out / "data.yaml", content | {"names": names})
    return str(out / "data.yaml")


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, default=HANDS / "synthetic.json")
    parser.add_argument("--images", type=Path, default=HANDS / "synthetic")
    parser.add_argument("--refiner", type=Path, help="a refiner file; a checkpoint has its own")
    parser.add_argument("--path", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--model", default="yolo11n.yaml", help="untrained; a .pt is downloaded")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--imgsz", type=int, default=96)
    parser.add_argument("--device", help="'cpu', '0', '0,1'; else what there is")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--resume", help="a last.pt of an interrupted run")
    parser.add_argument("--out", type=Path, default=Path("run"))
    args = parser.parse_args()
    if not (args.refiner or (args.resume and args.path == "cpu")):
        parser.error("--refiner is needed, except to resume with --path cpu")
    train(args)


if __name__ == "__main__":
    main()
