"""Data at scale: what starting costs, and what decoding costs a training. Tables: DATA.md.

    python examples/study/scale.py make FOLDER      # 10^6 images of 640x480 as hard links, and more
    python examples/study/scale.py start FOLDER     # seconds and MiB until training could begin
    python examples/study/scale.py crops FOLDER     # milliseconds a batch
    python examples/study/scale.py steps FOLDER     # seconds a training step
    python examples/study/scale.py storage FOLDER   # with files that take 5 ms each to arrive

Seconds are of the processor unless said otherwise: those on a clock depend on what else runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from simgan_aug.config import Config, Data
from simgan_aug.data import Crops, Inputs, Origin, read_synthetic
from simgan_aug.data import crops as crops_module
from simgan_aug.imagefile import content_of
from simgan_aug.run import Run

DISTINCT, FOLDERS, TINY, SHARDS = 400, 1000, 50_000, 20
PHOTOS = Path(__file__).parents[1] / "data" / "hands" / "real"


def make(folder: Path) -> None:
    """The data: 400 distinct JPEGs, of which all else consists."""
    rng = np.random.default_rng(0)
    photos = [Image.open(path) for path in sorted(PHOTOS.iterdir()) if path.suffix == ".jpg"]
    for number in range(DISTINCT):
        photo = photos[number % len(photos)].convert("RGB").resize((640, 480))
        noise = rng.normal(0, 6, (480, 640, 3))
        pixels = (np.asarray(photo) + noise).clip(0, 255).astype(np.uint8)
        path = folder / "base" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
    for parent in range(FOLDERS):
        first = folder / "million" / f"{parent:04}" / f"{parent * 1000:07}.jpg"
        first.parent.mkdir(parents=True)
        first.write_bytes((folder / "base" / f"{parent % DISTINCT:03}.jpg").read_bytes())
        for number in range(1, 1000):
            os.link(first, first.with_name(f"{parent * 1000 + number:07}.jpg"))
    (folder / "million.json").write_text("".join(coco(FOLDERS * 1000)))
    (folder / "tiny").mkdir()
    bases = [Image.open(path) for path in sorted((folder / "base").iterdir())]
    for number in range(TINY):
        left, top = int(rng.integers(576)), int(rng.integers(416))
        tiny = bases[number % DISTINCT].crop((left, top, left + 64, top + 64))
        tiny.save(folder / "tiny" / f"{number:05}.jpg", quality=90)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"s-{shard:03}.tar", "w") as archive:
            for number in range(shard * 2000, shard * 2000 + 2000):
                archive.add(folder / "tiny" / f"{number:05}.jpg", f"{number:05}.jpg")


def coco(count: int) -> Iterator[str]:
    """A COCO file with two boxes and polygons an image, some 400 bytes an image."""
    yield '{"images": ['
    for n in range(count):
        name = f"{n // 1000:04}/{n:07}.jpg"
        yield f'{"," * bool(n)}{{"id":{n},"file_name":"{name}","width":640,"height":480}}'
    yield '], "annotations": ['
    for n in range(2 * count):
        x, y = n % 500, n % 400
        outline = [[x, y, x + 60, y, x + 60, y + 50, x, y + 50]]
        yield (
            f'{"," * bool(n)}{{"id":{n},"image_id":{n // 2},"category_id":1,"iscrowd":0,'
            f'"bbox":[{x},{y},60,50],"area":3000,"segmentation":{outline}}}'
        )
    yield '], "categories": [{"id": 1, "name": "hand"}]}'


PLACES = {
    "COCO": ("million.json", {}),
    "COCO, weights by label": ("million.json", {"hand": 2.0}),
    "folder": ("million", {}),
    "pattern": ("million/**/*.jpg", {}),
    "tiny": ("tiny", {}),
    "shards": ("s-{000..019}.tar", {}),
}


def start(folder: Path) -> None:
    """Each place in a process of its own."""
    for name in PLACES:
        command = [sys.executable, __file__, "one", str(folder), "--place", name]
        subprocess.run(command, check=True)


def one(folder: Path, name: str) -> None:
    """Read one place, as a run does, and find the boxes for its alarms."""
    before, began = memory(), (time.process_time(), time.perf_counter())
    where, weights = PLACES[name]
    origin = Origin(where=folder / where, images=folder / "million")
    source = read_synthetic([origin], Data(memory_mb=256), weights)
    read = time.process_time() - began[0], time.perf_counter() - began[1]
    after, kept = memory(), source.images.kept.used / 2**20  # type: ignore[attr-defined]
    began = time.process_time(), time.perf_counter()
    source.boxes(range(0, len(source.images), len(source.images) // 16))
    boxes = time.process_time() - began[0]
    held, peak = after["RssAnon"] - before["RssAnon"] - kept, memory()["VmHWM"] - before["RssAnon"]
    print(
        f"{name:24} {len(source.images):>9,} images: {read[0]:5.1f} s ({read[1]:.1f} by clock), "
        f"boxes {boxes:.1f} s; {held:.0f} MiB beside images, peak {peak:.0f} MiB with mapped files"
    )


def memory() -> dict[str, float]:
    """MiB of this process by the kernel's names."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = (line.split() for line in lines if line.endswith("kB"))
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in sizes}


