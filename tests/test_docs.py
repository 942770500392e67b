"""What the pages show is run: every Python snippet, every command, every option in a sentence."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import torchvision_ops
from labelled import labels_of, save, save_shifting_refiner, scene, write_coco
from torch import nn
from torch.utils.data import DataLoader

import simgan_aug
from simgan_aug import cli

torchvision_ops.install()

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md"))]

FEWER = {
    "train": ["--steps", "2"],
    "study": ["--steps", "10", "--refiner-steps", "2", "--seeds", "1"],
    "realism": ["--repeats", "2"],
    "refine": ["--workers", "0"],
    "audit": ["--workers", "0"],
}
"""Added to a command, that it be a matter of seconds."""

LONG = {"demo", "bench", "new-plugin"}
"""Have tests of their own; here their options are looked at."""


def blocks(page, language):
    """(line, text) of each fenced block of a language."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text[: found.start()].count("\n") + 2, found.group(1)


def commands(page):
    """(line, words) of each `simgan-aug` command in a block, comments and "..." left out."""
    for line, text in blocks(page, "sh"):
        for offset, row in enumerate(text.splitlines()):
            words = shlex.split(row, comments=True)
            if words[:1] == ["simgan-aug"] and "..." not in words:
                yield line + offset, words[1:]


def shown(cases):
    return [pytest.param(*case, id=f"{case[0].name}:{case[1]}") for case in cases]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a user has: a COCO file, renders, photos, some of them labelled, and a run."""
    folder = tmp_path_factory.mktemp("user")
    renders, photos = ([f"{number}.png" for number in range(count)] for count in (8, 16))
    for number, name in enumerate(renders):
        save(folder / "renders" / name, scene(number))
    for number, name in enumerate(photos):
        save(folder / "photos" / name, scene(100 + number))
        save(folder / "test" / name, scene(200 + number))
    for name, names in {"ann": renders, "test": photos, "photos": photos}.items():
        one_each = [labels_of(number)[number % 2] for number in range(len(names))]
        write_coco(folder / f"{name}.json", names, one_each)
    save_shifting_refiner(folder / "refiner.safetensors")
    (folder / "examples").symlink_to(ROOT / "examples")
    pair = ["--synthetic", "ann.json", "--images", "renders", "--real", "photos"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        assert cli.main(["train", *pair, "--out", "run", "--steps", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def user(made, tmp_path_factory):
    """One copy a page: what its first command writes its next ones read."""
    copies = {}

    def of(page):
        if page not in copies:
            copies[page] = tmp_path_factory.mktemp(page.stem) / "user"
            shutil.copytree(made, copies[page], symlinks=True)
        return copies[page]

    return of


class Passed(nn.Module):
    """Stands for a network of the reader's."""

    def forward(self, images):
        return images


def names():
    """What the snippets take for granted."""
    image = scene(0)
    images = torch.from_numpy(np.stack([image, image])).permute(0, 3, 1, 2)
    return {
        "image": image,
        "images": images.float() / 255,
        "dataset": [image, image],
        "loader": DataLoader([(images[0], 0), (images[1], 1)], batch_size=2),
        "UNetRefiner": Passed,
        "DataLoader": DataLoader,
    }


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores here
@pytest.mark.parametrize(
    ("page", "line", "code"),
    shown((page, *each) for page in PAGES for each in blocks(page, "python")),
)
def test_every_snippet_runs(page, line, code, user, monkeypatch):
    monkeypatch.chdir(user(page))
    code = code.replace("bbox_params=...", "bbox_params=None")

    exec(compile("\n" * (line - 1) + code, str(page), "exec"), names())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_runs_in_the_order_of_its_page(page, user, monkeypatch, capsys):
    monkeypatch.chdir(user(page))
    for line, words in commands(page):
        if words[0] in LONG:
            check_options(words)
            continue
        if words[0] == "train" and "--resume" not in words:  # the first one is there already
            shutil.rmtree(Path(words[words.index("--out") + 1]), ignore_errors=True)
        fewer = [] if "--verify" in words else FEWER.get(words[0], [])

        code = cli.main([*words, *fewer])

        told = capsys.readouterr().err
        assert code in (0, 3), f"{page.name}:{line}: {told}"  # 3: the audit may well find drifts


def test_every_option_named_in_a_sentence_is_one():
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for quoted in re.findall(r"`(?:simgan-aug )?([a-z][^`]*)`", text):
            words = quoted.split()
            if words[0] in cli.cli.commands:
                check_options(words)


def check_options(words):
    """Each --option of a command line is one of its command."""
    command = cli.cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"no command {name!r}"
        command = command.commands[name]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    known.add("--help")
    used = {word.partition("=")[0].strip("'\",;)") for word in words if word.startswith("--")}
    assert used <= known, f"{command.name} has no {', '.join(used - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_the_project_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


def test_the_api_reference_is_made_of_all_public_names(tmp_path):
    script = ROOT / "examples" / "api_reference.py"
    command = [sys.executable, Path(torchvision_ops.__file__), script, "--out", tmp_path / "api"]

    ran = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
    assert "Couldn't import" not in ran.stderr
    front = (tmp_path / "api" / "simgan_aug.html").read_text(encoding="utf-8")
    for name in simgan_aug.__all__:
        assert f'id="{name}"' in front
    for page in ("hookspecs", "data", "study", "transforms/torchvision"):
        assert (tmp_path / "api" / "simgan_aug" / f"{page}.html").exists()
