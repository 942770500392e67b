"""Turns: each variant in a process of its own, in an order that reverses, compared in pairs."""

import json
import os
import time
from functools import partial
from pathlib import Path

import pytest

from simgan_aug.bench.rounds import Skip, take_turns, turns_here
from simgan_aug.bench.table import Ratio, Row, Table
from simgan_aug.errors import ConfigError, DependencyError


def busy(seconds):
    def work():
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    return work


def logged(path, name):
    def work():
        with Path(path).open("a") as log:
            log.write(f"{name} {os.getpid()}\n")
        return 1.0

    return work


def counting(start):
    values = iter(range(start, 10**6))
    return lambda: float(next(values))


def raising(error):
    raise error


def holding(mib):
    held = b"x" * (mib * 2**20)
    return lambda: float(len(held[:1]))


def threads():
    import torch

    return lambda: float(torch.get_num_threads())


def test_a_work_of_thrice_the_cpu_time_has_a_ratio_of_three():
    figures = take_turns(
        {"one": partial(busy, 0.01), "three": partial(busy, 0.03)}, rounds=3, seconds=0.05
    )

    assert figures.median("one") == pytest.approx(0.01, rel=0.3)
    assert figures.ratio("three", "one").median == pytest.approx(3, rel=0.2)


def test_sleep_is_no_cpu_time():
    figures = take_turns({"asleep": sleeper}, rounds=1, seconds=0.01)

    assert figures.median("asleep") < 0.02


def sleeper():
    return lambda: time.sleep(0.05)


def test_the_order_is_reversed_every_round_and_each_variant_keeps_its_process(tmp_path):
    log = tmp_path / "log"
    names = ["a", "b", "c"]

    take_turns({name: partial(logged, log, name) for name in names}, rounds=3, seconds=0)

    lines = [line.split() for line in log.read_text().splitlines()][2 * len(names) :]
    assert "".join(name for name, _ in lines) == "abccbaabc"
    assert len({pid for _, pid in lines}) == len(set(map(tuple, lines))) == 3
    assert str(os.getpid()) not in {pid for _, pid in lines}


def test_what_work_returns_stands_in_place_of_the_time_and_is_paired_by_rounds():
    figures = take_turns(
        {"low": partial(counting, 0), "high": partial(counting, 6)}, rounds=3, seconds=0
    )

    assert figures.values == {"low": [2, 3, 4], "high": [8, 9, 10]}  # two calls to warm up
    assert figures.ratio("high", "low") == Ratio(3, 2.5, 4)


@pytest.mark.parametrize("error", [Skip("no such unit here"), DependencyError("no such unit here")])
def test_what_cannot_run_here_is_skipped_with_its_reason_and_the_rest_is_measured(error):
    figures = take_turns(
        {"absent": partial(raising, error), "here": partial(counting, 1)}, rounds=1, seconds=0
    )

    assert figures.skipped == {"absent": "no such unit here"}
    assert [*figures.values] == ["here"]
    assert figures.ratio("here", "absent") is None


@pytest.mark.parametrize(
    ("error", "kind"), [(ConfigError("a wrong size"), Exception), (KeyError("x"), RuntimeError)]
)
def test_any_other_error_of_a_variant_ends_it_all_and_names_it(error, kind):
    with pytest.raises(kind, match=str(error).strip("'")):
        take_turns({"wrong": partial(raising, error)}, rounds=1)


def test_the_peak_of_memory_is_that_of_the_variants_own_process():
    figures = take_turns(
        {"small": partial(holding, 1), "large": partial(holding, 101)}, rounds=1, seconds=0
    )

    assert figures.peak_mb["large"] - figures.peak_mb["small"] == pytest.approx(100, abs=10)


def test_torch_has_as_many_threads_as_are_asked_for():
    figures = take_turns({"torch": threads}, rounds=1, seconds=0, threads=2)

    assert figures.median("torch") == 2


def test_turns_within_this_process_are_reversed_every_round_after_one_that_is_not_counted():
    done = []

    def work(name):
        done.append(name)
        return float(len(done))

    figures = turns_here({name: partial(work, name) for name in "ab"}, rounds=2)

    assert "".join(done) == "ab" + "ab" + "ba"
    assert figures.values == {"a": [3, 6], "b": [4, 5]}


# Tables.


TABLE = Table(
    "variant",
    {"ms": ".1f", "times": ""},
    [
        Row("ours", {"ms": 1.26, "times": Ratio(2, 1.5, 2.25)}),
        Row("theirs", {"ms": 2.5}),
        Row("absent", skipped="it is not installed"),
    ],
    ["take ours"],
)


def test_a_table_as_text_has_every_row_and_ends_with_what_it_says():
    lines = TABLE.as_text().splitlines()

    assert lines[0] == "| variant | ms | times |"
    assert lines[2:5] == [
        "| ours | 1.3 | 2.00 [1.50, 2.25] |",
        "| theirs | 2.5 |  |",
        "| absent | skipped: it is not installed |  |",
    ]
    assert lines[-1] == "take ours"


def test_a_table_for_a_program_has_the_same_and_is_json():
    told = json.loads(json.dumps(TABLE.as_builtins()))

    assert told["rows"] == [
        {"name": "ours", "ms": 1.26, "times": {"median": 2, "low": 1.5, "high": 2.25}},
        {"name": "theirs", "ms": 2.5},
        {"name": "absent", "skipped": "it is not installed"},
    ]
    assert told["says"] == ["take ours"]
    assert "cores" in told["machine"]
