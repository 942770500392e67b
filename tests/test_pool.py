"""Worker processes: handed images, replaced when they die, ended in order."""

import contextlib
import os
import signal
import time

import numpy as np
import pytest
from faults.conftest import children
from PIL import Image

from simgan_aug.dataset.journal import Journal, Writer, read_lines
from simgan_aug.dataset.plan import Settings
from simgan_aug.dataset.pool import FUTILE, Pool
from simgan_aug.dataset.process import Task
from simgan_aug.dataset.storage import LOGS, LocalFolder
from simgan_aug.dataset.worker import ROOM, Item, Worker
from simgan_aug.errors import OutputError
from simgan_aug.files import sha256_of
from simgan_aug.inference import ImageRefiner

COUNT = 24


@pytest.fixture
def items(tmp_path):
    """Images on the disk."""
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    for number in range(COUNT):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return [Item(number, f"{number}.png", 20, 12) for number in range(COUNT)]


@pytest.fixture
def task(tmp_path, refiner_file):
    folders = {"images": str(tmp_path / "images"), "out": str(tmp_path / "out")}
    settings = vars(Settings(on_error="skip"))
    rest = {"device": "cpu", "threads": 1, "settings": dict(settings)}
    sha256 = sha256_of(refiner_file)
    return Task(refiner=str(refiner_file), sha256=sha256, **folders, **rest)


@pytest.fixture
def out(tmp_path):
    return LocalFolder(tmp_path / "out")


@pytest.fixture
def pool(task, out):
    def make(count=1, **changed):
        changed = Task(**vars(task) | changed)
        return Pool(changed, count, Writer(out), out.path / LOGS)

    return make


def done(outcomes):
    return sorted(outcome.number for outcome in outcomes if outcome.status == "done")


@pytest.mark.parametrize("count", [1, 2])
def test_every_image_comes_back_once_and_no_process_is_left(pool, items, count):
    outcomes = list(pool(count).work(items))

    assert done(outcomes) == [*range(COUNT)]
    assert len(outcomes) == COUNT
    assert not children(os.getpid())


def test_no_images_need_no_process(pool, out):
    assert list(pool(2).work([])) == []
    assert out.names(LOGS) == []


def test_a_worker_holds_some_images_and_no_more(pool, items):
    asked = []

    def counted():
        for item in items:
            asked.append(item)
            yield item

    with contextlib.closing(pool(1).work(counted())) as outcomes:
        next(outcomes)

        assert len(asked) < COUNT


def test_what_is_held_when_the_iterator_is_closed_is_finished_and_said(pool, items, out):
    outcomes = pool(2).work(items)
    next(outcomes)
    outcomes.close()

    journal = Journal(out, COUNT, "")
    journal.refresh()
    assert journal.suspects() == set()
    assert 0 < sum(journal.state) < COUNT
    assert not children(os.getpid())


def test_images_that_may_kill_come_last_and_one_at_a_time(pool, items, out):
    alone = [item._replace(alone=True) for item in items[:3]]

    outcomes = list(pool(2).work([*items[3:], *alone]))

    assert done(outcomes) == [*range(COUNT)]
    assert {outcome.number for outcome in outcomes[-3:]} == {0, 1, 2}
    claims = [line for line in read_lines(out) if line.claim is not None]
    assert sorted(line.claim for line in claims if line.alone) == [0, 1, 2]


def test_a_worker_that_is_killed_costs_no_image(pool, items):
    outcomes = pool(1).work(items)
    found = [next(outcomes)]

    for pid in children(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    found += outcomes

    assert done(found) == [*range(COUNT)]
    assert not children(os.getpid())


def test_workers_that_cannot_begin_end_the_job_with_their_last_word(pool, items, tmp_path):
    with pytest.raises(OutputError, match=r"gave up: exit code 75: .*nowhere"):
        list(pool(1, refiner=str(tmp_path / "nowhere.safetensors")).work(items))
    assert not children(os.getpid())


def test_workers_that_die_before_they_begin_are_not_tried_for_ever(
    pool, items, tmp_path, out, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(OutputError, match="end before they have begun: exit code 9"):
        list(pool(1).work(items))

    assert len(out.names(LOGS)) == FUTILE


def test_workers_that_have_nothing_to_say_leave_no_log(pool, items, out):
    list(pool(1).work(items))

    assert out.names(LOGS) == []


def test_an_image_that_fails_does_not_end_its_worker(pool, items, tmp_path, out):
    (tmp_path / "images" / "5.png").write_bytes(b"no image")

    outcomes = {outcome.number: outcome for outcome in pool(1).work(items)}

    assert outcomes[5].status == "failed"
    assert "5.png: not a readable image" in outcomes[5].error
    assert done(outcomes.values()) == [n for n in range(COUNT) if n != 5]
    assert out.names(LOGS) == []


# A worker in this process.


@pytest.fixture
def worker(task, out, refiner_file):
    source = LocalFolder(out.path.parent / "images")

    def make(threads=1, **settings):
        refiner = ImageRefiner.load(refiner_file, "cpu")
        return Worker(refiner, source, out, Settings(**settings), threads)

    return make


@pytest.mark.parametrize("threads", [1, 3])
def test_outcomes_come_in_the_order_of_the_images(worker, items, threads):
    assert [outcome.number for outcome in worker(threads).work(items)] == [*range(COUNT)]


def test_an_outcome_is_there_when_its_file_and_line_are(worker, items, out):
    for outcome in worker().work(items):
        assert out.size(f"images/{outcome.name}")
        assert outcome.number in {line.done for line in read_lines(out)}


def test_a_pause_is_used_to_finish_what_is_at_hand(worker, items):
    seen = []

    def with_pauses():
        yield items[0]
        until = time.monotonic() + 60
        while not seen:
            assert time.monotonic() < until
            yield None

    for outcome in worker().work(with_pauses()):
        seen.append(outcome.number)

    assert seen == [0]


def test_a_large_image_is_alone_in_a_workers_hands(worker, items, out):
    half = [item._replace(width=ROOM * 0.7, height=1) for item in items[:6]]

    list(worker(3, allow_size_mismatch=True).work(half))

    held = most = 0
    for line in read_lines(out):
        held += (line.claim is not None) - (line.done is not None)
        most = max(most, held)
    assert most == 1


def test_each_stage_of_an_image_is_timed(worker, items):
    (outcome,) = worker().work(items[:1])

    assert {*outcome.seconds} == {"decode", "refine", "encode"}
    assert all(seconds > 0 for seconds in outcome.seconds.values())


@pytest.mark.parametrize("threads", [1, 3])
def test_a_worker_that_is_closed_gives_back_what_it_has_not_begun(worker, items, out, threads):
    outcomes = worker(threads).work(items)
    next(outcomes)
    outcomes.close()

    journal = Journal(out, COUNT, "")
    journal.refresh()
    assert journal.suspects() == set()
    ended = {n for line in read_lines(out) for n in (line.done, line.left) if n is not None}
    assert ended == {line.claim for line in read_lines(out) if line.claim is not None}


def test_an_image_that_stops_the_job_is_given_back(worker, items, out, tmp_path):
    (tmp_path / "images" / "0.png").write_bytes(b"no image")

    outcome, *_ = worker().work(items[:2])

    assert (outcome.status, outcome.output_failed) == ("stopped", False)
    assert 0 in {line.left for line in read_lines(out)}
