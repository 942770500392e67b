"""Object stores: the same folder as on a disk, and a failing store is nobody else's fault."""

import itertools

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from simgan_aug.dataset import RefineJob
from simgan_aug.dataset.journal import Journal, Writer
from simgan_aug.dataset.objects import ObjectFolder
from simgan_aug.dataset.storage import LocalFolder, folder_of, sha256
from simgan_aug.errors import ConfigError, DataError, DependencyError, ImageError, OutputError

counter = itertools.count()


class Failing(MemoryFileSystem):
    """A store that can be told to fail, as networks do, with an error of its own kind."""

    protocol = "failing"
    fails = False

    def _open(self, *arguments, **options):
        if Failing.fails:
            raise RuntimeError("server disconnected")
        return super()._open(*arguments, **options)

    def cat_file(self, *arguments, **options):
        if Failing.fails:
            raise RuntimeError("server disconnected")
        return super().cat_file(*arguments, **options)

    def info(self, *arguments, **options):
        if Failing.fails:
            raise RuntimeError("server disconnected")
        return super().info(*arguments, **options)


fsspec.register_implementation("failing", Failing)


@pytest.fixture
def store():
    Failing.fails = False
    yield folder_of(f"failing://bucket-{next(counter)}/data")
    Failing.fails = False


def test_a_store_is_a_folder(store):
    store.write("images/a.png", b"one")
    store.write("images/b/c.png", iter([b"t", b"wo"]))

    assert isinstance(store, ObjectFolder)
    assert store.names("images") == ["images/a.png", "images/b/c.png"]
    assert store.read("images/b/c.png") == b"two"
    assert store.size("images/a.png") == 3
    assert store.size("images/none.png") is None
    assert store.missing(["images/a.png", "x.png"]) == ["x.png"]
    assert b"".join(store.parts("images/b/c.png")) == b"two"
    assert sha256(store, "images/a.png").startswith("7692c3ad3540")
    store.remove("images/a.png")
    store.remove("images/a.png")
    assert store.names("images") == ["images/b/c.png"]


def test_what_is_not_there_is_an_error_of_the_image(store):
    with pytest.raises(ImageError, match=r"data/a\.png: no such image file"):
        store.read("a.png")
    with pytest.raises(FileNotFoundError):
        list(store.parts("a.png"))


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.read("a.png"),
        lambda store: store.size("a.png"),
        lambda store: store.tail("a.png", 0, 9),
        lambda store: list(store.parts("a.png")),
        lambda store: store.write("a.png", b"two"),
    ],
    ids=["read", "size", "tail", "parts", "write"],
)
def test_a_store_that_fails_is_no_fault_of_an_image(store, act):
    store.write("a.png", b"one")
    Failing.fails = True

    with pytest.raises(OutputError, match=r"data/a\.png: the store failed: server disconnected"):
        act(store)


@pytest.mark.parametrize("name", ["", "/a", "a\\b", "a\0", "../a", "./a", "a//b"])
def test_a_name_that_is_not_plain_is_refused(store, name):
    with pytest.raises(DataError, match="file_name"):
        store.read(name)


def test_a_journal_is_a_row_of_objects_each_read_once(store):
    writer = Writer(store)
    journal = Journal(store, 9, "skip")
    writer.add(claim=1)
    writer.sync()
    writer.add(done=1)
    writer.add(claim=2)
    writer.sync()

    journal.refresh()
    journal.refresh()

    assert len(store.names(".simgan/journal")) == 2
    assert list(journal.state) == [0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert journal.claims == {2: 1}


@pytest.mark.parametrize("url", ["file:///tmp/x", "local:///tmp/x", "simplecache::s3://a/b"])
def test_an_address_that_is_none_of_a_store_says_what_to_give(url):
    with pytest.raises(ConfigError, match="give a plain path, or the address of an object store"):
        folder_of(url)


def test_a_store_whose_library_is_absent_says_which(monkeypatch):
    with pytest.raises((DependencyError, ConfigError), match="smb://"):
        folder_of("smb://host/folder")


def test_a_path_is_a_folder_of_this_machine(tmp_path):
    assert isinstance(folder_of(tmp_path), LocalFolder)


@pytest.mark.parametrize("out", ["failing://b/data", "failing://b/data/out", "failing://b"])
def test_addresses_that_overlap_are_refused(refiner_file, tmp_path, out):
    annotations = tmp_path / "ann.json"
    annotations.write_text('{"images":[{"id":1,"file_name":"a.png"}]}')

    with pytest.raises(ConfigError, match="overlap"):
        RefineJob([annotations], "failing://b/data/", refiner_file, out)
