"""What the audit finds of planted faults, and how often it cries wolf.

    python examples/study/audit.py --annotations instances.json --images DIR [--labels 150]

Labels of a COCO file get a fault each: moved, warped, scaled, erased, faded, repainted, recoloured;
or something is pasted beside them; or nothing. On top comes a change of appearance that moves
nothing. Printed: how far off displacements are; how many labels fail by which measure. Labels with
a side under 8 px are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np

from simgan_aug import coco, geometry
from simgan_aug.audit import Guard, Limits, audit
from simgan_aug.coco import Annotation
from simgan_aug.imagefile import read_image

Array = np.ndarray[Any, Any]
Fault = Callable[[Array, "Planted"], Array]

SHIFTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Planted:
    """Where a fault goes."""

    label: Annotation
    mask: Array
    angle: float
    other: Array
    """The picture of another label."""

    @property
    def box(self) -> list[float]:
        """x, y, width, height in px."""
        return self.label.bbox or []


def changes(photos: list[Array], draw: np.random.Generator) -> dict[str, Callable[[Array], Array]]:
    """Changes of appearance that move nothing."""

    def matched(transform: type, image: Array, **options: object) -> Array:
        reference = photos[draw.integers(len(photos))]
        made = transform(metadata_key="photos", p=1, **options)
        return np.asarray(made(image=image, photos=[reference])["image"])

    def jpeg(image: Array) -> Array:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
        return np.asarray(cv2.imdecode(encoded, 1))

    return {
        "none": lambda image: image,
        "tone curve": lambda image: clipped(255 * (image / 255) ** draw.uniform(0.5, 2)),
        "colour cast": lambda i: clipped(i * draw.uniform(0.6, 1.4, 3) + draw.uniform(-30, 30, 3)),
        "noise, sigma 10": lambda image: clipped(image + draw.normal(0, 10, image.shape)),
        "blur, sigma 1.5": lambda image: cv2.GaussianBlur(image, (0, 0), 1.5),
        "JPEG, quality 50": jpeg,
        "HistogramMatching": lambda i: matched(A.HistogramMatching, i, blend_ratio=(1, 1)),
        "FDA, beta 0.05": lambda i: matched(A.FDA, i, beta_limit=(0.05, 0.05)),
    }


def faults(draw: np.random.Generator) -> dict[str, Fault]:
    """What is done to a label, by name."""
    made: dict[str, Fault] = {"none": lambda image, at: image}
    for px in SHIFTS:
        made[f"shift {px:g} px"] = lambda image, at, px=px: shifted(image, at, px)
    for px in (1, 2, 4):
        made[f"warp {px} px"] = lambda image, at, px=px: warped(image, at, px, draw)
    for share in (0.02, 0.05, 0.1):
        made[f"scale {share:.0%}"] = lambda image, at, k=share: scaled(image, at, k)
    return made | {
        "erased": lambda image, at: faded(image, at, 1.0),
        "faded by 80%": lambda image, at: faded(image, at, 0.8),
        "faded by 50%": lambda image, at: faded(image, at, 0.5),
        "another label's picture": lambda i, at: painted(i, at.mask, at.box, at.other),
        "its middle repainted": repainted,
        "hue turned by 120 degrees": recoloured,
        "pasted beside": pasted,
    }


def clipped(image: Array) -> Array:
    """As uint8."""
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def around(image: Array, box: list[float], px: int = 12) -> Array:
    """1 in a box and `px` around, softly 0 outside."""
    share = np.zeros(image.shape[:2], np.float32)
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    share[max(0, int(top) - px) : int(bottom) + px, max(0, int(left) - px) : int(right) + px] = 1
    return cv2.GaussianBlur(share, (0, 0), 3)


def remapped(image: Array, x: Array, y: Array) -> Array:
    """Each pixel from so many px to the left and above."""
    rows, columns = np.indices(image.shape[:2], dtype=np.float32)
    border = cv2.BORDER_REFLECT
    return cv2.remap(image, columns - x, rows - y, cv2.INTER_CUBIC, borderMode=border)


def shifted(image: Array, at: Planted, px: float) -> Array:
    """The picture under a box moved, and warped smoothly around it."""
    share = around(image, at.box)
    return remapped(image, px * math.cos(at.angle) * share, px * math.sin(at.angle) * share)


def warped(image: Array, at: Planted, px: float, draw: np.random.Generator) -> Array:
    """Waves of some 30 px; `px` is exceeded by a twentieth of the label."""
    share = around(image, at.box, 8)
    size = image.shape[:2]
    field = [cv2.GaussianBlur(draw.normal(size=size).astype(np.float32), (0, 0), 14) for _ in "xy"]
    by = px / np.percentile(np.hypot(*field)[share > 0.5], 95)
    return remapped(image, field[0] * by * share, field[1] * by * share)


def scaled(image: Array, at: Planted, share: float) -> Array:
    """Larger about its middle."""
    rows, columns = np.indices(image.shape[:2], dtype=np.float32)
    x, y, width, height = at.box
    by = share / (1 + share) * around(image, at.box, 8)
    return remapped(image, (columns - x - width / 2) * by, (rows - y - height / 2) * by)


def blended(image: Array, other: Array, mask: Array, share: float = 1.0) -> Array:
    """Another picture softly under a mask."""
    by = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1)[..., None] * share
    return clipped(image * (1 - by) + other * by)


def faded(image: Array, at: Planted, share: float) -> Array:
    """What lies around, painted over it."""
    fat = cv2.dilate(at.mask.astype(np.uint8), np.ones((7, 7), np.uint8))
    return blended(image, cv2.inpaint(image, fat, 3, cv2.INPAINT_TELEA), fat, share)


def painted(image: Array, mask: Array, box: list[float], picture: Array) -> Array:
    """A picture laid into a box, where the mask is."""
    height, width = image.shape[:2]
    left, top = max(0, int(box[0])), max(0, int(box[1]))
    right, bottom = min(width, int(box[0] + box[2])), min(height, int(box[1] + box[3]))
    if right <= left or bottom <= top:
        return image
    other = image.copy()
    other[top:bottom, left:right] = cv2.resize(picture, (right - left, bottom - top))
    return blended(image, other, mask)


def repainted(image: Array, at: Planted) -> Array:
    """Two fifths of a box across and down."""
    x, y, width, height = at.box
    box = [x + 0.3 * width, y + 0.3 * height, 0.4 * width, 0.4 * height]
    mask = np.zeros(image.shape[:2], bool)
    mask[int(box[1]) : int(box[1] + box[3]), int(box[0]) : int(box[0] + box[2])] = True
    return painted(image, mask, box, at.other)


def recoloured(image: Array, at: Planted) -> Array:
    """Red to green, green to blue."""
    return blended(image, image[..., [2, 0, 1]], at.mask)


def pasted(image: Array, at: Planted) -> Array:
    """The label's own picture, at least 24 px, beside it."""
    height, width = image.shape[:2]
    x, y, w, h = at.box
    w, h = max(24.0, min(w, width / 4)), max(24.0, min(h, height / 4))
    spots = [(x + at.box[2] + 12, y), (x - w - 12, y), (x, y + at.box[3] + 12), (x, y - h - 12)]
    for left, top in spots:
        if left >= 0 and top >= 0 and left + w <= width and top + h <= height:
            box = [left, top, w, h]
            mask = around(image, box, 0) > 0.5
            return painted(image, mask, box, at.other)
    return image


