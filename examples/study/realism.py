"""Can the distances to real be trusted? Their floor, what lies between, what duplicates do.

    python examples/study/realism.py --synthetic DIR --real DIR [--limit 300]

1. Synthetic images as they are, and after albumentations' HistogramMatching with random photos.
2. Real photos against their own JPEG forms, and bursts of JPEG forms of different photos: the truth
   is chance and 0, and what is told without groups is a leak.
3. How often the interval of real against real holds chance; it should in 95 of 100 draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch

from simgan_aug.folders import list_images
from simgan_aug.imagefile import read_image
from simgan_aug.pixels import to_display
from simgan_aug.realism import Comparison, Distance, compare, features, kid, two_sample_test

Array = np.ndarray[Any, Any]
QUALITIES = (95, 85, 75, 65, 55)


def main() -> None:
    """Read the two folders and print the three parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--synthetic", type=Path, required=True)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=300, help="images of each (default 300)")
    settings = parser.parse_args()
    rng = np.random.default_rng(0)
    synthetic, real = (images(f, settings.limit, rng) for f in (settings.synthetic, settings.real))
    match = A.HistogramMatching(metadata_key="photos", p=1, blend_ratio=(1, 1))
    matched = [match(image=i, photos=[real[rng.integers(len(real))]])["image"] for i in synthetic]
    show(compare(synthetic, real, matched))
    near_duplicates(real, rng)
    calibration(features(real, 3), rng)


def images(folder: Path, limit: int, rng: np.random.Generator) -> list[Array]:
    """Some images of a folder, in colour."""
    names = list_images(folder)
    rows = np.sort(rng.permutation(len(names))[:limit])
    return [to_display(read_image(folder / names[row]).pixels) for row in rows]


def show(found: Comparison) -> None:
    """A line for each measure."""
    print(f"synthetic, tone matched, real: {dict(found.counts)}")
    for measure in found.measures:
        parts = ("floor", "refined", "ceiling")
        told = "   ".join(f"{part} {text(getattr(measure, part))}" for part in parts)
        closed = "cannot be told" if measure.closed is None else f"{measure.closed:.0%}"
        print(f"  {measure.name:20} {told}   closed {closed}")


def near_duplicates(real: list[Array], rng: np.random.Generator) -> None:
    """What is told of sets that hold forms of the same photos, with groups and without."""
    count = len(real) // 2 * 2
    photos, forms = features(real[:count], 3), features([jpeg(i, 60) for i in real[:count]], 3)
    first = torch.from_numpy(rng.random(count) < 0.5)[:, None]
    once = torch.where(first, photos, forms), torch.where(first, forms, photos)
    print("every photo in both sets, in one of them as JPEG:")
    told(once, (range(count), range(count)))
    some = count // 5 // 2 * 2
    bursts = features([jpeg(image, q) for image in real[:some] for q in QUALITIES], 3)
    photo, half = np.repeat(np.arange(some), len(QUALITIES)), len(bursts) // 2
    print(f"{some // 2} photos in each set, none in both, five JPEG forms of each:")
    told((bursts[:half], bursts[half:]), (photo[:half], photo[half:]))


def told(sets: tuple[torch.Tensor, torch.Tensor], groups: Any) -> None:
    """The classifier's and KID's answer."""
    for name, given in (("without groups", None), ("with groups", groups)):
        answer = two_sample_test(*sets, given)
        distance = kid(*sets, groups=given)
        print(f"  {name:15} accuracy {text(answer.accuracy)}   KID {text(distance)}")


def calibration(real: torch.Tensor, rng: np.random.Generator, draws: int = 100) -> None:
    """How often real against real comes out as what it is."""
    half = len(real) // 2
    held = np.zeros(3)
    for seed in range(draws):
        rows = torch.from_numpy(rng.permutation(len(real)))
        sets = real[rows[:half]], real[rows[half : 2 * half]]
        answer, distance = two_sample_test(*sets, seed=seed), kid(*sets, seed=seed)
        truths = ((answer.accuracy, 0.5), (answer.auc, 0.5), (distance, 0.0))
        held += [found.low <= truth <= found.high for found, truth in truths]
    shares = ", ".join(
        f"{name} {share:.0%}"
        for name, share in zip(("accuracy", "AUC", "KID"), held / draws, strict=True)
    )
    print(f"intervals of real against real, {half} each, that hold the truth: {shares}")


def jpeg(image: Array, quality: int) -> Array:
    """The image after JPEG."""
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, 1))


def text(found: Distance) -> str:
    """The value and its interval."""
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
