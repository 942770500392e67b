"""What planning and resuming a large job costs: time and peak memory, on files made here.

    python examples/study/planning.py [--images 1000000] [--folder /tmp/planning]

Each row is measured in a process of its own; memory is the peak above what the imports take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

POLYGON = [round(7.31 * n % 640, 2) for n in range(48)]


def write_coco(path: Path, images: int, megabytes: int, odd: bool = False) -> None:
    """A COCO file of so many images, filled up with annotations to a size."""
    with path.open("w") as file:
        file.write('{"info":{"score":NaN},' if odd else '{"info":{},')
        file.write('"images":[' + ",".join(_entries(images)) + '],"annotations":[')
        number = 0
        while file.tell() < megabytes * 2**20:
            entries = [_annotation(n, images) for n in range(number, number + 1000)]
            file.write((",\n" if number else "") + ",\n".join(entries))
            number += 1000
        file.write('],"categories":[{"id":1,"name":"hand"}]}')


def _entries(images: int) -> Iterator[str]:
    for number in range(images):
        yield (
            f'{{"license":1,"file_name":"{_name(number)}","height":480,"width":640,'
            f'"date_captured":"2013-11-14 17:02:52","id":{number}}}\n'
        )


def _annotation(number: int, images: int) -> str:
    return json.dumps(
        {
            "segmentation": [POLYGON],
            "area": 702.1,
            "iscrowd": 0,
            "image_id": number % images,
            "bbox": [473.07, 395.93, 38.65, 28.67],
            "category_id": 1,
            "id": number,
        }
    )


def _name(number: int) -> str:
    return f"{number // 10_000:04}/{number:012}.jpg"


def write_journal(folder: Path, images: int, workers: int) -> None:
    """What so many workers have written when all but the last hundred images are done."""
    journal = folder / ".simgan" / "journal"
    journal.mkdir(parents=True, exist_ok=True)
    for worker in range(workers):
        with (journal / f"host-{worker}.jsonl").open("w") as file:
            for count, number in enumerate(range(worker, images - 100, workers)):
                done = {"done": number, "name": _name(number), "output": f"images/{_name(number)}"}
                done |= {"source": "0" * 64, "sha256": "0" * 64, "size": 123456, "notes": []}
                file.write(f'{{"claim": {number}, "alone": false}}\n{json.dumps(done)}\n')
                if count % 16 == 15:
                    file.write('{"synced": true}\n')
            file.write('{"synced": true}\n')


def plan(path: Path) -> dict[str, object]:
    """Plan a job: hash and read the file."""
    from simgan_aug.dataset.plan import Settings, panoptic_masks, planned
    from simgan_aug.dataset.storage import sha256_of

    sha256_of(path)
    panoptic_masks(path)
    return {"images": len(planned([path], Settings()))}


def look(path: Path) -> dict[str, object]:
    """Plan, and look for every image."""
    from simgan_aug.coco import missing_of, read_images

    names = [image.file_name for image in read_images(path)]
    return {"missing": len(missing_of(names, path.parent / "images"))}


def splice(path: Path) -> dict[str, object]:
    """Write the file with other endings."""
    from simgan_aug.dataset.plan import Settings
    from simgan_aug.dataset.splice import spliced

    settings = Settings(format="png")
    with (path.parent / "spliced.json").open("wb") as file:
        file.writelines(spliced(path, settings.output))
    return {"MB written": (path.parent / "spliced.json").stat().st_size // 2**20}


def resume(path: Path) -> dict[str, object]:
    """Read the journals."""
    from simgan_aug.dataset.journal import Journal
    from simgan_aug.dataset.storage import LocalFolder

    count = int(path.stem)
    journal = Journal(LocalFolder(path.parent / "out"), count, "stop False 178956970")
    journal.refresh()
    return {"left": journal.state.count(0)}


def measure(task: str, path: Path) -> None:
    """In a process of its own: run a task, print what it cost."""
    import simgan_aug.dataset.job  # noqa: F401

    before = _peak()
    began = time.perf_counter()
    found = globals()[task](path)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": round(seconds, 2), "MB": _peak() - before} | found))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Make the files, measure each row, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/planning"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]))
        return
    folder, images = options.folder, options.images
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        f"{images:,} images": (folder / f"{images}.json", images, 0, False),
        "200 MB, as COCO's": (folder / "200mb.json", 50_000, 200, False),
        "200 MB, with a NaN": (folder / "200mb-nan.json", 50_000, 200, True),
        "2 GB": (folder / "2gb.json", 500_000, 2048, False),
        "2 GB, with a NaN": (folder / "2gb-nan.json", 500_000, 2048, True),
    }
    print("| file | MB | task | s | MB of memory | found |\n|---|---|---|---|---|---|")
    for name, (path, *made) in files.items():
        if not path.exists():
            write_coco(path, *made)
        for task in ("plan", "splice"):
            row(name, path, task)
    path = files[f"{images:,} images"][0]
    for number in range(images):
        image = folder / "images" / _name(number)
        if number % 10_000 == 0:
            image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    row(f"{images:,} images", path, "look")
    write_journal(folder / "out", images, 64)
    row(f"{images:,} images, 64 workers", path, "resume")


def row(name: str, path: Path, task: str) -> None:
    """Measure and print one row; under 4 GiB of address space for the large files."""
    limit = 4 * 2**30 if path.stem.startswith("2gb") else resource.RLIM_INFINITY
    command = [sys.executable, __file__, "--measure", task, str(path)]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    if ran.returncode:
        print(f"| {name} | | {task} | {ran.stderr.strip().splitlines()[-1]} |", flush=True)
        return
    found = json.loads(ran.stdout)
    seconds, memory = found.pop("seconds"), found.pop("MB")
    size = path.stat().st_size // 2**20
    said = ", ".join(f"{key}: {value}" for key, value in found.items())
    print(f"| {name} | {size} | {task} | {seconds} | {memory} | {said} |", flush=True)


if __name__ == "__main__":
    main()
