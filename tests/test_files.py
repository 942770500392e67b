"""Files: whole or absent, whatever happens."""

import os
import threading

import pytest

from simgan_aug.errors import OutputError
from simgan_aug.files import chunks, write_atomically

resource = pytest.importorskip("resource", reason="limits of a process, to fill a disk")


def test_a_written_file_is_whole_and_alone(tmp_path):
    path = tmp_path / "new" / "folder" / "a.bin"

    write_atomically(path, b"first")
    write_atomically(path, b"second")

    assert path.read_bytes() == b"second"
    assert [item.name for item in path.parent.iterdir()] == ["a.bin"]


def test_who_reads_the_old_file_is_not_disturbed_by_the_new(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, b"first")

    with path.open("rb") as reader:
        write_atomically(path, b"second")

        assert reader.read() == b"first"


@pytest.mark.parametrize("blocked", ["below a file", "onto a folder", "a long name"])
def test_a_failed_write_leaves_nothing_behind(tmp_path, blocked):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    names = {"below a file": "file/a", "onto a folder": "folder", "a long name": "x" * 300}

    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / names[blocked], b"content")

    assert sorted(item.name for item in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            write_atomically(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.bin"]


def test_threads_that_write_leave_the_umask_as_it_was(tmp_path):
    before = os.umask(0o027)
    write = [
        threading.Thread(
            target=lambda n: [write_atomically(tmp_path / f"{n}-{i}", b"") for i in range(50)],
            args=(n,),
        )
        for n in range(8)
    ]

    for thread in write:
        thread.start()
    for thread in write:
        thread.join()

    assert os.umask(before) == 0o027
    assert {item.stat().st_mode & 0o777 for item in tmp_path.iterdir()} == {0o640}
    assert len(list(tmp_path.iterdir())) == 400


def test_parts_are_written_in_order_by_way_of_another_folder(tmp_path):
    (tmp_path / "scratch").mkdir()
    path = tmp_path / "a.bin"

    write_atomically(path, iter([b"one", b"two"]), scratch=tmp_path / "scratch", sync=False)

    assert b"".join(chunks(path)) == b"onetwo"
    assert not list((tmp_path / "scratch").iterdir())


def test_parts_that_break_off_leave_nothing(tmp_path):
    def parts():
        yield b"one"
        raise OSError(5, "Input/output error")

    with pytest.raises(OutputError, match="Input/output error"):
        write_atomically(tmp_path / "a.bin", parts())

    assert not list(tmp_path.iterdir())
