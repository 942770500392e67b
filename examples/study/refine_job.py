"""The refine job measured: the same files whatever refines them, its speed, its memory.

    python examples/study/refine_job.py [same|speed|memory ...] [--images 10000]

Images are made here; the refiners are untrained, which takes as long.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from simgan_aug.checkpoint import Checkpoint, save_checkpoint
from simgan_aug.config import Config, Part, Tone
from simgan_aug.dataset import refine, verify
from simgan_aug.imagefile import decode_image, encode_image
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks import UnshuffleRefiner


def make_refiner(path: Path, **options: int) -> Path:
    """An untrained refiner that changes every pixel."""
    torch.manual_seed(0)
    network = UnshuffleRefiner(3, **options)
    torch.nn.init.normal_(network.head.weight, std=0.2)
    config = Config(refiner=Part(name="unshuffle", options=options), tone=Tone(photos=0))
    save_checkpoint(path, Checkpoint(network, 3, None, config, {}))
    return path


def make_images(folder: Path, count: int, width: int, height: int) -> Path:
    """JPEGs with some structure, and their COCO file."""
    (folder / "images").mkdir(parents=True)
    random, images = np.random.default_rng(0), []
    for number in range(count):
        coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        name = f"{number:06}.jpg"
        image.save(folder / "images" / name, quality=92)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    (folder / "ann.json").write_text(json.dumps({"images": images, "annotations": []}))
    return folder / "ann.json"


def same(folder: Path, count: int) -> None:
    """One data set, refined by different numbers of workers and by Ray."""
    refiner = make_refiner(folder / "light.safetensors", features=16, blocks=1)
    annotations = make_images(folder / "many", count, 96, 64)
    ways = {"workers 1": {"workers": 1}, "workers 2": {"workers": 2}, "workers 3": {"workers": 3}}
    ways |= {"ray, 2 actors": {"engine": "ray", "workers": 2}}
    first = None
    for name, options in ways.items():
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        done = refine([annotations], annotations.parent / "images", refiner, out, **options)
        files = {
            path.relative_to(out): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file() and ".simgan" not in path.parts
        }
        first = first or files
        print(
            f"{name}: {done.refined:,} images, {done.rate:.0f} images/s, verified: "
            f"{verify(out).complete}, all {len(files):,} files equal: {files == first}",
            flush=True,
        )


def speed(folder: Path, count: int) -> None:
    """The job's work per image against its parts, each alone in one thread."""
    torch.set_num_threads(1)
    refiner_file = make_refiner(folder / "default.safetensors")
    annotations = make_images(folder / "vga", 240, 640, 480)
    content = (annotations.parent / "images" / "000000.jpg").read_bytes()
    image = decode_image(content, "a")
    refiner = ImageRefiner.load(refiner_file, "cpu", precision="fp32")
    refined = dataclasses.replace(image, pixels=refiner(image.pixels))
    decode = _milliseconds(lambda: decode_image(content, "a"))
    network = _milliseconds(lambda: refiner(image.pixels), 20)
    encode = _milliseconds(lambda: encode_image(refined))
    print(f"alone, ms an image: decode {decode:.1f}, refine {network:.1f}, encode {encode:.1f}")
    for workers in (1, 2):
        spans = []
        for number in (80, 240):  # two lengths, for what starting costs
            listed = json.loads(annotations.read_text())
            listed["images"] = listed["images"][:number]
            part = annotations.with_name(f"ann-{number}.json")
            part.write_text(json.dumps(listed))
            shutil.rmtree(folder / "out", ignore_errors=True)
            images = annotations.parent / "images"
            done = refine([part], images, refiner_file, folder / "out", workers=workers)
            spans.append(done.seconds)
        each = (spans[1] - spans[0]) / 160 * workers * 1000
        shares = ", ".join(f"{name} {share:.0%}" for name, share in done.stages.items())
        print(
            f"workers {workers}: {1000 * workers / each:.2f} images/s once started, {each:.1f} ms "
            f"an image and worker; the network alone is {network / each:.0%} of it; all parts in "
            f"turn {(decode + network + encode) / each:.0%}; {shares}; starting took "
            f"{spans[0] - 80 * each / workers / 1000:.1f} s",
            flush=True,
        )


def _milliseconds(act: Callable[[], object], rounds: int = 50) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def memory(folder: Path, count: int) -> None:
    """Peak memory of a worker by the size of its images, each in a process of its own."""
    make_refiner(folder / "default.safetensors")
    for width, height in ((640, 480), (3840, 2160), (7680, 4320)):
        command = [sys.executable, __file__, "--one", str(folder), str(width), str(height)]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def one(folder: Path, width: int, height: int) -> None:
    """Refine four images of a size in this process; print its peak memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    annotations = make_images(folder / f"{width}", 4, width, height)
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    images, refiner = annotations.parent / "images", folder / "default.safetensors"
    done = refine([annotations], images, refiner, folder / f"out{width}", workers=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{width}x{height}: peak {peak:,.0f} MiB ({before:,.0f} after the imports, {made:,.0f} "
        f"after making the images), {done.seconds / 4:.1f} s an image"
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["same", "speed", "memory"])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(Path(options.one[0]), int(options.one[1]), int(options.one[2]))
        return
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            {"same": same, "speed": speed, "memory": memory}[part](Path(folder), options.images)


if __name__ == "__main__":
    main()
