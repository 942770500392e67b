"""Journals: what the lines of all processes say, however they were torn."""

import hashlib
import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simgan_aug.dataset import journal as journals
from simgan_aug.dataset.journal import BATCH, DONE, FAILED, TODO, Journal, Writer, read_lines
from simgan_aug.dataset.storage import JOURNAL, LocalFolder

COUNT = 8
POLICY = "skip False 9"


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(tmp_path)


def write(folder, content, name="one"):
    """A journal of these bytes, or of these lines."""
    if not isinstance(content, bytes):
        content = b"".join(json.dumps(line).encode() + b"\n" for line in content)
    path = folder.path / JOURNAL / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def read(folder, policy=POLICY):
    journal = Journal(folder, COUNT, policy)
    journal.refresh()
    return journal


def image(folder, number, content=b"pixels", **line):
    """An image in the result; returns the line that says so."""
    name = f"images/{number}.png"
    folder.write(name, content)
    line = line or {"done": number}
    digest = hashlib.sha256(content).hexdigest()
    return line | {"name": "x", "output": name, "sha256": digest, "size": len(content)}


def states(journal):
    return {number: state for number, state in enumerate(journal.state) if state != TODO}


def test_without_journals_all_is_to_do(folder):
    assert states(read(folder)) == {}


def test_lines_say_what_became_of_an_image(folder):
    lines = [{"claim": 1}, {"done": 1}, {"claim": 2}, {"failed": 2, "policy": POLICY}]
    write(folder, [*lines, {"claim": 3}, {"left": 3}])

    assert states(read(folder)) == {1: DONE, 2: FAILED}


@pytest.mark.parametrize(
    "line",
    [
        b'{"done": 8}',
        b'{"done": -1}',
        b'{"claim": 99}',
        b'{"claim": -1}',
        b'{"left": 99}',
        b'{"failed": 10000000000000000000000}',
        b'{"died": 8, "error": ""}',
        b'{"output": "images/x"}',
        b"[" * 100_000,
        b'{"done": "7"}',
        b'{"done": [7]}',
        b'{"done": 7',
        b'"done": 7}',
        b'{"done": 7, "name": "\xff"}',
        b"[7]",
        b"7",
        b"null",
        b"",
        b"\0" * 300,
        b"\xff\xfe{\0",
    ],
    ids=lambda line: line[:20].decode("latin-1"),
)
def test_a_garbage_line_says_nothing_and_the_next_counts(folder, line):
    write(folder, b'{"done": 1}\n' + line + b'\n{"done": 2}\n')

    journal = read(folder)

    assert states(journal) == {1: DONE, 2: DONE}
    assert journal.suspects() == set()
    assert journal.killers() == {}
    assert journal.mend(Writer(folder)) == 0


def test_a_line_that_is_not_ended_says_nothing_until_it_is(folder):
    write(folder, b'{"done": 1}\n{"done": 2}')
    journal = read(folder)
    assert states(journal) == {1: DONE}

    write(folder, b'{"done": 1}\n{"done": 2}\n')
    journal.refresh()

    assert states(journal) == {1: DONE, 2: DONE}


def test_refreshing_reads_each_line_once(folder):
    write(folder, [{"claim": 1}])
    journal = read(folder)

    journal.refresh()

    assert journal.claims[1] == 1


def test_a_journal_longer_than_a_piece_is_read_whole(folder, monkeypatch):
    monkeypatch.setattr(journals, "PIECE", 40)
    write(folder, [{"done": number} for number in range(COUNT)])

    assert states(read(folder)) == dict.fromkeys(range(COUNT), DONE)
    assert [line.done for line in read_lines(folder)] == [*range(COUNT)]


def test_a_failure_under_another_policy_is_to_do_again(folder):
    write(folder, [{"failed": 1, "policy": POLICY}, {"failed": 2, "policy": "copy False 9"}])

    assert states(read(folder)) == {1: FAILED}
    assert states(read(folder, "copy False 9")) == {2: FAILED}
    assert states(read(folder, "stop False 9")) == {}


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_an_image_that_is_done_has_not_failed_whichever_is_read_first(folder, order):
    write(folder, [{"failed": 1, "policy": POLICY}], order[0])
    write(folder, [{"done": 1}], order[1])

    assert states(read(folder)) == {1: DONE}


