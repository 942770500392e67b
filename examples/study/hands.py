"""Does refining help? A small classifier trained on rendered hands, scored on photographed ones.

    python examples/study/hands.py --data DIR --reading grey --work WORK --arms raw hm ours

Every arm has the same network, steps, augmentation and seeds; what differs is what happens to the
rendered images. The real training photos are used without their labels, but for the oracle arm.
Results accumulate in WORK/results.jsonl (a finished cell is not run again); `--table` prints them.
Trained and scored on a GPU where there is one; `--jobs 12` runs so many cells side by side.

Readings: "raw" is the pair as it is (white against green backdrop); "grey" sets the backdrop of
both sides to 128 through the mask, eroded by one pixel, so that the gap is skin, light and sensor;
what an arm does to the backdrop is undone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import functools
import json
import multiprocessing
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from simgan_aug import coco, geometry
from simgan_aug.config import Config
from simgan_aug.configfile import load_config, load_preset
from simgan_aug.devices import resolve_device, resolve_precision
from simgan_aug.displacement import REACH, locate, structure
from simgan_aug.inference import ImageRefiner
from simgan_aug.run import Inputs
from simgan_aug.study.gains import student
from simgan_aug.study.refiners import train_refiner

SPLITS = ("synthetic_train", "real_train", "real_test")
SIZE = (96, 64)  # width, height; the files are 192x128
Array = np.ndarray[Any, Any]


def prepare(data: Path, reading: str, size: tuple[int, int], out: Path) -> None:
    """Write the pair at one size in one reading, as PNG with COCO files."""
    for split in SPLITS:
        if (out / f"{split}.json").exists():
            continue
        listed = json.loads((data / f"{split}.json").read_text())
        labels = coco.read_labels(data / f"{split}.json")
        (out / split).mkdir(parents=True, exist_ok=True)
        for entry in listed["images"]:
            pixels = np.array(Image.open(data / split / entry["file_name"]).convert("RGB"))
            if reading == "grey":
                mask = np.zeros(pixels.shape[:2], bool)
                for annotation in labels.by_image[entry["id"]]:
                    mask |= geometry.mask_of(annotation, *pixels.shape[:2])
                kept = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
                pixels[~kept] = 128
            entry["file_name"] = Path(entry["file_name"]).with_suffix(".png").name
            small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
            small.save(out / split / entry["file_name"])
            entry["width"], entry["height"] = size
        for annotation in listed["annotations"]:
            factors = np.tile([size[0] / 192, size[1] / 128], 2)
            annotation["bbox"] = [float(v) for v in np.array(annotation["bbox"]) * factors]
            decoded = geometry.mask_of(
                coco.Annotation(0, segmentation=annotation["segmentation"]), 128, 192
            )
            annotation["segmentation"] = rle(
                cv2.resize(decoded.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
            )
        (out / f"{split}.json").write_text(json.dumps(listed))


def rle(mask: Array) -> dict[str, Any]:
    """A mask as compressed RLE that JSON can hold."""
    from pycocotools import mask as codec

    packed = codec.encode(np.asfortranarray(mask))
    return {"size": packed["size"], "counts": packed["counts"].decode()}


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, classes and masks of one split in memory."""

    images: Array  # (N, H, W, 3) uint8
    classes: Array  # (N,) int64
    masks: Array  # (N, H, W) bool


@functools.cache
def read(folder: Path, split: str) -> Split:
    """One prepared split."""
    labels = coco.read_labels(folder / f"{split}.json")
    order = sorted(labels.categories)
    images, classes, masks = [], [], []
    for entry in coco.read_images(folder / f"{split}.json"):
        image = np.array(Image.open(folder / split / entry.file_name).convert("RGB"))
        (first, *_) = labels.by_image[entry.id]
        images.append(image)
        classes.append(order.index(first.category_id))
        masks.append(geometry.mask_of(first, *image.shape[:2]))
    return Split(np.stack(images), np.array(classes), np.stack(masks))


