"""The examples of torchvision detectors, as a user runs them."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).parents[2]
HANDS = ROOT / "examples" / "data" / "hands"

pytest.importorskip("torchvision.tv_tensors")


def losses(script, *arguments):
    """What an example prints for each step, in a process in which torchvision can be imported."""
    ran = subprocess.run(
        [sys.executable, ROOT / "tests" / "torchvision_ops.py", script, *arguments],
        cwd=ROOT / "examples" / "integrations",
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert ran.returncode == 0, ran.stderr
    found = re.findall(r"^step (\d+): loss (\S+)$", ran.stdout, re.MULTILINE)
    assert [int(step) for step, _ in found] == list(range(1, len(found) + 1))
    return [float(loss) for _, loss in found]


@pytest.fixture
def keypoint_file(tmp_path):
    """A COCO file of three small images: two figures, one, and one without; and its folder."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, figures in enumerate((2, 1, 0)):
        image = rng.integers(0, 256, (60, 80 + number, 3), dtype=np.uint8)
        PIL.Image.fromarray(image).save(tmp_path / f"{number}.png")
        size = {"width": 80 + number, "height": 60}
        images.append({"id": 2**53 + 1 + number, "file_name": f"{number}.png", **size})
        for figure in range(figures):
            left = 5 + 35 * figure
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 2**53 + 1 + number,
                    "category_id": 1,
                    "bbox": [left, 10, 30, 40],
                    "area": 1200,
                    "iscrowd": 0,
                    "keypoints": [left + 2, 12, 2, left + 15, 30.5, 1, 0, 0, 0],
                    "num_keypoints": 2,
                }
            )
    category = {"id": 1, "name": "figure", "keypoints": ["head", "hip", "tail"], "skeleton": []}
    path = tmp_path / "keypoints.json"
    coco = {"images": images, "annotations": annotations, "categories": [category]}
    path.write_text(json.dumps(coco))
    return path


@pytest.mark.timeout(180)
def test_a_detector_trains_on_refined_images(refiner_file):
    options = ["--annotations", HANDS / "synthetic.json", "--images", HANDS / "synthetic"]
    options += ["--refiner", refiner_file, "--device", "cpu", "--batch-size", "1"]

    refined = losses("torchvision_detection.py", *options, "--steps", "2", "--p", "1")
    plain = losses("torchvision_detection.py", *options, "--steps", "1", "--p", "0")

    assert len(refined) == 2
    assert all(math.isfinite(loss) for loss in refined)
    assert refined[0] != plain[0]


@pytest.mark.timeout(180)
def test_a_keypoint_detector_trains_on_refined_images(refiner_file, keypoint_file):
    options = ["--annotations", keypoint_file, "--images", keypoint_file.parent]
    options += ["--refiner", refiner_file, "--steps", "2", "--device", "cpu", "--size", "96"]
    options += ["--batch-size", "1"]

    found = losses("torchvision_keypoints.py", *options)

    assert len(found) == 2
    assert all(math.isfinite(loss) for loss in found)
