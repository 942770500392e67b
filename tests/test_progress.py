"""A signal is a wish, and work is shown where it is."""

import io
import os
import signal

import pytest
from rich.console import Console

from simgan_aug import progress
from simgan_aug.progress import Interrupted, Wish, track

QUIET = Console(quiet=True)


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def follow(work, number, wish=None):
    """Until the fourth item, at which a signal comes."""
    for item in track(work, 10, 0, "items", str, QUIET, wish=wish):
        if item == 3:
            send(number)
        assert item < 4


def test_what_torchrun_and_a_terminal_both_send_is_one_wish():
    with Wish(QUIET) as wish:
        send(signal.SIGINT, signal.SIGINT)

    assert wish.given


def test_a_second_signal_later_aborts(monkeypatch):
    monkeypatch.setattr(progress, "TWICE", 0.0)

    with Wish(QUIET), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT, signal.SIGINT)


def test_other_signals_are_a_wish_where_they_are_named_and_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)

    with Wish(QUIET, (signal.SIGINT, signal.SIGTERM)) as wish:
        send(signal.SIGTERM)

    assert wish.given
    assert signal.getsignal(signal.SIGTERM) is before


def test_work_is_closed_when_the_user_interrupts():
    ended = []

    def work():
        try:
            yield from range(10)
        finally:
            ended.append(True)

    with pytest.raises(Interrupted):
        follow(work(), signal.SIGINT)

    assert ended == [True]


def test_with_a_wish_of_its_own_the_work_ends_itself():
    wish, done = Wish(QUIET, (signal.SIGTERM,)), []

    def work():
        for item in range(10):
            yield item
            if wish.given:
                done.append("saved")
                return

    with pytest.raises(Interrupted):
        follow(work(), signal.SIGTERM, wish)

    assert done == ["saved"]


def test_work_that_goes_back_is_shown_where_it_is(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    console = Console(record=True, file=io.StringIO())

    list(track([1, 2, 3, 2, 3, 4], 4, 0, "steps", str, console, place=lambda item: item))

    shown = [line.split()[0] for line in console.export_text().splitlines() if " s left" in line]
    assert shown == ["1/4", "2/4", "3/4", "2/4", "3/4", "4/4"]
