"""Disks that are full, read-only or lose power; files that vanish, tear or come from elsewhere."""

import os
import random
import time

import pytest
from faults.conftest import children, kill

from simgan_aug.dataset.journal import parsed


@pytest.mark.parametrize("size", ["size=16k", "size=120k", "nr_inodes=40"])
def test_a_full_disk_ends_the_job_in_order_and_with_room_it_goes_on(refining, mounted, size):
    refining.out = mounted(size) / "out"
    code, said = refining.run("--workers", 2)

    assert code == 1, said
    assert "No space left on device" in said
    assert "Traceback" not in said
    refining.check_visible()
    assert not (refining.out / "ann.json").exists()
    mounted("remount,size=100m,nr_inodes=0")
    assert refining.run("--workers", 2)[0] == 0
    refining.check_whole()


def test_a_disk_that_cannot_be_written_to_is_said_before_anything_is_done(refining, mounted):
    refining.out = mounted("ro,size=10m") / "out"

    code, said = refining.run()

    assert code == 2, said
    assert "cannot be written to; choose another --out" in said


def test_a_disk_that_has_become_read_only_refuses_the_job_and_later_takes_it(refining, mounted):
    refining.out = mounted("size=100m") / "out"
    interrupted(refining)
    mounted("remount,ro")

    code, said = refining.run("--workers", 1)

    assert code == 2, said
    assert "cannot be written to; choose another --out" in said
    mounted("remount,rw")
    assert refining.run("--workers", 1)[0] == 0
    refining.check_whole()


def interrupted(refining, count=40):
    process = refining.start("--workers", 2)
    refining.wait_for(count, process)
    kill(process, "all")
    return sorted((refining.out / ".simgan" / "journal").iterdir())


@pytest.mark.parametrize("seed", range(3))
def test_a_torn_journal_costs_work_and_nothing_else(refining, seed):
    draw = random.Random(seed)
    for path in interrupted(refining):
        content = path.read_bytes()
        torn = content[: draw.randint(0, len(content))]
        if torn and seed:
            at = draw.randrange(len(torn))
            torn = torn[:at] + draw.randbytes(draw.randint(1, 40)) + torn[at:]
        path.write_bytes(torn)

    code, said = refining.run("--workers", 2)

    assert code == 0, said
    refining.check_whole()


def test_images_that_a_power_cut_has_emptied_are_made_again(refining):
    lost = []
    for path in interrupted(refining):
        lines = list(parsed(path.read_bytes()))
        synced = max((n for n, line in enumerate(lines) if line.synced), default=-1)
        lost += [line.output for line in lines[synced + 1 :] if line.output]
    for name in lost:
        (refining.out / name).write_bytes(b"")

    code, said = refining.run("--workers", 2)

    assert lost
    assert code == 0, said
    refining.check_whole()


def test_clocks_and_hosts_may_change(refining):
    for number, path in enumerate(interrupted(refining)):
        other = path.with_name(f"elsewhere-{number}-{path.name.partition('-')[2]}")
        path.rename(other)
        os.utime(other, (0, 0) if number % 2 else (2**33, 2**33))
    for name in refining.done():
        os.utime(refining.out / "images" / name, (2**33, 2**33))
    before = refining.done()

    code, said = refining.run("--workers", 2)

    assert code == 0, said
    refining.check_whole()
    assert all((refining.out / "images" / name).stat().st_mtime == 2**33 for name in before[:30])


def test_an_image_that_vanishes_ends_the_job_with_its_name(refining):
    process = refining.start("--workers", 1)
    refining.wait_for(5, process)
    last = refining.images / "b" / "0088.jpg"
    content = last.read_bytes()
    last.unlink()
    out, errors = process.communicate(timeout=60)

    assert process.returncode == 2, out + errors
    assert f"{last}: no such image file" in errors
    refining.check_visible()
    last.write_bytes(content)
    assert refining.run("--workers", 1)[0] == 0
    refining.check_whole()


def test_a_second_job_on_the_same_folder_is_refused(refining):
    process = refining.start("--workers", 1)
    refining.wait_for(1, process)
    os.kill(process.pid, 19)  # stopped: it will not end by itself
    for pid in children(process.pid):
        os.kill(pid, 19)
    code, said = refining.run("--workers", 1)
    for pid in [process.pid, *children(process.pid)]:
        os.kill(pid, 18)
    process.communicate(timeout=60)

    assert code == 1
    assert "another job is at work in" in said
    assert process.returncode == 0
    refining.check_whole()


def test_a_job_waits_for_workers_that_a_killed_one_has_left_behind(refining):
    process = refining.start("--workers", 1)
    refining.wait_for(1, process)
    (worker,) = children(process.pid)
    os.kill(worker, 19)  # it holds the lock, and does not end by itself
    kill(process, "job")
    following = refining.start("--workers", 1)
    time.sleep(14)  # longer than a job of which nothing is known is waited for
    waiting = following.poll() is None
    os.kill(worker, 18)
    out, errors = following.communicate(timeout=60)

    assert waiting
    assert following.returncode == 0, out + errors
    assert "waiting for workers of a job that was killed" in errors
    refining.check_whole()


def test_what_is_printed_when_python_starts_does_not_disturb_the_workers(refining, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("print('hello from the cluster')")
    refining.environment["PYTHONPATH"] = str(tmp_path / "site")

    code, said = refining.run("--workers", 1)

    assert code == 0, said
    refining.check_whole()
