"""`bench refine`: the refine job, against the slowest of what it has to do anyway."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from simgan_aug.backends import NAMES
from simgan_aug.bench.material import decoded_image, scaled, untrained
from simgan_aug.bench.rounds import Work, take_turns
from simgan_aug.bench.table import Ratio, Row, Table
from simgan_aug.dataset import RefineJob
from simgan_aug.dataset.process import open_refiner
from simgan_aug.imagefile import content_of, decode_image, encode_image

JOB, FILES, NETWORK = "refine job", "decode and encode alone", "refiner alone"

_COLUMNS = {"images/s": ".1f", "of the limit": "", "CPU ms an image": ".1f", "of its CPU time": ""}


def refine(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    backend: str = "torch",
    size: tuple[int, int] = (640, 480),
    images: int = 48,
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """Images per second of a refine job in one process, whose threads decode and encode meanwhile.

    Its limit is the slower of decoding and encoding alone and of the refiner alone, which runs as a
    job runs it, round by round. To reach it takes a second core that nobody else uses; so it is
    also told what share of the job's CPU time these two take by themselves. What a job needs to
    begin, half a second, counts: take more images for a fast refiner.

    Args:
        folder: photos; they are scaled to `size` and written as JPEG into `scratch`.
        scratch: an empty folder.
        refiner: a refiner file; None: an untrained network, whose speed is that of a trained one.
        backend: that the refiner runs on.
        size: width and height in px.
        images: of a job.
        rounds: jobs that are counted, after two that are not.
        progress: shows the rounds as they go.
    """
    files = scaled(folder, scratch / "images", size, images)
    refiner = refiner or untrained(scratch / "untrained.safetensors", files[:16])
    annotations = _annotations(scratch / "all.json", files, size)
    makers: dict[str, Callable[[], Callable[[], None]]] = {
        JOB: partial(_job, annotations, files[0].parent, refiner, scratch / "out", backend),
        FILES: partial(_files, files, scratch / "again.jpg"),
        NETWORK: partial(_network, files, refiner, backend),
    }
    logs = {name: scratch / f"{number}.json" for number, name in enumerate(makers)}
    variants = {name: partial(_timed, make, logs[name]) for name, make in makers.items()}
    wall = take_turns(variants, rounds=rounds, seconds=0, progress=progress).values
    cpu = {name: json.loads(log.read_text())[-rounds:] for name, log in logs.items()}
    rows = [_row(name, images, wall, cpu) for name in makers]
    return Table("work", _COLUMNS, rows, _said(backend, wall, cpu))


def _timed(make: Callable[[], Callable[[], None]], log: Path) -> Work:
    """Measures the time on the clock; CPU time, of all threads, goes to the log."""
    work, spent = make(), list[float]()

    def measured() -> float:
        began, cpu = time.perf_counter(), time.process_time()
        work()
        spent.append(time.process_time() - cpu)
        took = time.perf_counter() - began
        log.write_text(json.dumps(spent))
        return took

    return measured


def _job(
    annotations: Path, images: Path, refiner: Path, out: Path, backend: str
) -> Callable[[], None]:
    numbers = itertools.count()

    def work() -> None:
        job = RefineJob(
            [annotations], images, refiner, out / str(next(numbers)), workers=0, backend=backend
        )
        for _ in job.run():
            pass

    return work


def _files(files: Sequence[Path], out: Path) -> Callable[[], None]:
    def work() -> None:
        for file in files:
            out.write_bytes(encode_image(decode_image(content_of(file), str(file))))

    return work


def _network(files: Sequence[Path], refiner: Path, backend: str) -> Callable[[], None]:
    opened = open_refiner(str(refiner), backend)
    images = [decoded_image(file) for file in files]

    def work() -> None:
        for seed, image in enumerate(images):
            opened(image, seed=seed)

    return work


def _annotations(path: Path, files: Sequence[Path], size: tuple[int, int]) -> Path:
    listed = [
        {"id": number, "file_name": file.name, "width": size[0], "height": size[1]}
        for number, file in enumerate(files)
    ]
    path.write_text(json.dumps({"images": listed, "annotations": [], "categories": []}))
    return path


def _row(
    name: str, images: int, wall: Mapping[str, list[float]], cpu: Mapping[str, list[float]]
) -> Row:
    cells: dict[str, float | Ratio] = {
        "images/s": images / statistics.median(wall[name]),
        "CPU ms an image": 1000 * statistics.median(cpu[name]) / images,
        "of its CPU time": _shares(cpu, lambda files, network: files + network),
    }
    if name == JOB:
        cells["of the limit"] = _shares(wall, max)
    else:
        del cells["of its CPU time"]
    return Row(name, cells)


def _shares(times: Mapping[str, list[float]], whole: Callable[[float, float], float]) -> Ratio:
    """What the parts make up of the job's time, round by round."""
    rounds = zip(times[FILES], times[NETWORK], times[JOB], strict=True)
    return Ratio.of([whole(files, network) / job for files, network, job in rounds])


def _said(
    backend: str, wall: Mapping[str, list[float]], cpu: Mapping[str, list[float]]
) -> list[str]:
    files, network = (statistics.median(cpu[name]) for name in (FILES, NETWORK))
    slower = "the refiner" if network > files else "JPEG"
    advice = (
        "export it (simgan-aug export --to openvino), and give the folder as --backend"
        if network > files and backend in NAMES
        else "one worker a core is right"
    )
    return [
        f"The job reaches {_shares(wall, max)} of its limit; of its CPU time "
        f"{_shares(cpu, lambda a, b: a + b)} is decoding, encoding and refining.",
        f"Recommended here: {slower} takes longest: {advice}.",
    ]