def test_names_of_any_characters_come_back(folder):
    names = ["ü \n\r\u2028.png", "\udcff.png", '"\\', "😀"]
    writer = Writer(folder)
    for number, name in enumerate(names):
        writer.add(done=number, name=name)
    writer.close()

    assert [line.name for line in read_lines(folder)] == names


def test_every_process_writes_a_file_of_its_own(folder):
    for number in range(3):
        writer = Writer(folder)
        writer.add(done=number)
        writer.close()

    assert len(folder.names(JOURNAL)) == 3
    assert states(read(folder)) == {0: DONE, 1: DONE, 2: DONE}


def test_a_batch_of_images_is_flushed_before_the_journal_is_closed(folder):
    writer = Writer(folder)
    for number in range(BATCH + 1):
        writer.add(**image(folder, number))
    synced = [line.synced for line in read_lines(folder)]

    assert synced == [False] * BATCH + [True, False]


def test_closing_flushes_what_is_left(folder):
    writer = Writer(folder)
    writer.add(**image(folder, 1))
    writer.close()

    assert [line.synced for line in read_lines(folder)] == [False, True]


# What a power cut leaves: lines that were never flushed, of files that are empty, old or gone.


@pytest.mark.parametrize("damage", [b"", b"pixelz", b"pixels and more", None])
@pytest.mark.parametrize("how", [{"done": 1}, {"failed": 1, "policy": POLICY}])
def test_an_unflushed_image_whose_file_is_damaged_is_to_do_again(folder, damage, how):
    write(folder, [image(folder, 1, **how), image(folder, 2)])
    journal = read(folder)
    if damage is None:
        folder.remove("images/1.png")
    else:
        folder.write("images/1.png", damage)

    assert journal.mend(Writer(folder)) == 1
    assert states(journal) == {2: DONE}


def test_a_flushed_image_is_not_looked_at(folder):
    write(folder, [image(folder, 1), {"synced": True}])
    folder.remove("images/1.png")
    journal = read(folder)

    assert journal.mend(Writer(folder)) == 0
    assert states(journal) == {1: DONE}


def test_a_flush_covers_the_lines_of_its_own_journal_alone(folder):
    write(folder, [image(folder, 1)], "a")
    write(folder, [image(folder, 2), {"synced": True}], "b")
    folder.remove("images/1.png")
    folder.remove("images/2.png")
    journal = read(folder)

    assert journal.mend(Writer(folder)) == 1
    assert states(journal) == {2: DONE}


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_copy_that_was_flushed_does_not_vouch_for_the_refined_image(folder, order):
    copied = image(folder, 1, b"copy", failed=1, policy="copy False 9")
    write(folder, [copied, {"synced": True}], order[0])
    write(folder, [image(folder, 1, b"refined")], order[1])
    folder.write("images/1.png", b"")
    journal = read(folder)

    assert journal.mend(Writer(folder)) == 1
    assert states(journal) == {}


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_refined_image_is_not_lost_because_its_copy_is_gone(folder, order):
    write(folder, [image(folder, 1, b"copy", failed=1, policy="copy False 9")], order[0])
    write(folder, [image(folder, 1, b"refined")], order[1])
    journal = read(folder)

    assert journal.mend(Writer(folder)) == 0
    assert states(journal) == {1: DONE}


def test_what_was_mended_is_flushed_and_need_not_be_looked_at_again(folder):
    write(folder, [image(folder, 1)])
    writer = Writer(folder)
    read(folder).mend(writer)
    writer.close()
    folder.remove("images/1.png")

    assert read(folder).mend(Writer(folder)) == 0


def test_an_image_that_was_made_again_stays(folder):
    write(folder, [image(folder, 1)])
    folder.remove("images/1.png")
    journal = read(folder)
    writer = Writer(folder)
    journal.mend(writer)
    writer.add(**image(folder, 1))
    writer.close()
    journal.refresh()

    assert states(journal) == {1: DONE}
    assert read(folder).mend(Writer(folder)) == 0