def labels(
    annotations: Path, images: Path, count: int, skip: int = 0
) -> Iterator[tuple[Array, Planted]]:
    """Some labels, and the images that they are in."""
    names = {image.id: image.file_name for image in coco.read_images(annotations)}
    by_image = coco.read_labels(annotations).by_image
    found = [a for i, some in by_image.items() if i in names for a in some if a.bbox]
    found = [a for a in found if min((a.bbox or [0, 0, 0, 0])[2:]) >= 8]
    random.Random(0).shuffle(found)
    draw = np.random.default_rng(0)
    others: list[Array] = []
    for label in found[skip : skip + count + 8]:
        image = read_image(images / names[label.image_id]).pixels
        image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3]
        x, y, w, h = (int(side) for side in label.bbox or [])
        others.append(image[max(0, y) : y + max(h, 8), max(0, x) : x + max(w, 8)])
        if len(others) > 8:
            mask = geometry.mask_of(label, *image.shape[:2])
            yield image, Planted(label, mask, draw.uniform(0, 2 * math.pi), others[-8])


def guarded(image: Array, moved: Array, label: Annotation) -> dict[str, Any]:
    """What either policy of the guard leaves of a fault: of the change, and beyond a limit."""
    told: dict[str, Any] = {}
    for policy in ("label", "image"):
        pixels, done = Guard(policy)(image, moved, [label])
        told[f"{policy} passes"] = audit(image, pixels, [label]).passes
        told[f"{policy} strength"] = min([done.strength, *(share for _, share in done.labels)])
    return told


