"""A small refined data set with its audit, and a small run, as their commands write them."""

import json
import math

import numpy as np
import pytest
from PIL import Image

LIMITS = {"displacement": 0.5, "local": 1.0, "contour": 0.5}
NASTY = "<script>alert(1)</script>&\"'.png"
CATEGORY = '<b>cup</b> & "co"'
SIZE = (96, 64)
"""Width and height in px."""


def scene(seed):
    """A bright disc on a dark ground with some grain, (64, 96, 3) uint8."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    disc = np.hypot(x - 40, y - 30) < 18
    grain = np.random.default_rng(seed).normal(0, 6, (SIZE[1], SIZE[0], 3))
    return (np.where(disc, 190, 60)[..., None] + grain).clip(0, 255).astype(np.uint8)


def label(number, moved=(0.02, 0.0), category="hand", **more):
    """A label as an audit describes it; rejected if it has moved too far."""
    far = moved is not None and math.hypot(*moved) > LIMITS["displacement"]
    made = {"id": number, "category": category, "bbox": [20.0, 10.0, 40.0, 40.0]}
    made |= {"displacement": moved and list(moved), "local": moved and math.hypot(*moved)}
    made |= {"keypoints": [], "contour": 0.3 if far else 0.9, "colour": 12.0}
    return made | {"failures": ["displacement", "contour"] if far else []} | more


def summary(labels):
    distances = [math.hypot(*each["displacement"]) for each in labels if each["displacement"]]
    found = {"labels": len(labels), "rejected": sum(bool(each["failures"]) for each in labels)}
    found["unmeasurable"] = sum(each["displacement"] is None for each in labels)
    found["displacement"] = {"measured": len(distances), "p50": 0.02, "p95": 0.1}
    found["displacement"]["worst"] = max(distances, default=None)
    return found | {"keypoints": {"measured": 0}, "contour": {"measured": 1, "worst": 0.3}}


class Refined:
    """A refined data set of seven images in `out`, its originals in `images`."""

    names = (*(f"{number}.png" for number in range(6)), NASTY)

    def __init__(self, folder):
        self.folder, self.out, self.images = folder, folder / "out", folder / "images"
        self.annotations = folder / "labels.json"
        self.labels = {
            "0.png": [label(1), label(2, None)],
            "1.png": [label(3, (0.0, 0.9), "cup")],
            "2.png": [label(4, (2.0, -1.0)), label(5, (0.1, 0.0), "cup")],
            "3.png": [label(6, None)],
            "4.png": [label(7)],
            NASTY: [label(8, (1.2, 0.0), CATEGORY)],
        }
        for seed, name in enumerate(self.names):
            self.save(self.images / name, scene(seed))
            moved = np.roll(scene(seed), (-1, 2), (0, 1)) if name == "2.png" else scene(seed)
            self.save(self.out / "images" / name, (moved * 0.9).astype(np.uint8))
        self.write_annotations()
        self.write_job()

    @staticmethod
    def save(path, pixels):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format="PNG")

    def write_annotations(self):
        images = [
            {"id": n, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
            for n, name in enumerate(self.names)
        ]
        ids = {name: n for n, name in enumerate(self.names)}
        named = {"hand": 1, "cup": 2, CATEGORY: 3}
        made = [
            {
                "id": each["id"],
                "image_id": ids[name],
                "category_id": named[each["category"]],
                "bbox": each["bbox"],
                "segmentation": [[20, 10, 60, 10, 60, 50, 20, 50]],
                "keypoints": [40, 30, 2, 0, 0, 0],
            }
            for name, labels in self.labels.items()
            for each in labels
        ]
        categories = [{"id": n, "name": name} for name, n in named.items()]
        whole = {"images": images, "annotations": made, "categories": categories}
        for path in (self.annotations, self.out / "labels.json"):
            path.write_text(json.dumps(whole))

    def write_job(self, **report):
        info = {"annotations": {"labels.json": "ab" * 32}, "images": 7, "torch": "2.6.0"}
        info |= {"refiner": {"sha256": "cd" * 32, "provenance": {"licence": "</script><i>CC"}}}
        (self.out / "run.json").write_text(json.dumps(info))
        done = {"images": 7, "refined": 7, "failed": {}, "copied": [], "notes": {}} | report
        (self.out / "report.json").write_text(json.dumps(done))

    def write_audit(self, path=None, more_lines=()):
        path = path or self.out / "audit.json"
        every = [(name, each) for name, labels in self.labels.items() for each in labels]
        bad = [{**each, "image": name} for name, each in every if each["failures"]]
        bad.sort(key=lambda each: -math.hypot(*each["displacement"]))
        kinds = {each["category"] for _, each in every}
        counts = {"images": 7, "failed": 1, "labels": 8, "rejected": 3, "unmeasurable": 2}
        whole = {
            "version": 1,
            "annotations": [str(self.annotations)],
            "images": str(self.images),
            "refined": str(self.out),
            "limits": LIMITS,
            "counts": {**counts, "appeared": 1},
            "overall": summary([each for _, each in every]),
            "categories": {k: summary([e for _, e in every if e["category"] == k]) for k in kinds},
            "worst": bad,
            "appeared": [{"image": "4.png", "bbox": [2, 2, 9, 9], "score": 3.0}],
            "failed": {"5.png": "5.png: <em>not</em> a readable image"},
        }
        lines = [{"audit": 1, "annotations": {"labels.json": "ab"}, "limits": LIMITS}]
        for name, labels in self.labels.items():
            appeared = [{"bbox": [2, 2, 9, 9], "score": 3.0}] if name == "4.png" else []
            lines.append({"image": name, "labels": labels, "appeared": appeared})
        lines.append({"image": "5.png", "error": "5.png: not a readable image"})
        text = [json.dumps(line) for line in lines]
        path.with_suffix(".jsonl").write_text("\n".join([*text, *more_lines]) + "\n")
        path.write_text(json.dumps(whole))
        return path

    def write_realism(self):
        def interval(value):
            return {"value": value, "low": value - 0.1, "high": value + 0.1}

        measure = {"name": "KID", "unit": "deviations", "floor": interval(0.0), "closed": 0.75}
        measure |= {"refined": interval(0.5), "ceiling": interval(2.0)}
        path = self.folder / "realism.json"
        counts = {"real": 30, "synthetic": 30}
        whole = {"measures": [measure], "counts": counts, "features": "random"}
        path.write_text(json.dumps(whole))
        return path


@pytest.fixture
def refined(tmp_path):
    """A refined data set that nobody has audited yet."""
    return Refined(tmp_path)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A refined data set with its audit, for tests that change nothing."""
    made = Refined(tmp_path_factory.mktemp("audited"))
    made.write_audit()
    return made
