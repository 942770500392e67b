"""What `simgan-aug new-plugin` writes is a plugin that works, from its tests to its removal."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from venvs import Venv

from simgan_aug import plugins
from simgan_aug.cli import main
from simgan_aug.new_plugin import FILES, template
from simgan_aug.testing import write_pair

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "examples" / "plugins.md"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)


def written(folder):
    return {path.relative_to(folder): path.read_text() for path in folder.rglob("*.*")}


@pytest.mark.parametrize(
    ("name", "module", "refiner", "part"),
    [
        ("simgan-aug-grain", "simgan_aug_grain", "GrainRefiner", "grain"),
        ("simgan-aug-fine-grain2", "simgan_aug_fine_grain2", "FineGrain2Refiner", "fine-grain2"),
        ("acme-film", "acme_film", "AcmeFilmRefiner", "acme-film"),
    ],
)
def test_all_names_are_those_of_the_new_plugin(name, module, refiner, part):
    assert main(["new-plugin", name]) == 0

    files = written(Path(name))
    assert len(files) == len(FILES)
    for path, text in files.items():
        assert "template" not in f"{path} {text}".lower()
    project = tomllib.loads(files[Path("pyproject.toml")])
    assert project["project"]["name"] == name
    assert project["project"]["entry-points"] == {"simgan_aug": {part: module}}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == [f"{module}.py"]
    assert tomllib.loads(files[Path("train.toml")])["refiner"]["name"] == part
    code = files[Path(f"{module}.py")]
    compile(code, "module", "exec")
    assert f"class {refiner}(nn.Module)" in code
    assert f'{{"{part}": {refiner}}}' in code
    assert f"from {module} import {refiner}" in files[Path(f"tests/test_{module}.py")]


def test_it_goes_where_it_is_wanted_and_says_what_comes_next(capsys):
    assert main(["new-plugin", "simgan-aug-grain", "--out", "my plugins/grain"]) == 0

    said = capsys.readouterr().out.splitlines()
    assert Path("my plugins/grain/pyproject.toml").is_file()
    assert [line[9:] for line in said[1:]] == [
        "pip install -e 'my plugins/grain[test]'",
        "python -m pytest 'my plugins/grain'",
        "simgan-aug train --config 'my plugins/grain/train.toml' --synthetic ann.json "
        "--real photos/ --out run/",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "Grain",
            "small letters and digits, with hyphens between, such as simgan-aug-grain; got 'Grain'",
        ),
        ("fine_grain", "got 'fine_grain'"),
        ("a b", "got 'a b'"),
        ("../grain", "got '../grain'"),
        ("", "got ''"),
        ("-grain", "got '-grain'"),
        ("grain-", "got 'grain-'"),
        ("grain\n", r"got 'grain\\n'"),
        ("3d", "got '3d'"),
        ("simgan-aug-3d", "got 'simgan-aug-3d'"),
        ("json", "'json', which Python has already.*simgan-aug-json"),
        ("torch", "'torch', which Python has already"),
        ("class", "'class', which Python has already"),
        ("simgan-aug", "'simgan_aug', which Python has already"),
        ("simgan-aug-resnet", "there is a refiner 'resnet' already"),
        ("simgan-aug-builtin", "there is a plugin 'builtin' already"),
    ],
)
def test_a_name_that_would_not_work_is_refused_in_words(name, said, capsys):
    assert main(["new-plugin", "--", name]) == 2

    assert re.search(said, capsys.readouterr().err)
    assert list(Path().iterdir()) == []


def test_an_existing_folder_is_left_alone(capsys):
    Path("simgan-aug-grain").mkdir()

    assert main(["new-plugin", "simgan-aug-grain"]) == 2

    assert "simgan-aug-grain exists; remove it, or choose" in capsys.readouterr().err
    assert list(Path("simgan-aug-grain").iterdir()) == []


def test_the_template_is_in_the_wheel_whole():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]

    packed = build["targets"]["wheel"]["force-include"]

    assert packed == {
        f"plugins/template/{file}": f"simgan_aug/plugin_template/{file}" for file in FILES
    }
    assert all((template() / file).is_file() for file in FILES)


@pytest.fixture
def venv(tmp_path):
    return Venv(tmp_path / "venv")


@pytest.fixture
def data(tmp_path):
    """What the guide takes for granted: ann.json, renders/, photos/."""
    pair = write_pair(tmp_path)
    pair.annotations.rename("ann.json")
    pair.images.rename("renders")
    pair.real.rename("photos")


def offered(venv):
    """Names of the refiners of each plugin."""
    listed = json.loads(venv.run("simgan-aug", "plugins", "--json"))
    return {plugin["name"]: plugin["parts"].get("refiner") for plugin in listed}


def guide():
    """The commands of the guide, in its order."""
    blocks = re.findall(r"^```console\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return [shlex.split(line.removeprefix("$ ")) for text in blocks for line in text.splitlines()]


@pytest.mark.timeout(600)  # some ten processes, each of which imports torch
@pytest.mark.usefixtures("data")
def test_the_guide_works_from_an_empty_folder_and_removal_leaves_no_trace(venv):
    before = set(venv.packages.iterdir())
    parts = {plugin.name: plugin.parts.get("refiner") for plugin in plugins.plugins()}
    said = {}
    for words in guide():
        if words[:2] == ["pip", "install"]:
            venv.install(Path(words[3].removesuffix("[test]")))
            continue
        fewer = {"train": ["--steps", "5"], "refine": ["--workers", "0"]}.get(words[1], [])
        said[words[1]] = venv.run(*words, *fewer, code=0)

    assert "passed" in said["-m"]
    assert "refiner: grain" in said["plugins"]
    assert offered(venv) == parts | {"grain": ["grain"]}
    assert Path("refined/ann.json").read_bytes() == Path("ann.json").read_bytes()
    assert Path("sheet.png").is_file()

    venv.run("pip", "uninstall", "--quiet", "--yes", "simgan-aug-grain")

    assert offered(venv) == parts
    assert {path for path in venv.packages.iterdir() if path.name != "__pycache__"} == before
    again = ("simgan-aug", "preview", "--refiner", "run/refiner.safetensors", "--images", "renders")
    missing = venv.run(*again, "--out", "again.png", code=2)
    assert "needs the refiner 'grain' of simgan-aug-grain 0.1.0" in missing
