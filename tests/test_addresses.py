"""Images from a plugin's source: by address, and never mixed up with files."""

import json
import os
from pathlib import Path

import pytest
from plugged import plugged

from simgan_aug.cli import main
from simgan_aug.data import Inputs, Origin
from simgan_aug.data.addresses import place
from simgan_aug.data.listings import list_origin
from simgan_aug.errors import DataError
from simgan_aug.run import read_info
from simgan_aug.testing import write_pair

SOURCES = """
    import os
    from pathlib import Path
    from simgan_aug import hookimpl
    from simgan_aug.errors import DataError

    class Packed:
        '''A text file of names, each of an image in a folder: "NAMES?FOLDER".'''

        def __init__(self, rest):
            names, _, folder = rest.partition("?")
            self.folder, self.names = Path(folder), names.split(",")
            if not self.folder.is_dir():
                raise FileNotFoundError(folder)
            if os.environ.get("PRINTED"):
                self.fingerprint = os.environ["PRINTED"]

        def content(self, index):
            return memoryview((self.folder / self.names[index]).read_bytes())

    class Odd:
        def __init__(self, rest):
            self.names, self.given = eval(rest)
        def content(self, index):
            return self.given

    class Refusing:
        def __init__(self, rest):
            raise DataError("the database is locked; close the other program")

    @hookimpl
    def simgan_register_sources():
        return {"packed": Packed, "odd": Odd, "locked": Refusing}
"""


@pytest.fixture(autouse=True)
def sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with plugged(tmp_path / "site", sources_plugin=SOURCES):
        yield


@pytest.fixture
def data(tmp_path):
    write_pair(tmp_path)
    return tmp_path


def packed(folder):
    names = sorted(path.name for path in Path(folder).iterdir())
    return f"packed:{','.join(names)}?{folder}"


def train(*words):
    config = 'preset = "wide"\n[refiner]\nfeatures = 8\nblocks = 1\n[discriminator]\nfeatures = 8\n'
    config += "[data]\n"
    config += "crop = [16, 16]\n[training]\nsteps = 2\nbatch_size = 4\nhistory = 0\n"
    Path("small.toml").write_text(config)
    return main(["train", "--out", "run", "--device", "cpu", *words])


# What is measured.


def realism(capsys, *words):
    """What the command says of the distances of two sides, without near-duplicates."""
    code = main(["realism", "--groups", "none", "--json", *words])
    said = capsys.readouterr()
    return json.loads(said.out) if code == 0 else said.err


def test_realism_of_a_source_is_that_of_the_folder_behind_it(capsys):
    write_pair(Path(), count=16)
    folders = realism(capsys, "--synthetic", "synthetic", "--real", "real")

    packs = realism(capsys, "--synthetic", packed("synthetic"), "--real", packed("real"))
    found = realism(capsys, "--synthetic", "synthetic/*.png", "--real", "real/*.png")

    assert packs["counts"]["real"] == 16
    assert packs == found == folders


def test_refined_images_of_a_source_are_known_by_their_names(capsys):
    write_pair(Path(), count=16)
    refined = packed("real")  # of the same names
    sides = ("--synthetic", packed("synthetic"), "--real", "real", "--refined", refined)

    found = realism(capsys, *sides)

    assert found["counts"]["groups"] == 32  # a refined image is in that of its synthetic one


def test_an_image_of_a_source_that_cannot_be_measured_is_named(capsys):
    write_pair(Path(), count=16)
    address = "odd:([str(n) for n in range(16)], b'no image')"

    said = realism(capsys, "--synthetic", "synthetic", "--real", address)

    assert f"error: {address}/0: " in said


# What is an address.


@pytest.mark.parametrize(
    "given", ["packed:x", "s3://bucket//deep/", "a1+b.c-d:", "packed:", "two:\nlines"]
)
def test_an_address_stays_what_it_is(given):
    assert place(given) == given
    assert Origin(where=given).kind == "source"
    assert Origin(where=given).folders() == []


@pytest.mark.parametrize(
    "given",
    ["photos", "C:\\photos", "c:/photos", "./packed:x", "/packed:x", "Packed:x", "1a:x"],
)
def test_a_path_is_no_address(given):
    assert place(given) == Path(given)


@pytest.mark.parametrize("given", ["", "a_b:x", "my photos: old", "shots:*/[0-9].png"])
def test_a_name_with_a_colon_that_is_no_scheme_is_a_path(given):
    assert place(given) == Path(given)


def test_a_pattern_of_a_scheme_that_there_is_stays_an_address():
    assert place("packed:*.png") == "packed:*.png"


@pytest.mark.parametrize("kind", ["folder", "image"])
def test_what_exists_is_a_file_whatever_its_name(data, kind):
    there = Path("packed:x" if kind == "folder" else "packed:x.png")
    if kind == "folder":
        os.rename("real", there)
    else:
        os.rename("real/0.png", there)

    assert Origin(where=str(there)).kind == kind
    assert list_origin(Origin(where=str(there))).names


