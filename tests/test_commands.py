"""Commands of plugins: beside ours, loaded when they are asked for, and never in our way."""

import os
import subprocess
import sys

import pytest
from plugged import plugged

from simgan_aug import offers, plugins
from simgan_aug.cli import cli, main

COMMANDS = """
    import sys

    import click
    from simgan_aug import hookimpl
    from simgan_aug.errors import ConfigError

    print("imported", file=sys.stderr)

    @click.command()
    @click.option("--name", default="you", help="Whom.")
    def greet(name):
        '''Say hello to somebody, in a sentence that is much too long to fit in one line of help.'''
        click.echo(f"hello {name}")

    @click.command()
    @click.argument("what")
    def end(what):
        '''End in some way.'''
        ends = {"value": lambda: {"no": "code"}, "code": lambda: 3, "exit": lambda: sys.exit(4)}
        errors = {"ours": ConfigError("set it"), "usage": click.UsageError("wrong word")}
        errors |= {"theirs": KeyError("it"), "system": PermissionError(13, "no", "/etc/x")}
        errors |= {"interrupted": KeyboardInterrupt()}
        if what in ends:
            return ends[what]()
        raise errors[what]

    @click.group()
    def many():
        '''Has commands of its own.'''

    many.add_command(greet)

    @hookimpl
    def simgan_register_commands():
        secret = click.Command("secret", hidden=True, callback=lambda: None)
        return {"greet": greet, "end": end, "many": many, "secret": secret}
"""


@pytest.fixture
def commands(tmp_path):
    with plugged(tmp_path / "site", commands_plugin=COMMANDS):
        yield


def shell(*words):
    command = [sys.executable, "-m", "simgan_aug.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


def test_help_lists_commands_of_plugins_in_a_section_of_their_own(commands, capsys):
    assert main(["--help"]) == 0

    printed = capsys.readouterr().out
    ours, _, theirs = printed.partition("Commands of plugins:\n")
    assert [line.split()[0] for line in theirs.splitlines() if line] == ["end", "greet", "many"]
    assert "  train" in ours
    assert "secret" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_command_of_a_plugin_is_called_as_ours_are(commands, capsys):
    assert main(["greet", "--name", "Ada"]) == 0
    assert main(["many", "greet"]) == 0
    assert main(["greet", "--help"]) == 0

    printed = capsys.readouterr().out
    assert printed.startswith("hello Ada\nhello you\nUsage: simgan-aug greet [OPTIONS]")


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("value", 0, ""),
        ("code", 3, ""),
        ("ours", 2, "error: set it\n"),
        ("usage", 2, "Error: wrong word\n"),
        ("interrupted", 130, "interrupted\n"),
        (
            "theirs",
            1,
            "error: command 'end' of plugin 'commands_plugin' of commands_plugin-dist 1.2: "
            "KeyError: 'it' (where: SIMGAN_AUG_TRACEBACK=1)\n",
        ),
        ("system", 1, "error: command 'end' of plugin 'commands_plugin' of "),
    ],
)
def test_however_a_command_ends_its_exit_code_is_honest(commands, capsys, how, code, said):
    assert main(["end", how]) == code

    printed = capsys.readouterr().err.removeprefix("imported\n")
    assert printed.startswith(said) or printed.endswith(said)
    assert "Traceback" not in printed


def test_a_command_may_exit_as_it_likes(commands):
    with pytest.raises(SystemExit, match="4"):
        main(["end", "exit"])


def test_where_a_command_failed_is_shown_if_it_is_asked_for(commands, capsys, monkeypatch):
    monkeypatch.setenv("SIMGAN_AUG_TRACEBACK", "1")

    assert main(["end", "theirs"]) == 1

    printed = capsys.readouterr().err
    assert "error: command 'end' of plugin 'commands_plugin'" in printed
    assert "commands_plugin.py" in printed
    assert printed.endswith("KeyError: 'it'\n")


def test_an_unknown_command_is_answered_with_the_nearest_of_all(commands, capsys):
    assert main(["gret"]) == 2
    assert main(["trian"]) == 2

    printed = capsys.readouterr().err
    assert "no command named 'gret' (known: audit, bench, demo, end, export, greet," in printed
    assert "did you mean 'greet'?" in printed
    assert "did you mean 'train'?" in printed


@pytest.mark.filterwarnings("ignore:plugin")
def test_an_unknown_command_may_be_that_of_a_broken_plugin(tmp_path, capsys):
    with plugged(tmp_path / "site", broken_plugin="1 / 0"):
        assert main(["gret"]) == 2

    assert "; broken plugins: broken_plugin (see simgan-aug plugins)" in capsys.readouterr().err


def test_our_own_commands_do_not_load_plugins(commands):
    for words in (("train", "--help"), ("--version",)):
        ran = shell(*words)
        assert (ran.returncode, ran.stderr) == (0, "")

    ran = shell("--help")
    assert "imported" in ran.stderr
    assert "greet" in ran.stdout


def test_help_without_plugins_needs_no_torch(monkeypatch):
    monkeypatch.setenv("SIMGAN_AUG_DISABLE_PLUGINS", "1")
    code = "import sys; from simgan_aug.cli import main; main(sys.argv[1:]); "
    code += "sys.exit('torch' in sys.modules)"

    for words in (["--help"], ["trian"]):
        assert subprocess.run([sys.executable, "-c", code, *words], check=False).returncode == 0


def test_names_of_our_commands_are_taken():
    assert sorted(cli.commands) == sorted(offers.TAKEN["command"])


TAKES = """
    import click
    from simgan_aug import hookimpl

    @hookimpl
    def simgan_register_commands():
        return {NAMES}
"""


def takes(*names):
    body = ", ".join(f'"{name}": click.Command("x")' for name in names)
    return TAKES.replace("NAMES", body)


@pytest.mark.filterwarnings("ignore:plugin")
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["other", "train"], "the command 'train' is already offered by simgan_aug; rename one"),
        (
            ["greet"],
            "the command 'greet' is already offered by 'commands_plugin' of "
            "commands_plugin-dist 1.2; rename one of them",
        ),
        (["two words"], "expected names of letters, digits, _, . and -, got 'two words'"),
        (["--fast"], "expected names of letters, digits, _, . and -, got '--fast'"),
    ],
)
def test_a_plugin_whose_command_cannot_be_is_kept_apart_and_both_sides_are_named(
    tmp_path, capsys, names, said
):
    with plugged(tmp_path / "both", commands_plugin=COMMANDS, second_plugin=takes(*names)):
        assert said in plugins.failures()["second_plugin"]
        assert "other" not in plugins.parts("command")
        assert main(["greet"]) == 0
        assert main(["train", "--help"]) == 0


@pytest.mark.filterwarnings("ignore:plugin")
def test_what_is_no_click_command_is_refused(tmp_path):
    source = TAKES.replace("NAMES", '"mine": print')

    with plugged(tmp_path / "site", odd_plugin=source):
        assert "expected names to click commands, got 'mine'" in plugins.failures()["odd_plugin"]
