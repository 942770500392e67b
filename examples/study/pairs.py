"""Further pairs of "synthetic" and real images, to see whether what helps hands helps elsewhere.

    pip install scikit-image scikit-learn matplotlib
    python examples/study/pairs.py --out PAIRS
    simgan-aug study --synthetic PAIRS/digits/synthetic.json --real-train PAIRS/digits/real_train \
        --real-test PAIRS/digits/real_test.json --task classify --out STUDY

Real images come inside these packages, but for those of pose and scenes, and those of depth are
drawn; nothing is downloaded. Each pair is a folder with synthetic/, real_train/ (no labels),
real_test/ and COCO files.

digits    grey, 48x48, 10 classes: glyphs of matplotlib's fonts, white on black; 1,797 handwritten,
          scanned digits of scikit-learn (8x8, enlarged), half of them to train on.
textures  grey, 64x64, 3 classes: brick, grass, gravel of scikit-image. "Synthetic": a smoothed and
          posterised part of each photo, in another tone; real: other parts of it.
faces     grey, 50x50, faces and no faces of scikit-image's LFW subset: 50 of each kind posterised
          and brightened, to train on; 50 real ones without labels; 100 to test on.
depth     four channels (--channels 4), 128x96, boxes and masks of three classes: drawn scenes of
          plain shapes on a floor, each turned a little, so that light and depth change across it;
          depth is the fourth channel, RGBA in the file. "Real": others through a camera that is
          warm, dark at its corners and noisy, and a depth sensor whose noise grows with the square
          of the distance and which sees nothing along edges.
pose      colour, photos of COCO as they are (--coco, a folder with images/ and
          annotations/person_keypoints_with_images.json): those with keypoints are, in turn,
          posterised to train on or left to test on; all others are the real ones without labels.
scenes    colour, 128x96, boxes and masks of three classes (--coco, and --hands, a folder with
          synthetic_train, real_train and real_test): one to three hands cut out and pasted on parts
          of photos, as many make their training images (arXiv:1708.01642). Rendered hands to
          train on and photographed ones as real images, both on the same photos; photographed
          ones on other photos to test on.
apart     the same, with photos of its own for each of the three.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Array = np.ndarray[Any, Any]
Sample = tuple[Array, list[dict[str, Any]]]
"""Pixels (H, W), (H, W, 3) or (H, W, 4) uint8, and annotations as COCO has them, but for ids."""


def digits(rng: np.random.Generator) -> dict[str, list[Sample]]:
    """Glyphs of fonts, and handwritten digits."""
    import matplotlib
    from sklearn.datasets import load_digits

    fonts = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    fonts = [font for font in fonts if "Display" not in font.name]
    rendered = [_glyph(str(rng.choice(fonts)), number % 10, rng) for number in range(2000)]
    real = []
    written = load_digits()
    for pixels, digit in zip(written.images, written.target, strict=True):
        small = Image.fromarray((pixels / 16 * 255).astype(np.uint8))
        image = np.array(small.resize((48, 48), Image.Resampling.BICUBIC))
        real.append((image, [_label(int(digit), _box(image > 60))]))
    order = rng.permutation(len(real))
    return {
        "synthetic": rendered,
        "real_train": [real[index] for index in order[:900]],
        "real_test": [real[index] for index in order[900:]],
    }


def _glyph(font: str, digit: int, rng: np.random.Generator) -> Sample:
    image = Image.new("L", (48, 48))
    face = ImageFont.truetype(font, int(rng.integers(34, 46)))
    ImageDraw.Draw(image).text((24, 24), str(digit), fill=255, font=face, anchor="mm")
    pixels = np.array(image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC))
    return pixels, [_label(digit, _box(pixels > 60))]


def textures(rng: np.random.Generator) -> dict[str, list[Sample]]:
    """Quarters of a photo a class: one rendered, one real to train on, two to test on."""
    from skimage import data

    sides: dict[str, list[Sample]] = {"synthetic": [], "real_train": [], "real_test": []}
    for label, photo in enumerate((data.brick(), data.grass(), data.gravel())):
        quarters = {"synthetic": photo[:256, :256], "real_train": photo[256:, :256]}
        for side, part in (quarters | {"real_test": photo[:, 256:]}).items():
            for _ in range({"synthetic": 600, "real_train": 300, "real_test": 200}[side]):
                top, left = (int(rng.integers(length - 63)) for length in part.shape)
                crop = part[top : top + 64, left : left + 64]
                crop = _rendered(crop, 0.6, 90) if side == "synthetic" else crop
                sides[side].append((crop, [_label(label, [0.0, 0.0, 64.0, 64.0])]))
    return sides


def faces(rng: np.random.Generator) -> dict[str, list[Sample]]:
    """Faces and what is none: 100 rendered, 50 real without labels, 50 to test on."""
    from skimage import data

    images = (data.lfw_subset() * 255).astype(np.uint8)  # 100 faces, then 100 others
    sides: dict[str, list[Sample]] = {"synthetic": [], "real_train": [], "real_test": []}
    for number in (*rng.permutation(100), *rng.permutation(100) + 100):
        place = sum(len(part) for part in sides.values()) % 100
        side = "synthetic" if place < 25 else "real_train" if place < 50 else "real_test"
        image = np.array(Image.fromarray(images[number]).resize((50, 50), Image.Resampling.BICUBIC))
        image = _rendered(image, 0.5, 110) if side == "synthetic" else image
        sides[side].append((image, [_label(int(number >= 100), [0.0, 0.0, 50.0, 50.0])]))
    return sides


def depth(rng: np.random.Generator) -> dict[str, list[Sample]]:
    """Drawn scenes in colour and depth, and as a camera and a depth sensor see them."""
    counts = {"synthetic": 800, "real_train": 400, "real_test": 200}
    sides: dict[str, list[Sample]] = {}
    for side, count in counts.items():
        scenes = [_drawn(rng) for _ in range(count)]
        if side != "synthetic":
            scenes = [(_sensed(pixels, rng), labels) for pixels, labels in scenes]
        sides[side] = scenes
    return sides


def _drawn(rng: np.random.Generator) -> Sample:
    """Two to four shapes on a floor, the nearest last: colour and depth."""
    rows, columns = np.mgrid[:96, :128]
    floor = np.clip(220 - 180 * (rows - 30) / 66, 40, 220)
    light = rng.uniform(90, 200, 3) * (0.7 + 0.3 * rows[..., None] / 96)
    scene = np.dstack([light, floor])
    masks: list[tuple[int, Array]] = []
    for away in sorted(rng.uniform(60, 200, int(rng.integers(2, 5))), reverse=True):
        size, label = 2400 / away * rng.uniform(0.7, 1.2), int(rng.integers(3))
        across, down = rng.uniform(size, 127 - size), 30 + (220 - away) * 66 / 180 - size
        x, y = (columns - across) / size, (rows - down) / size
        inside = (
            (abs(x) < 1) & (abs(y) < 1),
            x**2 + y**2 < 1,
            (y < 1) & (y > 2 * abs(x) - 1),
        )[label]
        shade = (1 - 0.3 * np.clip(x, -1, 1))[..., None]
        scene[inside] = (shade * [*rng.uniform(40, 220, 3), away])[inside]
        masks = [(kind, mask & ~inside) for kind, mask in masks] + [(label, inside)]
    pixels = scene.round().clip(0, 255).astype(np.uint8)
    return pixels, [_label(kind, _box(mask), mask) for kind, mask in masks if mask.sum() > 60]


def _sensed(pixels: Array, rng: np.random.Generator) -> Array:
    colour, away = pixels[..., :3].astype(float), pixels[..., 3].astype(float)
    rows, columns = np.mgrid[-1:1:96j, -1:1:128j]
    corners = 1 - 0.3 * (rows**2 + columns**2) / 2
    seen = colour * [1.05, 0.9, 0.7] * corners[..., None] * rng.uniform(0.7, 1.1) + 12
    seen = seen + rng.normal(0, 4, seen.shape)
    steps = np.hypot(*np.gradient(away))
    known = away + rng.normal(0, 1, away.shape) * 3 * (away / 128) ** 2
    known[(steps > 6) & (rng.random(away.shape) < 0.7)] = 0
    whole = np.dstack([seen, known])
    return np.asarray(whole.round().clip(0, 255).astype(np.uint8))


def pose(coco: Path, out: Path) -> Iterator[str]:
    """Photos of persons, half of them rendered, with their own labels."""
    listed = json.loads((coco / "annotations/person_keypoints_with_images.json").read_text())
    labels: dict[int, list[Any]] = {entry["id"]: [] for entry in listed["images"]}
    for annotation in listed["annotations"]:
        labels[annotation["image_id"]].append(annotation)
    known = [n for n, own in labels.items() if any(each["num_keypoints"] for each in own)]
    sides = {"synthetic": known[::2], "real_test": known[1::2]}
    sides["real_train"] = [number for number in labels if number not in known]
    for side, numbers in sides.items():
        (out / side).mkdir(parents=True, exist_ok=True)
        entries = [entry for entry in listed["images"] if entry["id"] in numbers]
        for entry in entries:
            photo = np.array(Image.open(coco / "images" / entry["file_name"]).convert("RGB"))
            entry["file_name"] = Path(entry["file_name"]).with_suffix(".png").name
            shown = _rendered(photo, 0.6, 70) if side == "synthetic" else photo
            Image.fromarray(shown).save(out / side / entry["file_name"])
        own = [] if side == "real_train" else [each for n in numbers for each in labels[n]]
        content = listed | {"images": entries, "annotations": own}
        (out / f"{side}.json").write_text(json.dumps(content))
        persons = sum(each["num_keypoints"] > 0 for each in own)
        yield f"pose: {len(entries)} {side}, {persons} persons with keypoints"


def scenes(coco: Path, hands: Path, *, apart: bool) -> Iterator[tuple[str, list[Sample]]]:
    """Rendered and photographed hands on photos, ``apart`` or the same, and some on others."""
    rng = np.random.default_rng(0)
    photos = rng.permutation(sorted(str(path) for path in (coco / "images").iterdir()))
    third = len(photos) // 3
    counts = {"synthetic": 1500, "real_train": 800, "real_test": 400}
    shown = [np.array(Image.open(path).convert("RGB")) for path in photos]
    backdrops = {side: shown[third:] for side in counts} | {"real_test": shown[:third]}
    if apart:
        backdrops |= {"synthetic": shown[third : 2 * third], "real_train": shown[2 * third :]}
    for side, count in counts.items():
        source = "synthetic_train" if side == "synthetic" else side
        cut = _cut(json.loads((hands / f"{source}.json").read_text()), hands / source)
        yield side, [_scene(backdrops[side], cut, rng) for _ in range(count)]


def _cut(listed: dict[str, Any], folder: Path) -> list[tuple[Image.Image, int]]:
    """Hands, transparent around them, each no larger than its mask, and their classes."""
    from pycocotools import mask as rle

    files = {entry["id"]: entry["file_name"] for entry in listed["images"]}
    found = []
    for annotation in listed["annotations"]:
        hand = Image.open(folder / files[annotation["image_id"]]).convert("RGB")
        shape = Image.fromarray(rle.decode(annotation["segmentation"]) * np.uint8(255))
        hand.putalpha(shape.filter(ImageFilter.MinFilter(5)))  # no rim of what was behind it
        found.append((hand.crop(hand.getchannel("A").getbbox()), annotation["category_id"] - 1))
    return found


def _scene(
    backdrops: list[Array], hands: list[tuple[Image.Image, int]], rng: np.random.Generator
) -> Sample:
    """Hands on a part of a photo; they do not overlap."""
    photo = backdrops[rng.integers(len(backdrops))]
    wide = int(rng.integers(192, min(photo.shape[1], photo.shape[0] * 4 // 3) + 1))
    high = wide * 3 // 4
    left = int(rng.integers(photo.shape[1] - wide + 1))
    top = int(rng.integers(photo.shape[0] - high + 1))
    part = Image.fromarray(photo[top : top + high, left : left + wide])
    scene = part.resize((128, 96), Image.Resampling.LANCZOS)
    taken, labels = np.zeros((96, 128), bool), []
    for _ in range(rng.integers(1, 4)):
        hand, label = hands[rng.integers(len(hands))]
        scale = rng.uniform(36, 64) / max(hand.size)
        size = [max(1, round(side * scale)) for side in hand.size]
        small = hand.resize(size, Image.Resampling.LANCZOS)
        if rng.random() < 0.5:
            small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        place = int(rng.integers(129 - size[0])), int(rng.integers(97 - size[1]))
        layer = Image.new("L", (128, 96))
        layer.paste(small.getchannel("A"), place)
        mask = np.array(layer) > 127
        if mask.any() and not (mask & taken).any():
            scene.paste(small, place, small)
            taken |= mask
            labels.append(_label(label, _box(mask), mask))
    return np.array(scene), labels


def _rendered(photo: Array, contrast: float, lift: float) -> Array:
    """Smooth, in six levels, and in another tone: what a simple renderer might make of it."""
    smooth = np.array(Image.fromarray(photo).filter(ImageFilter.MedianFilter(5)), float)
    levels = np.round(smooth / 51) * 51
    return (levels * contrast + lift).clip(0, 255).astype(np.uint8)


def _label(label: int, box: list[float], mask: Array | None = None) -> dict[str, Any]:
    area = box[2] * box[3] if mask is None else int(mask.sum())
    known = {"category_id": label + 1, "bbox": box, "area": area, "iscrowd": 0}
    if mask is None:
        return known
    from pycocotools import mask as rle

    runs = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return known | {"segmentation": runs | {"counts": runs["counts"].decode()}}


def _box(mask: Array) -> list[float]:
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    sides = columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return [float(side) for side in sides]


def write(samples: list[Sample], out: Path, name: str) -> None:
    """One side as PNG files and a COCO file."""
    (out / name).mkdir(parents=True, exist_ok=True)
    listed: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    for number, (pixels, labels) in enumerate(samples, start=1):
        file = f"{number:05d}.png"
        Image.fromarray(pixels).save(out / name / file)
        height, width = pixels.shape[:2]
        size = {"width": width, "height": height}
        listed["images"].append({"id": number, "file_name": file, **size})
        for label in labels:
            place = {"id": len(listed["annotations"]) + 1, "image_id": number}
            listed["annotations"].append(place | label)
    count = max(annotation["category_id"] for annotation in listed["annotations"])
    listed["categories"] = [{"id": n + 1, "name": f"class {n}"} for n in range(count)]
    (out / f"{name}.json").write_text(json.dumps(listed))


PAIRS = {"digits": digits, "textures": textures, "faces": faces, "depth": depth}


def main() -> Iterator[str]:
    """Write the pairs that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--coco", type=Path, help="folder of COCO photos of persons, for pose")
    parser.add_argument("--hands", type=Path, help="folder of the pair hands, for scenes")
    args = parser.parse_args()
    if args.hands and not args.coco:
        parser.error("--hands are pasted on photos: say with --coco where these lie")
    if args.coco:
        yield from pose(args.coco, args.out / "pose")
    if args.hands:
        for pair in ("scenes", "apart"):
            for side, samples in scenes(args.coco, args.hands, apart=pair == "apart"):
                write(samples, args.out / pair, side)
                hands = sum(len(labels) for _, labels in samples)
                yield f"{pair}: {len(samples)} {side}, {hands} hands"
    for name in args.pairs:
        for side, samples in PAIRS[name](np.random.default_rng(0)).items():
            write(samples, args.out / name, side)
            yield f"{name}: {len(samples)} {side}"


if __name__ == "__main__":
    for line in main():
        print(line)