def test_a_path_that_is_given_as_one_is_none(data):
    assert Origin(where=Path("packed:x")).kind == "folder"


# Training from it.


def test_a_run_trains_on_sources_and_goes_on(data, capsys):
    synthetic, real = packed("synthetic"), packed("real")
    words = ["--synthetic", synthetic, "--real", real, "--config", "small.toml"]

    assert train(*words) == 0
    assert train("--resume", "--steps", "3") == 0
    printed = capsys.readouterr()

    assert read_info(Path("run"))["inputs"] == {
        "annotations": synthetic,
        "images": synthetic,
        "real": real,
    }
    assert Inputs.from_builtins(read_info(Path("run"))["inputs"]).real == real
    assert "next:" not in printed.out  # there is no COCO file to refine
    assert main(["report", "run", "--out", "report.html"]) == 0
    page = Path("report.html").read_text()
    assert f"{synthetic} has no labels" in page
    assert "which is gone" not in page


def test_sources_stand_beside_files(data):
    words = ["--synthetic", "synthetic.json", "--synthetic", packed("synthetic")]
    words += ["--real", "real", "--real", packed("real"), "--config", "small.toml"]

    assert train(*words) == 0

    inputs = read_info(Path("run"))["inputs"]
    assert inputs["more_synthetic"] == [{"where": packed("synthetic"), "images": None}]
    assert inputs["real"] == str(data / "real")


def test_a_source_gives_what_the_folder_does(data):
    listed, folder = (list_origin(Origin(where=where)) for where in (packed("real"), data / "real"))

    assert listed.names == folder.names
    assert listed.content(1) == folder.content(1)
    assert listed.title(1) == f"{packed('real')}/{listed.names[1]}"
    assert listed.annotations is None


@pytest.mark.parametrize("printed", [False, True])
def test_a_run_does_not_go_on_with_what_a_source_says_is_other_data(data, monkeypatch, printed):
    names = ",".join(sorted(os.listdir("real")))
    monkeypatch.setenv("PRINTED", "one" if printed else "")
    words = ["--synthetic", "synthetic.json", "--real", f"packed:{names}?real"]
    assert train(*words, "--config", "small.toml") == 0
    if printed:
        monkeypatch.setenv("PRINTED", "two")
        again = ["--real", f"packed:{names}?real"]
    else:
        again = ["--real", f"packed:{names.partition(',')[2]}?real"]

    assert train("--resume", "--steps", "3", *again) == 2


# What can go wrong.


def test_an_unknown_scheme_names_those_that_there_are(data, capsys):
    assert train("--synthetic", "synthetic.json", "--real", "pakced:real") == 2

    assert (
        "error: pakced:real: there is no such file, and no source named 'pakced' "
        "(known: locked, odd, packed); did you mean 'packed'?"
    ) in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("packed:a?nowhere", r"FileNotFoundError\('nowhere'\)"),
        ("locked:x", "the database is locked; close the other program"),
        ("odd:([], b'')", r"expected names of images, got \[\]"),
        ("odd:([1], b'')", r"expected names of images, got \[1\]"),
        ("odd:(None, b'')", "TypeError"),
    ],
)
def test_a_source_that_cannot_be_opened_is_named_with_its_plugin(address, said):
    scheme = address.partition(":")[0]
    who = f"source '{scheme}' of 'sources_plugin' of sources_plugin-dist 1.2: .*{said}"

    with pytest.raises(DataError, match=who):
        list_origin(Origin(where=address))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("packed:gone.png?site", "FileNotFoundError"),
        ("odd:(['a'], None)", "expected the bytes of an image file.*NoneType"),
        ("odd:(['a'], 'text')", "expected the bytes of an image file"),
    ],
)
def test_an_image_that_a_source_cannot_give_is_named(address, said):
    listed = list_origin(Origin(where=address))

    with pytest.raises(DataError, match=f"{listed.names[0]}: source '.*' of .*{said}"):
        listed.content(0)


def test_bytes_that_are_no_image_are_named(data, capsys):
    assert train("--synthetic", "synthetic.json", "--real", "odd:(['a.png'], b'no image')") == 2

    assert "/a.png: not a readable image" in capsys.readouterr().err


def test_labels_are_not_weighed_in_a_source(data, capsys):
    Path("weighed.toml").write_text("[regularization.labels]\nbackground = 0.5\n")

    words = ["--synthetic", packed("synthetic"), "--real", "real", "--config", "weighed.toml"]
    assert main(["train", "--out", "run", "--device", "cpu", *words]) == 2

    assert f"weighs labels, and {packed('synthetic')}" in capsys.readouterr().err
