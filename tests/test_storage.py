"""Folders of a job: files whole or not at all, lines appended, nothing outside."""

import hashlib
import os

import pytest

from simgan_aug.dataset.storage import SCRATCH, LocalFolder, sha256
from simgan_aug.errors import DataError, ImageError, OutputError


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(tmp_path / "out")


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("name", ["a", "b/c/ü 1.png", "d\udcff", "./e"])
def test_what_was_written_is_read_back(folder, name, sync):
    folder.write(name, b"some bytes", sync=sync)

    assert folder.read(name) == b"some bytes"
    assert folder.size(name) == 10
    assert b"".join(folder.parts(name)) == b"some bytes"
    assert sha256(folder, name) == hashlib.sha256(b"some bytes").hexdigest()
    assert folder.missing([name, "other"]) == ["other"]


def test_parts_are_written_as_one_file(folder):
    folder.write("a", iter([b"one ", b"", b"two"]))

    assert folder.read("a") == b"one two"


def test_parts_that_end_in_an_error_leave_what_was_there(folder):
    def parts():
        yield b"new"
        raise DataError("the source has changed")

    folder.write("a", b"old")

    with pytest.raises(DataError, match="has changed"):
        folder.write("a", parts())
    assert folder.read("a") == b"old"
    assert folder.names(SCRATCH) == []


def test_an_unfinished_file_lies_in_the_scratch_folder_alone(folder):
    seen = []

    def parts():
        yield b"new"
        seen.append((folder.names("."), folder.names(SCRATCH)))

    folder.write("a", parts())

    ((everything, scratch),) = seen
    assert len(scratch) == 1
    assert [name.removeprefix("./") for name in everything] == scratch
    assert folder.names(SCRATCH) == []


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", "", "a\0", "a\\b"])
def test_no_name_leads_out(folder, name):
    folder.write("here", b"")

    for act in (
        lambda: folder.write(name, b"x"),
        lambda: folder.read(name),
        lambda: folder.remove(name),
    ):
        with pytest.raises(DataError, match="file_name"):
            act()


def test_a_link_does_not_lead_out_either(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder.write("here", b"")
    (folder.path / "images").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DataError, match="leads out"):
        folder.write("images/a.png", b"x")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_missing_image_is_an_error_with_its_path(folder):
    with pytest.raises(ImageError, match=r"out/a\.png: no such image file"):
        folder.read("a.png")


def test_a_folder_in_place_of_an_image_is_an_error(folder):
    folder.write("a.png/b", b"")

    with pytest.raises(ImageError, match=r"a\.png: is a directory"):
        folder.read("a.png")


def test_a_folder_in_place_of_a_result_is_an_error(folder):
    folder.write("a.png/b", b"")

    with pytest.raises(OutputError, match=r"cannot write .*a\.png: Is a directory"):
        folder.write("a.png", b"x")
    assert folder.names(SCRATCH) == []


def test_a_file_in_place_of_a_folder_is_an_error(folder):
    folder.write("a", b"")

    with pytest.raises(OutputError, match="cannot write"):
        folder.write("a/b", b"x")
    with pytest.raises(OutputError, match="cannot write"):
        folder.appender("a/b")


def test_removing_what_is_not_there_is_no_error(folder):
    folder.write("a", b"")

    folder.remove("a")
    folder.remove("a")

    assert folder.size("a") is None


def test_flushing_what_is_not_there_is_an_error(folder):
    with pytest.raises(OutputError, match="cannot write"):
        folder.sync(["a"])


def test_names_are_those_of_files_in_order_at_any_depth(folder):
    for name in ("x/b/2", "x/b/1", "x/a", "y/z", "x/ü"):
        folder.write(name, b"")

    assert folder.names("x") == ["x/a", "x/b/1", "x/b/2", "x/ü"]
    assert folder.names("nowhere") == []


def test_a_growing_file_is_never_one_that_was_there(folder):
    folder.appender("a").close()

    with pytest.raises(OutputError, match="File exists"):
        folder.appender("a")


def test_an_appended_line_is_there_at_once_and_after_a_flush(folder):
    lines = folder.appender("x/a")

    lines.append(b"one\n")
    assert folder.tail("x/a", 0, 100) == b"one\n"
    lines.append(b"two\n")
    lines.flush()
    lines.close()

    assert folder.tail("x/a", 4, 2) == b"tw"
    assert folder.tail("x/a", 8, 100) == b""


def test_a_line_that_finds_no_room_is_an_error(small_disk):
    lines = LocalFolder(small_disk).appender("a")

    with pytest.raises(OutputError, match="No space left"):
        lines.append(b"x" * 20_000)
    lines.close()


def test_a_file_that_finds_no_room_leaves_nothing(small_disk):
    folder = LocalFolder(small_disk)

    with pytest.raises(OutputError, match="No space left"):
        folder.write("a", os.urandom(20_000))
    assert folder.names(".") == []
