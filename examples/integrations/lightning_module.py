"""A LightningModule that refines its training batches once they are on the device.

    python examples/integrations/lightning_module.py --refiner run/refiner.safetensors --out run

`BatchRefiner` is no `nn.Module`: its network is in no `state_dict`, no optimizer, no summary, and
goes to whatever device the batch is on. A DataModule has the same hook. The task is a small
classifier of the hands shipped with the sources.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from simgan_aug.data import BatchRefiner

HANDS = Path(__file__).parents[1] / "data" / "hands"


class Classifier(lightning.LightningModule):
    """Rock, paper or scissors."""

    def __init__(self, refiner: str, p: float) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)),
        )
        self.refine = BatchRefiner(refiner, p=p)

    def on_train_epoch_start(self) -> None:
        """What is drawn for an image depends on the epoch."""
        self.refine.set_epoch(self.current_epoch)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Refine what is trained on, and neither what is validated nor predicted."""
        return self.refine(batch) if self.trainer.training else batch

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of one batch of refined images."""
        loss = self._loss(batch)
        self.print(f"step {self.global_step}: loss {loss.item():.6f}")
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The loss of one batch of images as they are."""
        loss = self._loss(batch)
        self.print(f"validation: loss {loss.item():.6f}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """All parameters there are: the refiner's are not among them."""
        return torch.optim.AdamW(self.parameters(), 1e-3)

    def _loss(self, batch: Any) -> Tensor:
        images, target = batch  # images: (B, 3, H, W) uint8
        return nn.functional.cross_entropy(self.network(images.float() / 255), target["class"])


class Hands(Dataset[Any]):
    """Images of a COCO file, (3, H, W) uint8, with their id and the class of their first object."""

    def __init__(self, annotations: Path, images: Path) -> None:
        coco = json.loads(annotations.read_text())
        number = {category["id"]: n for n, category in enumerate(coco["categories"])}
        self.classes: dict[int, int] = {}
        for annotation in coco["annotations"]:
            self.classes.setdefault(annotation["image_id"], number[annotation["category_id"]])
        self.entries = [entry for entry in coco["images"] if entry["id"] in self.classes]
        self.images = images

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int]]:
        entry = self.entries[index]
        image = np.array(Image.open(self.images / entry["file_name"]).convert("RGB"))
        target = {"image_id": entry["id"], "class": self.classes[entry["id"]]}
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), target


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, default=HANDS / "synthetic.json")
    parser.add_argument("--images", type=Path, default=HANDS / "synthetic")
    parser.add_argument("--refiner", required=True, help="a refiner file")
    parser.add_argument("--p", type=float, default=0.5, help="probability of refining an image")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=-1, help="stop after so many")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--out", type=Path, default=Path("run"), help="folder for model.ckpt")
    args = parser.parse_args()

    lightning.seed_everything(0)
    dataset = Hands(args.annotations, args.images)
    train = DataLoader(dataset, args.batch_size, shuffle=True, num_workers=args.workers)
    validation = DataLoader(dataset, args.batch_size, num_workers=args.workers)
    trainer = lightning.Trainer(
        accelerator=args.accelerator,
        max_epochs=args.epochs,
        max_steps=args.steps,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=args.out,
    )
    trainer.fit(Classifier(args.refiner, args.p), train, validation)
    trainer.save_checkpoint(args.out / "model.ckpt")


if __name__ == "__main__":
    main()
