"""A data set, what an undisturbed run makes of it, and runs that can be disturbed."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from simgan_aug.dataset import refine, verify
from simgan_aug.dataset.journal import BATCH, read_lines
from simgan_aug.dataset.storage import LocalFolder

LIMIT = 300
"""Seconds that nothing here should take, on a busy machine either."""


def make_data(folder, count):
    """A COCO file of images in three folders and three formats; returns it."""
    random = np.random.default_rng(0)
    images = []
    for number in range(count):
        ending = ("png", "jpg", "webp")[number % 3]
        name = f"{'abc'[number % 7 % 3]}/{number:04}.{ending}"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
        images.append({"id": number, "file_name": name, "width": 32, "height": 24})
    path = folder / "ann.json"
    path.write_text(json.dumps({"images": images, "annotations": [], "x": float("nan")}))
    return path


class Refining:
    """One data set, one result that is disturbed, and one that is not."""

    def __init__(self, folder, refiner, count):
        self.annotations = make_data(folder / "data", count)
        self.images = folder / "data" / "images"
        self.refiner, self.count, self.out = refiner, count, folder / "out"
        self.whole = folder / "whole"
        refine([self.annotations], self.images, refiner, self.whole, workers=0)
        self.environment = dict(os.environ)

    def command(self, *options):
        where = ["--annotations", self.annotations, "--images", self.images, "--out", self.out]
        words = [*where, "--refiner", self.refiner, *options]
        return [sys.executable, "-m", "simgan_aug.cli", "refine", *map(str, words)]

    def start(self, *options):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.command(*options), **pipes, env=self.environment)

    def run(self, *options):
        """Run to the end; returns the exit code and all that was printed."""
        process = self.start(*options)
        try:
            out, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.terminate()  # with its workers
            process.wait(LIMIT)
            raise
        return process.returncode, out + errors

    def done(self):
        """Names of the images that are visible in the result."""
        folder = self.out / "images"
        found = folder.rglob("*.*")  # what a bucket is still being sent (.put) is not visible in it
        return [path.relative_to(folder).as_posix() for path in found if path.suffix != ".put"]

    def wait_for(self, count, process):
        """Until so many images are visible, or the process has ended."""
        until = time.monotonic() + LIMIT
        while len(self.done()) < count and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)

    def check_visible(self):
        """Every file that is there is whole, and the annotations are there only at the end."""
        for name in self.done():
            written, whole = (out / "images" / name for out in (self.out, self.whole))
            assert written.read_bytes() == whole.read_bytes(), name
        assert not (self.out / "ann.json").exists() or len(self.done()) == self.count

    def check_whole(self):
        """The result is that of an undisturbed run, to the byte."""
        for out in (self.out, self.whole):
            assert verify(out).complete, verify(out)
        names = [sorted(_files(out)) for out in (self.out, self.whole)]
        assert names[0] == names[1]
        for name in names[0]:
            assert (self.out / name).read_bytes() == (self.whole / name).read_bytes(), name
        assert (self.out / "ann.json").read_bytes() == self.annotations.read_bytes()

    def redone(self):
        """Images that were begun more than once."""
        lines = list(read_lines(LocalFolder(self.out)))
        return sum(line.claim is not None for line in lines) - self.count

    def check_redone(self, kills, workers):
        assert self.redone() <= kills * workers * BATCH


def _files(out):
    """Names of all files of a result but those in .simgan."""
    for path in out.rglob("*"):
        name = path.relative_to(out)
        if path.is_file() and name.parts[0] != ".simgan":
            yield name.as_posix()


def kill(process, whom):
    """kill -9: the "job", one of its "worker"s, or "all" of them."""
    workers = children(process.pid)
    for pid in {"job": [process.pid], "worker": workers[:1], "all": [process.pid, *workers]}[whom]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if whom != "worker":
        process.communicate()


def children(pid):
    """The processes that a process has started, but for the tracker of Python's multiprocessing.

    That one stays as long as the test runner does, once any test has spawned a process.
    """
    found = []
    with contextlib.suppress(OSError):
        listed = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
        for word in listed.split():
            command = b""
            with contextlib.suppress(OSError):
                command = pathlib.Path(f"/proc/{word}/cmdline").read_bytes()
            if b"multiprocessing." not in command:
                found.append(int(word))
    return found


@pytest.fixture
def refining(tmp_path, refiner_file):
    return Refining(tmp_path, refiner_file, 90)


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small disk: `mounted("size=100k")`; again with "remount,..." to change it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a disk needs root")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
