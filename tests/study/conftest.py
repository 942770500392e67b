"""What the tests of the study share: a toy that a small network learns in seconds."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

SIZE = (32, 32)
"""Width and height of a toy image."""

CATEGORIES = [{"id": 7, "name": "square"}, {"id": 9, "name": "disc"}]

FAST = """
[refiner]
features = 8
blocks = 1
[discriminator]
features = 8
[tone]
photos = 0
[data]
crop = [16, 16]
[training]
batch_size = 4
history = 8
precision = "fp32"
"""


def picture(category, box, rng, level):
    """A bright shape on a dark ground, (32, 32, 3) uint8; squares are red, discs are blue."""
    x, y, side, _ = box
    pixels = rng.integers(0, 30, (*SIZE, 3)) + level
    colour = (220, 40, 40) if category == 7 else (40, 40, 220)
    inside = np.zeros(SIZE, np.uint8)
    if category == 7:
        inside[y : y + side, x : x + side] = 1
    else:
        cv2.circle(inside, (x + side // 2, y + side // 2), side // 2, 1, -1)
    pixels[inside > 0] = np.array(colour) + rng.integers(-20, 20, 3)
    return pixels.clip(0, 255).astype(np.uint8), inside


def write_toy(folder, count, seed, level=20, suffix="png"):
    """A COCO file and its images: one shape each, with box, mask and a green dot as keypoint."""
    rng, images, annotations = np.random.default_rng(seed), [], []
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        category = 7 if number % 2 else 9
        side = int(rng.integers(10, 16))
        x, y = (int(v) for v in rng.integers(2, 30 - side, 2))
        pixels, inside = picture(category, (x, y, side, side), rng, level)
        dot = [int(v) + side // 2 for v in rng.integers(-3, 3, 2)]
        pixels[y + dot[1] - 1 : y + dot[1] + 1, x + dot[0] - 1 : x + dot[0] + 1] = (90, 250, 90)
        name = f"{number}.{suffix}"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": 32, "height": 32})
        runs = np.diff(np.flatnonzero(np.diff(np.r_[2, inside.T.ravel(), 2])))
        counts = ([0] if inside.T.ravel()[0] else []) + runs.tolist()
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": category,
                "bbox": [x, y, side, side],
                "segmentation": {"size": [32, 32], "counts": counts},
                "keypoints": [x + dot[0], y + dot[1], 2, x + side, y + side, 1],
            }
        )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


@pytest.fixture
def toy(tmp_path):
    """Synthetic, real training and real test images of the toy; real ones are lighter."""
    write_toy(tmp_path / "synthetic", 32, seed=0)
    write_toy(tmp_path / "real", 32, seed=1, level=60)
    write_toy(tmp_path / "test", 32, seed=2, level=60)
    (tmp_path / "fast.toml").write_text(FAST)
    return tmp_path


@pytest.fixture
def settings(toy):
    """Settings of a quick study, as keyword arguments."""
    return {
        "synthetic": toy / "synthetic" / "labels.json",
        "real_train": toy / "real" / "images",
        "real_test": toy / "test" / "labels.json",
        "out": toy / "study",
        "arms": ("raw", "hm"),
        "seeds": 2,
        "steps": 12,
        "batch_size": 8,
        "forms": 2,
        "config": toy / "fast.toml",
        "refiner_steps": 2,
        "device": "cpu",
    }
