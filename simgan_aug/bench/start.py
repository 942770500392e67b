"""`bench start`: from the start of a process to its first refined image."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from simgan_aug.bench.rounds import Figures, Skip, Variant, Work, take_turns
from simgan_aug.bench.table import Cell, Row, Table

WAYS = ("torch fp32", "torch bf16", "openvino fp32", "openvino bf16", "openvino int8")
EAGER, BARE = WAYS[0], "import torch, numpy, cv2"

COLUMNS = {"CPU s": ".2f", "of torch fp32": "", "peak MiB": ".0f"}


def start(
    folder: Path,
    scratch: Path,
    *,
    refiner: Path | None = None,
    size: tuple[int, int] = (640, 480),
    rounds: int = 7,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Table:
    """CPU time and memory from the start of Python to the first image of a size.

    OpenVINO starts from an export; a row shows what importing torch alone takes, with which all
    ways begin.

    Args:
        folder: photos, of which the first is refined.
        scratch: an empty folder.
        refiner: a refiner file; None: the default network, untrained.
        size: width and height in px.
        rounds: that are counted.
        progress: shows the rounds as they go.
    """
    from simgan_aug.bench.material import scaled, untrained

    files = scaled(folder, scratch / "images", size, 8)
    refiner = refiner or untrained(scratch / "default.safetensors", files)
    commands = {BARE: ["-c", BARE]}
    skipped = {}
    for way in WAYS:
        try:
            backend, precision = _prepared(way, refiner, scratch, scratch / "images")
        except Skip as why:
            skipped[way] = str(why)
            continue
        commands[way] = ["-c", _SCRIPT, str(refiner), backend, precision, str(files[0])]
    variants: dict[str, Variant] = {
        name: partial(_started, command) for name, command in commands.items()
    }
    figures = take_turns(variants, rounds=rounds, seconds=0, progress=progress)
    figures.skipped |= skipped
    peaks = {
        name: statistics.median(_peak(command) for _ in "123") for name, command in commands.items()
    }
    rows = [_row(name, figures, peaks) for name in (BARE, *WAYS)]
    done = {name: figures.median(name) for name in figures.values if name != BARE}
    best = min(done, key=lambda name: done[name])
    return Table("start", COLUMNS, rows, [f"quickest to its first image: {best}"])


_SCRIPT = """
import sys
import numpy, PIL.Image
from simgan_aug.inference import ImageRefiner
refiner, backend, precision, image = sys.argv[1:]
refine = ImageRefiner.load(refiner, "cpu", precision=precision, backend=backend)
refine(numpy.array(PIL.Image.open(image).convert("RGB")))
"""

_PEAK = """
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def _prepared(way: str, refiner: Path, scratch: Path, photos: Path) -> tuple[str, str]:
    """Backend and precision of a way; OpenVINO's is an export, whose speed alone counts.

    Raises:
        Skip: not here.
    """
    from simgan_aug.devices import has_amx
    from simgan_aug.errors import DependencyError
    from simgan_aug.export import export

    backend, _, precision = way.partition(" ")
    if precision == "bf16" and not has_amx():
        raise Skip("this CPU has no AMX")
    if backend == "torch":
        return backend, precision
    out = scratch / precision
    try:
        export(refiner, backend, out, precision=precision, images=photos, checked=False)
    except DependencyError as error:
        raise Skip(str(error)) from None
    return str(out), "auto"


def _row(name: str, figures: Figures, peaks: Mapping[str, float]) -> Row:
    if name in figures.skipped:
        return Row(name, skipped=figures.skipped[name])
    cells: dict[str, Cell] = {"CPU s": figures.median(name), "peak MiB": peaks[name]}
    if name != BARE:
        cells["of torch fp32"] = figures.ratio(name, EAGER)
    return Row(name, cells)


def _peak(command: Sequence[str]) -> float:
    """The most memory that a Python of its own has held, in MiB."""
    told = subprocess.run(
        [sys.executable, "-c", command[1] + _PEAK, *command[2:]],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(told.stdout.split()[-1]) / 1024


def _started(command: list[str]) -> Work:
    """CPU seconds of a Python of its own."""
    import resource  # not on Windows

    def work() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return work