def crops(folder: Path) -> None:
    """CPU time a batch of 16 crops, the threads' included; after 100 batches."""
    for name, place, data in (
        ("held", "base", Data()),
        ("held, own scales", "base", Data(scale=(0.8, 1.2))),
        *((f"streamed, reuse {n}", "million", Data(memory_mb=1024, reuse=n)) for n in (1, 4, 8)),
    ):
        source = read_synthetic([Origin(where=folder / place)], data, {})
        batches, kept = Crops(source, data, 16, 0).batches(), source.images.kept  # type: ignore[attr-defined]
        list(islice(batches, 100))
        asked, made, began = kept.asked, kept.made, time.process_time()
        list(islice(batches, 100))
        spent = (time.process_time() - began) * 10
        share = (kept.made - made) / (kept.asked - asked)
        print(f"{name:24} {spent:5.1f} ms a batch, {share:.3f} of the images decoded")


def steps(folder: Path) -> None:
    """CPU time a step of the default config, both sides from one place."""
    for place, reuse in (("base", 1), ("million", 1), ("million", 4), ("tiny", 1)):
        data = dataclasses.replace(Config().data, memory_mb=512, reuse=reuse)
        inputs = Inputs.of([folder / place], [], [folder / place])
        with tempfile.TemporaryDirectory() as out:
            run = Run(
                dataclasses.replace(Config(), data=data), inputs, Path(out) / "run", device="cpu"
            )
            stepping = run.steps()
            list(islice(stepping, 20))
            began = time.process_time()
            list(islice(stepping, 20))
            spent = (time.process_time() - began) / 20
            held = "held" if run.synthetic.is_held else "streamed"
            print(f"{place:8} {held:8} reuse {reuse}: {spent:.3f} s a step")
            stepping.close()  # type: ignore[attr-defined]


def storage(folder: Path) -> None:
    """By the clock: files that arrive late, and a step that leaves the processor free."""

    def late(path: Path) -> bytes:
        time.sleep(0.005)
        return content_of(path)

    def in_turn(make, items, count):  # type: ignore[no-untyped-def]
        return map(make, items)

    with mock.patch("simgan_aug.data.listings.content_of", late):
        source = read_synthetic([Origin(where=folder / "tiny")], Data(memory_mb=1), {})
        for name, ahead in (("ahead", crops_module.ahead), ("in turn", in_turn)) * 3:
            with mock.patch.object(crops_module, "ahead", ahead):
                sides = [Crops(source, Data(), 16, seed).batches() for seed in (0, 1)]
                [next(side) for side in sides]
                began = time.perf_counter()
                for _ in range(10):
                    [list(islice(side, 2)) for side in sides]
                    time.sleep(0.25)
                print(f"{name:8} {(time.perf_counter() - began) / 10:.3f} s a step")


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["make", "start", "crops", "steps", "storage", "one"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--place", default="COCO", help="for one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "one":
        one(options.folder, options.place)
    else:
        globals()[options.part](options.folder)


if __name__ == "__main__":
    main()