# Images that may kill their workers, and those that do.


@pytest.mark.parametrize("end", ["done", "failed", "left"])
def test_an_image_that_somebody_has_begun_and_nobody_ended_is_suspect(folder, end):
    write(folder, [{"claim": 1}, {"claim": 2}, {end: 2, "policy": POLICY}])

    assert read(folder).suspects() == {1}


def test_an_image_that_was_alone_when_its_worker_died_is_suspect(folder):
    write(folder, [{"claim": 1, "alone": True}, {"died": 1, "error": "signal 11"}])

    assert read(folder).suspects() == {1}
    assert read(folder).killers() == {}


def test_a_suspect_that_somebody_has_refined_is_none(folder):
    write(folder, [{"claim": 1}, {"died": 2, "error": ""}], "a")
    write(folder, [{"claim": 1}, {"done": 1}, {"claim": 2}, {"done": 2}], "b")

    assert read(folder).suspects() == set()


def test_an_image_that_has_taken_two_workers_with_it_is_a_killer(folder):
    write(folder, [{"died": 1, "error": "signal 11"}], "a")
    write(folder, [{"died": 1, "error": "signal 9"}, {"died": 2, "error": "signal 9"}], "b")

    assert read(folder).killers() == {1: "signal 9"}


def test_an_image_that_has_ended_three_jobs_alone_is_a_killer(folder):
    for number, name in itertools.product((1, 2), "abc"):
        write(folder, [{"claim": number, "alone": number == 1}], f"{number}{name}")

    assert list(read(folder).killers()) == [1]


def test_two_jobs_that_ended_with_an_image_alone_do_not_make_a_killer(folder):
    for name in "ab":
        write(folder, [{"claim": 1, "alone": True}], name)

    assert read(folder).killers() == {}
    assert read(folder).suspects() == {1}


def test_a_killer_that_was_set_aside_is_none_until_the_policy_changes(folder):
    dead = [{"died": 1, "error": "signal 9"}] * 2
    write(folder, [*dead, {"failed": 1, "policy": POLICY}])

    assert read(folder).killers() == {}
    assert read(folder, "copy False 9").killers() == {1: "signal 9"}


NUMBERS = st.integers(0, COUNT - 1)
LINES = st.one_of(
    st.builds(lambda n, alone: {"claim": n, "alone": alone}, NUMBERS, st.booleans()),
    st.builds(lambda n: {"done": n, "name": f"{n}.png", "output": f"images/{n}.png"}, NUMBERS),
    st.builds(lambda n, p: {"failed": n, "policy": p}, NUMBERS, st.sampled_from([POLICY, "x"])),
    st.builds(lambda n: {"left": n}, NUMBERS),
    st.builds(lambda n: {"died": n, "error": "x"}, NUMBERS),
    st.just({"synced": True}),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(LINES, max_size=12), st.data())
def test_a_torn_journal_claims_nothing_done_that_it_does_not_say(folder, lines, data):
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    torn = content[: data.draw(st.integers(0, len(content)))]
    write(folder, torn)
    said = [json.loads(line) for line in torn.split(b"\n")[:-1]]

    journal = read(folder)

    done = {line["done"] for line in said if "done" in line}
    failed = {line["failed"] for line in said if line.get("policy") == POLICY}
    assert {n for n, state in states(journal).items() if state == DONE} == done
    assert {n for n, state in states(journal).items() if state == FAILED} <= failed - done


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(LINES, max_size=12), st.lists(st.integers(1, 60), max_size=9))
def test_a_journal_read_as_it_grows_says_what_it_says_at_once(folder, lines, steps):
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    growing = Journal(folder, COUNT, POLICY)
    for stop in itertools.accumulate(steps):
        write(folder, content[:stop])
        growing.refresh()
    write(folder, content)
    growing.refresh()

    whole = read(folder)

    assert growing.state == whole.state
    assert growing.suspects() == whole.suspects()
    assert growing.killers() == whole.killers()