def main() -> None:
    """Plant, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="folder of references [the images]")
    parser.add_argument("--labels", type=int, default=150)
    parser.add_argument("--skip", type=int, default=0, help="labels to leave out before")
    parser.add_argument("--guard", action="store_true", help="guard, too; takes longer")
    parser.add_argument("--out", type=Path, help="file for every single result, as JSON lines")
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    files = sorted((options.photos or options.images).glob("*.jpg"))[:60]
    photos = [read_image(file).pixels for file in files]
    photos = [p for p in photos if p.ndim == 3]
    looks, planted = changes(photos, draw), faults(draw)
    rows = []
    began = time.perf_counter()
    for image, at in labels(options.annotations, options.images, options.labels, options.skip):
        for fault, plant in planted.items():
            moved = plant(image, at)
            if fault != "none" and moved is image:
                continue  # there was no room
            for look in looks if fault == "none" else [draw.choice(list(looks))]:
                new = looks[look](moved)
                found = audit(image, new, [at.label])
                (label,) = found.labels
                row = {"fault": fault, "look": str(look), "angle": at.angle}
                row |= {"side": min(at.box[2:]), "appeared": [a["score"] for a in found.appeared]}
                row |= {name: getattr(label, name) for name in label.__struct_fields__}
                rows.append(row | (guarded(image, new, at.label) if options.guard else {}))
    seconds = time.perf_counter() - began
    if options.out:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for line in table(rows):
        print(line)
    for policy in ("label", "image") if options.guard else ():
        passed = [row[f"{policy} passes"] for row in rows]
        left = [row[f"{policy} strength"] for row in rows if row["failures"] or row["appeared"]]
        print(
            f"\nguard {policy}: {passed.count(False)} of {len(passed)} beyond a limit afterwards; "
            f"of the {len(left)} that were, {np.mean(left):.2f} of the change is left"
        )
    print(f"\n{1000 * seconds / len(rows):.0f} ms an image, planting included; {Limits()}")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """How many fail, by which measure."""
    measures = ("displacement", "local", "keypoints", "contour", "content", "contrast", "colour")
    columns = ["fault", "labels", "unmeasurable", "found", *measures, "appeared"]
    yield "| " + " | ".join([*columns, "error, median px", "p95"]) + " |"
    yield "|" + "---|" * (len(columns) + 2)
    groups = {
        f"no fault: {look}": ("none", look) for look in dict.fromkeys(r["look"] for r in rows)
    }
    groups["no fault, all"] = ("none", None)
    groups |= {fault: (fault, None) for fault in dict.fromkeys(r["fault"] for r in rows)}
    del groups["none"]
    for name, (fault, look) in groups.items():
        some = [r for r in rows if r["fault"] == fault and look in (None, r["look"])]
        failed = [bool(r["failures"] or r["appeared"]) for r in some]
        untold = [r["displacement"] is None and not r["failures"] for r in some]
        cells = [name, str(len(some)), f"{np.mean(untold):.1%}", f"**{np.mean(failed):.1%}**"]
        cells += [f"{np.mean([m in r['failures'] for r in some]):.1%}" for m in measures]
        cells += [f"{np.mean([bool(r['appeared']) for r in some]):.1%}", *errors(fault, some)]
        yield "| " + " | ".join(cells) + " |"


def errors(fault: str, rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Median and 95th percentile of how far off the measured displacement is."""
    if fault != "none" and not fault.startswith("shift"):
        return "", ""
    px = float(fault.split()[1]) if fault != "none" else 0.0
    off = [
        math.hypot(x - px * math.cos(row["angle"]), y - px * math.sin(row["angle"]))
        for row in rows
        if row["displacement"] is not None
        for x, y in [row["displacement"]]
    ]
    return (f"{np.median(off):.3f}", f"{np.percentile(off, 95):.2f}") if off else ("", "")


if __name__ == "__main__":
    main()
