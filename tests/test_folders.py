"""Folders: links are followed, loops are not, input and result stay apart."""

import subprocess
import sys

import pytest

from simgan_aug.errors import ConfigError, DataError
from simgan_aug.folders import alone_in, check_apart, check_writable, list_images


def test_linked_files_and_folders_hold_images_too(tmp_path):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "b.PNG").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "photos" / "a.jpg").symlink_to(tmp_path / "disk" / "deep" / "b.PNG")
    (tmp_path / "photos" / "notes.txt").touch()

    assert list_images(tmp_path / "photos") == ["a.jpg", "more/deep/b.PNG"]


def test_a_loop_of_links_ends(tmp_path):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "photos" / "sub" / "up").symlink_to(tmp_path / "photos")

    assert list_images(tmp_path / "photos") == ["a.jpg"]


def test_a_folder_without_images_says_which_names_count(tmp_path):
    with pytest.raises(DataError, match=r"no image files in it \(\.jpg"):
        list_images(tmp_path)


@pytest.mark.parametrize("out", ["photos", "photos/run", ".", "link/run"])
def test_a_result_does_not_lie_in_its_input_or_around_it(tmp_path, out):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")

    with pytest.raises(ConfigError, match="overlap"):
        check_apart(tmp_path / "photos", tmp_path / out)


def test_a_result_beside_its_input_is_apart(tmp_path):
    check_apart(tmp_path / "photos", tmp_path / "photos-run")


def test_a_file_in_the_way_is_seen_before_the_work(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="is a file"):
        check_writable(tmp_path / "file" / "run")


@pytest.mark.parametrize("kill", [False, True])
def test_a_folder_is_held_by_one_process_until_it_ends_however_it_does(tmp_path, kill):
    holding = "import sys; from pathlib import Path; from simgan_aug.folders import alone_in\n"
    holding += "with alone_in(Path(sys.argv[1]), 'job'): print('held', flush=True); input()"
    command = [sys.executable, "-c", holding, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another job is at work"):
            alone_in(tmp_path / "out", "job").__enter__()
        if kill:
            other.kill()
        else:
            other.stdin.write(b"\n")

    with alone_in(tmp_path / "out", "job"):
        assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_not_there_yet_is_writable_where_its_parent_is(tmp_path):
    check_writable(tmp_path / "a" / "b")