Arm = Callable[[Array, int], Array]
"""(synthetic images, epoch) -> images to train on."""


def colour_matched(real: Array) -> Arm:
    """Mean and deviation per channel of the whole set."""

    def apply(images: Array, epoch: int) -> Array:
        values = images.astype(np.float32)
        mean, std = (values.mean((0, 1, 2)), values.std((0, 1, 2)))
        wanted, spread = real.mean((0, 1, 2)), real.std((0, 1, 2))
        return ((values - mean) / std * spread + wanted).clip(0, 255).round().astype(np.uint8)

    return apply


def albumented(kind: str, real: Array) -> Arm:
    """HistogramMatching or FDA of albumentations with a random real photo per image and epoch."""
    key = {"hm": "hm_metadata", "fda": "fda_metadata"}[kind]
    make = {
        "hm": lambda: A.HistogramMatching(metadata_key=key, p=1),
        "fda": lambda: A.FDA(metadata_key=key, p=1),
    }[kind]

    def apply(images: Array, epoch: int) -> Array:
        rng = np.random.default_rng([7, epoch])
        pipeline = A.Compose([make()], seed=epoch)
        return np.stack(
            [pipeline(image=i, **{key: [real[rng.integers(len(real))]]})["image"] for i in images]
        )

    return apply


def refined(path: Path) -> Arm:
    """Our refiner, with another seed for every image and epoch."""
    refiner = ImageRefiner.load(path)

    def apply(images: Array, epoch: int) -> Array:
        made, first = [], epoch * len(images)
        for start in range(0, len(images), 64):
            made.append(refiner(images[start : start + 64], seed=first + start))
        return np.concatenate(made)

    return apply


def on_grey(arm: Arm) -> Arm:
    """The arm, its backdrop set back to grey: this reading compares what happens to the hand."""

    def apply(images: Array, epoch: int) -> Array:
        backdrop = (images == 128).all(axis=3, keepdims=True)
        return np.where(backdrop, images, arm(images, epoch))

    return apply


def mixed(first: Arm, second: Arm) -> Arm:
    """Every image by one of two arms, drawn anew each epoch."""

    def apply(images: Array, epoch: int) -> Array:
        choice = np.random.default_rng([11, epoch]).random(len(images)) < 0.5
        return np.where(choice[:, None, None, None], first(images, epoch), second(images, epoch))

    return apply


class Probe(nn.Sequential):
    """A small classifier."""

    def __init__(self, classes: int) -> None:
        layers: list[nn.Module] = []
        for i, o in ((3, 32), (32, 64), (64, 128), (128, 128)):
            layers += [
                nn.Conv2d(i, o, 5 if i == 3 else 3, stride=2, padding=2 if i == 3 else 1),
                nn.BatchNorm2d(o),
                nn.ReLU(),
            ]
        super().__init__(
            *layers,
            nn.AdaptiveAvgPool2d((2, 3)),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(768, classes),
        )


