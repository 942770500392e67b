"""Ranks: who refines what, when all work and when some do not."""

import pytest

from simgan_aug.coco import CocoImage
from simgan_aug.dataset import ranks
from simgan_aug.dataset.journal import Journal, Writer
from simgan_aug.dataset.ranks import CHUNK, Rank, share
from simgan_aug.dataset.storage import LocalFolder
from simgan_aug.errors import ConfigError

END = object()
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Nobody waits for long."""
    monkeypatch.setattr(ranks, "PATIENCE", 0.2)


class Simulated:
    """One rank of a job: takes images and says in its journal what became of them."""

    def __init__(self, folder, number, world, count, suspects=()):
        self.writer = Writer(folder)
        journal = Journal(folder, count, "skip")
        journal.refresh()
        planned = [CocoImage(n, f"{n}.png", 20, 12) for n in range(count)]
        self.items = share(planned, journal, Rank(number, world), set(suspects))
        self.taken = []

    def step(self, finish=True):
        """Refine an image, or only begin with it, or wait; whether it is not yet through."""
        item = next(self.items, END)
        if item in (END, None):
            return item is None
        self.writer.add(claim=item.number, alone=item.alone)
        self.taken.append(item.number)
        if finish:
            self.writer.add(done=item.number)
        return True


@pytest.fixture
def simulate(tmp_path):
    """Ranks of one job."""

    def make(world, count, suspects=()):
        folder = LocalFolder(tmp_path)
        return [Simulated(folder, number, world, count, suspects) for number in range(world)]

    return make


def in_turn(working):
    """Every rank takes one image after the other, until none finds more."""
    going = list(working)
    while going:
        going = [rank for rank in going if rank.step()]


def taken(*working):
    return sorted(number for rank in working for number in rank.taken)


@pytest.mark.parametrize("gone", [*NAMES, "all"])
def test_without_torchrun_the_engine_says_how_to_start_it(monkeypatch, gone):
    for name in NAMES:
        monkeypatch.setenv(name, "1")
        if gone in (name, "all"):
            monkeypatch.delenv(name)

    with pytest.raises(ConfigError, match="start it so: torchrun"):
        Rank.of_torchrun()


def test_an_environment_of_something_else_is_refused(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "many")

    with pytest.raises(ConfigError, match="start it so: torchrun"):
        Rank.of_torchrun()


def test_torchrun_says_which_rank_this_is(monkeypatch):
    for name, value in zip(NAMES, "5813", strict=True):
        monkeypatch.setenv(name, value)

    assert Rank.of_torchrun() == Rank(number=5, world=8, local=1, local_world=3)


def test_the_ranks_of_a_machine_share_its_cores():
    assert Rank(local_world=10**6).cores() == 1
    assert Rank(local_world=1).cores() >= Rank(local_world=2).cores()


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 6, 3 * CHUNK + 5])
def test_ranks_in_step_take_every_image_once(simulate, world, count):
    working = simulate(world, count)

    in_turn(working)

    assert taken(*working) == [*range(count)]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_one_after_the_other_take_every_image_once(simulate, world):
    working = simulate(world, 500)

    for rank in working:
        in_turn([rank])

    assert taken(*working) == [*range(500)]


def test_one_rank_alone_takes_images_in_order(simulate):
    (rank,) = simulate(1, 200)

    in_turn([rank])

    assert rank.taken == [*range(200)]


def test_each_rank_begins_with_its_own_part(simulate):
    working = simulate(3, 30)

    for rank in working:
        for _ in range(10):
            rank.step()

    assert [rank.taken for rank in working] == [[*range(n, 30, 3)] for n in range(3)]


def test_two_ranks_take_over_what_a_third_never_begins_with(simulate):
    working = simulate(3, 400)[:2]

    in_turn(working)

    assert {*taken(*working)} == {*range(400)}
    assert len(taken(*working)) <= 400 + CHUNK
    assert all(len(rank.taken) > 180 for rank in working)


def test_what_a_lost_rank_held_is_taken_over_when_patience_ends(simulate):
    first, lost = simulate(2, 300)
    for _ in range(20):
        lost.step(finish=False)

    in_turn([first])

    assert sorted(first.taken) == [*range(300)]
    assert {*first.taken[-20:]} == {*lost.taken}


def test_a_rank_waits_for_what_another_holds(simulate, monkeypatch):
    monkeypatch.setattr(ranks, "PATIENCE", 60)
    first, other = simulate(2, 10)
    other.step(finish=False)
    for _ in range(20):
        assert first.step()

    other.writer.add(done=other.taken[0])

    assert not first.step()
    assert taken(first, other) == [*range(10)]


def test_a_slow_rank_leaves_out_what_others_have_done(simulate):
    fast, slow = simulate(2, 6 * CHUNK)
    slow.step()

    in_turn([fast])
    in_turn([slow])

    assert {*fast.taken} | {*slow.taken} == {*range(6 * CHUNK)}
    assert len(taken(fast, slow)) <= 6 * CHUNK + CHUNK


def test_suspects_come_last_and_alone(simulate):
    (rank,) = simulate(1, 10, suspects=[2, 5])

    items = list(rank.items)

    assert [item.number for item in items] == [0, 1, 3, 4, 6, 7, 8, 9, 2, 5]
    assert [item.number for item in items if item.alone] == [2, 5]


def test_no_image_that_is_done_is_taken_again(simulate, tmp_path):
    writer = Writer(LocalFolder(tmp_path))
    for number in range(0, 10, 2):
        writer.add(done=number)

    working = simulate(2, 10)
    in_turn(working)

    assert {*taken(*working)} == {1, 3, 5, 7, 9}


def test_a_rank_that_helps_another_does_not_do_the_same_images_beside_it(simulate, tmp_path):
    writer = Writer(LocalFolder(tmp_path))
    for number in range(0, 1000, 2):
        writer.add(done=number)

    working = simulate(2, 1000)
    in_turn(working)

    assert {*taken(*working)} == {*range(1, 1000, 2)}
    assert len(taken(*working)) <= 500 + 2 * CHUNK


def test_suspects_that_another_rank_has_refined_are_left_out(simulate):
    first, second = simulate(2, 10, suspects=[2, 5])

    in_turn([first])
    in_turn([second])

    assert taken(first, second) == [*range(10)]


def test_sharing_ends_though_a_rank_is_closed_midway(simulate):
    first, second = simulate(2, 10)
    first.step()
    first.items.close()

    in_turn([second])

    assert taken(first, second) == [*range(10)]


def test_ranks_leave_each_others_suspects_for_a_while(simulate, tmp_path):
    before = Writer(LocalFolder(tmp_path))
    for number in (0, 1, 2):
        before.add(claim=number)
    before.close()
    first, second, third = simulate(3, 30, suspects=[0, 1, 2])

    for _ in range(12):
        first.step()

    assert first.taken[:10] == [3, 6, 9, 12, 15, 18, 21, 24, 27, 0]
    assert not {1, 2} & set(first.taken)
    in_turn([first, second, third])
    assert {*first.taken, *second.taken, *third.taken} == {*range(30)}