def augment(batch: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Flip, small affine, light jitter: the same for every arm."""
    n = len(batch)

    def uniform(low: float, high: float) -> torch.Tensor:
        return (torch.rand(n, generator=draws) * (high - low) + low).to(batch.device)

    angle, zoom = uniform(-0.2, 0.2), uniform(0.85, 1.15)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack(
        [
            torch.stack([cos * flip, -sin, uniform(-0.1, 0.1)], 1),
            torch.stack([sin * flip, cos, uniform(-0.1, 0.1)], 1),
        ],
        1,
    )
    batch = F.grid_sample(
        batch,
        F.affine_grid(theta, list(batch.shape), align_corners=False),
        padding_mode="reflection",
        align_corners=False,
    )
    gain, shift = uniform(0.85, 1.15), uniform(-0.1, 0.1)
    return batch * gain[:, None, None, None] + shift[:, None, None, None]


def train_probe(
    images: Array, classes: Array, arm: Arm, seed: int, epochs: int = 10, batch: int = 64
) -> nn.Module:
    """Train the classifier on what an arm makes of the images."""
    torch.manual_seed(seed)
    draws, device = torch.Generator().manual_seed(seed), resolve_device("auto")
    probe = Probe(3).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=1e-2)
    per_epoch = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * per_epoch)
    targets = torch.from_numpy(classes)
    is_short = resolve_precision("auto", device) == "bf16"
    for epoch in range(epochs):
        shown = torch.from_numpy(arm(images, seed * 1000 + epoch)).permute(0, 3, 1, 2)
        for rows in torch.randperm(len(images), generator=draws)[: per_epoch * batch].split(batch):
            images_of = shown[rows].to(device).float() / 127.5 - 1
            inputs = augment(images_of, draws).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, is_short):
                loss = F.cross_entropy(probe(inputs).float(), targets[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return probe.eval()


@torch.no_grad()
def accuracy(probe: nn.Module, split: Split) -> float:
    """Share of a split that a probe gets right."""
    device = next(probe.parameters()).device
    inputs = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    predicted = torch.cat([probe(part.to(device)).argmax(1) for part in inputs.split(128)])
    return float((predicted.cpu().numpy() == split.classes).mean())


def drift(before: Array, after: Array, masks: Array) -> tuple[float, float]:
    """Median and 95th percentile, over labels, of the px that the picture under a box has moved.

    A label whose picture is not to be found any more counts as moved by `REACH`.
    """
    shifts = []
    for old, new, mask in zip(before, after, masks, strict=True):
        box = cv2.boundingRect(mask.astype(np.uint8))
        place = locate(structure(old), structure(new), box)
        if place is not None:
            shifts.append(place.distance if place.is_found else REACH)
    return float(np.median(shifts)), float(np.percentile(shifts, 95))


def refiner_for(name: str, folder: Path, work: Path, seed: int, minutes: float | None) -> Path:
    """Train (or find) the refiner of an arm; `minutes` ends training early, for equal time."""
    out = work / "runs" / f"{folder.name}-{name}-{seed}"
    out.parent.mkdir(exist_ok=True)
    with (out.parent / f"{out.name}.lock").open("w") as lock:  # an arm beside it may want it too
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "done.json").exists():
            began = time.monotonic()
            with contextlib.closing(_training(name, folder, work, seed, out)) as steps:
                for _ in steps:
                    if minutes and time.monotonic() - began > 60 * minutes:
                        break
            (out / "done.json").write_text(json.dumps({"seconds": time.monotonic() - began}))
    return out / "refiner.safetensors"


def _training(name: str, folder: Path, work: Path, seed: int, out: Path) -> Generator[None]:
    """A training of an arm's config, which goes on where it was cut off."""
    config = arm_config(name, work)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
    inputs = Inputs(
        annotations=folder / "synthetic_train.json",
        images=folder / "synthetic_train",
        real=folder / "real_train",
    )
    yield from train_refiner(config, inputs, out, "auto")


def arm_config(name: str, work: Path) -> Config:
    """A TOML file WORK/configs/NAME.toml, beside this script, or a preset."""
    for folder in (work / "configs", Path(__file__).parent):
        if (folder / f"{name}.toml").exists():
            return load_config(folder / f"{name}.toml")
    return load_preset(name)


def make_arm(name: str, folder: Path, work: Path, seed: int, minutes: float | None) -> Arm:
    """The arm of a name.

    raw, colour, hm, fda, oracle, or a refiner's config, with "+raw" or "+hm" mixed in.
    """
    real = read(folder, "real_train").images
    if "+" in name:
        first, second = name.split("+")
        return mixed(*(make_arm(part, folder, work, seed, minutes) for part in (first, second)))
    if name in ("raw", "oracle"):
        return lambda images, epoch: images
    if name == "colour":
        return colour_matched(real)
    if name in ("hm", "fda"):
        return albumented(name, real)
    return refined(refiner_for(name, folder, work, seed, minutes))


def run_cell(
    name: str, reading: str, seed: int, work: Path, minutes: float | None
) -> dict[str, Any]:
    """One arm, one seed: accuracy on real test photos, label drift, seconds.

    `reading` is the name of a prepared folder of `work`.
    """
    folder, began = work / reading, time.monotonic()
    arm = make_arm(name, folder, work, seed, minutes)
    if reading.startswith("grey"):
        arm = on_grey(arm)
    prepared = time.monotonic() - began
    train, test = (
        read(folder, "real_train" if name == "oracle" else "synthetic_train"),
        read(folder, "real_test"),
    )
    score = accuracy(train_probe(train.images, train.classes, arm, seed), test)
    few = np.arange(0, len(train.images), max(1, len(train.images) // 300))
    p50, p95 = drift(train.images[few], arm(train.images[few], 0), train.masks[few])
    return {
        "arm": name,
        "reading": reading,
        "seed": seed,
        "accuracy": round(score, 4),
        "drift_p50": round(p50, 3),
        "drift_p95": round(p95, 3),
        "refiner_s": round(prepared, 1),
        "total_s": round(time.monotonic() - began, 1),
    }


def interval(values: list[float]) -> str:
    """Mean and 95% interval over seeds, by Student's t; one seed has none."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return f"{mean:+.3f}"
    half = student(count - 1, 0.025) * float(np.std(values, ddof=1)) / count**0.5
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def table(work: Path) -> str:
    """All results as Markdown: accuracies by seed, the gain over raw paired by seed, the drift."""
    cells = [json.loads(line) for line in (work / "results.jsonl").read_text().splitlines()]
    scores: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for cell in sorted(cells, key=lambda cell: (cell["reading"], cell["seed"])):
        scores.setdefault((cell["reading"], cell["arm"]), {})[cell["seed"]] = cell
    lines = [
        "| reading | arm | accuracy by seed | mean | over raw, 95% interval | p50 px | p95 px |",
        "|---|---|---|---|---|---|---|",
    ]
    for (reading, arm), rows in scores.items():
        raw = scores.get((reading, "raw"), {})
        gains = [rows[s]["accuracy"] - raw[s]["accuracy"] for s in rows if s in raw]
        seeds = " ".join(f"{row['accuracy']:.3f}" for row in rows.values())
        mean = np.mean([row["accuracy"] for row in rows.values()])
        p50, p95 = (max(r[key] for r in rows.values()) for key in ("drift_p50", "drift_p95"))
        gain = interval(gains) if gains and arm != "raw" else ""
        lines.append(
            f"| {reading} | {arm} | {seeds} | {mean:.3f} | {gain} | {p50:.2f} | {p95:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are asked for and not yet done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with synthetic_train.json and so on")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--reading", choices=("grey", "raw"), default="grey")
    parser.add_argument("--arms", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--size", nargs=2, type=int, default=SIZE, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--jobs", type=int, default=1, help="cells at once")
    parser.add_argument("--minutes", type=float, help="end each refiner's training after so long")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    size = tuple(args.size)
    reading = args.reading if size == SIZE else f"{args.reading}-{size[0]}x{size[1]}"
    if args.data:
        prepare(args.data, args.reading, size, args.work / reading)
    results = args.work / "results.jsonl"
    done = (
        {
            tuple(json.loads(line)[k] for k in ("arm", "reading", "seed"))
            for line in results.read_text().splitlines()
        }
        if results.exists()
        else set()
    )
    wanted = [(name, reading, seed) for name in args.arms for seed in args.seeds]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(args.jobs, mp_context=spawn) as pool:
        cells = [
            pool.submit(run_cell, *cell, args.work, args.minutes)
            for cell in wanted
            if cell not in done
        ]
        for cell in concurrent.futures.as_completed(cells):
            if cell.exception() is None:  # those that fail are told of in the end
                with results.open("a") as file:
                    file.write(json.dumps(cell.result()) + "\n")
                print(json.dumps(cell.result()), flush=True)
        for cell in cells:
            cell.result()
    if args.table:
        print(table(args.work))


if __name__ == "__main__":
    main()
