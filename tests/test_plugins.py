"""One registry for our parts and theirs; a broken plugin stops nothing else."""

import importlib.metadata
import json
import os
import subprocess
import sys
import textwrap
import zipfile

import click
import numpy as np
import pytest
from plugged import plugged, write_distribution
from torch import nn

from simgan_aug import builtin, observers, plugins
from simgan_aug.checkpoint import Checkpoint, load, save_checkpoint
from simgan_aug.cli import main
from simgan_aug.config import Config, Part, Tone
from simgan_aug.errors import CheckpointError, ConfigError, PluginError
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks import ResNetRefiner
from simgan_aug.plugins import Registry

BUILTINS = {"builtin": builtin, "observers": observers}

GOOD = """
    from torch import nn

    import simgan_aug

    class Same(nn.Module):
        def __init__(self, channels: int = 3, size: int = 1, tags: list[str] = ()):
            super().__init__()
            if size < 1:
                raise ValueError(f"size must be 1 or more, got {size}")
            self.channels, self.size, self.tags = channels, size, tags

    @simgan_aug.hookimpl
    def simgan_register_refiners():
        return {"same": Same}

    seen = []

    @simgan_aug.hookimpl
    def simgan_training_step(step):
        seen.append(step)
"""

HOOK = "import simgan_aug\n\n@simgan_aug.hookimpl\n"
BROKEN = {
    "a missing import": ("import no_such_module", "import: ModuleNotFoundError.*no_such_module"),
    "a syntax error": ("def f(:", "import: SyntaxError"),
    "an exit on import": ("import sys; sys.exit(3)", "import: SystemExit: 3"),
    "a misspelt hook": (
        HOOK + "def simgan_register_refiner(): return {}",
        "no hook named 'simgan_register_refiner'.*did you mean 'simgan_register_refiners'",
    ),
    "a hook with an unknown argument": (
        HOOK + "def simgan_training_step(stap): pass",
        "simgan_training_step.*stap",
    ),
    "a part of ours": (
        HOOK + "def simgan_register_refiners(): return {'resnet': print}",
        "simgan_register_refiners: the refiner 'resnet' is already offered by 'builtin'",
    ),
    "a hook that returns a list": (
        HOOK + "def simgan_register_losses(): return ['mine']",
        "simgan_register_losses: expected a mapping from names to factories, got list",
    ),
    "a hook that returns nothing": (
        HOOK + "def simgan_register_losses(): {'mine': print}",
        "simgan_register_losses: expected a mapping .*got NoneType",
    ),
    "a name that is no text": (
        HOOK + "def simgan_register_losses(): return {5: print}",
        "expected names to callables, got 5",
    ),
    "a part that cannot be called": (
        HOOK + "def simgan_register_losses(): return {'mine': 'os.system'}",
        "expected names to callables, got 'mine': 'os.system'",
    ),
    "an exception in a hook": (
        HOOK + "def simgan_register_losses(): return {'mine': 1 / 0}",
        "simgan_register_losses: ZeroDivisionError: division by zero",
    ),
    "an exit in a hook": (
        HOOK + "def simgan_register_losses(): raise SystemExit('bye')",
        "simgan_register_losses: SystemExit: bye",
    ),
    "a hook that is not marked": (
        "def simgan_register_losses(): return {'mine': print}",
        "simgan_register_losses is not marked: put @simgan_aug.hookimpl above it",
    ),
    "a misspelt hook that is not marked": (
        HOOK + "def simgan_register_losses(): return {}\ndef simgan_training_stepp(step): pass",
        "no hook named 'simgan_training_stepp'.*did you mean 'simgan_training_step'",
    ),
    "a wrapper": (
        "import simgan_aug\n\n@simgan_aug.hookimpl(wrapper=True)\n"
        "def simgan_training_step(step): return (yield)",
        "simgan_training_step is a wrapper, a generator or a coroutine, which would never run",
    ),
    "a coroutine": (
        HOOK + "async def simgan_training_step(step): pass",
        "simgan_training_step is a wrapper, a generator or a coroutine, which would never run",
    ),
    "a module without a hook": ("X = 5", "no function that is marked with @simgan_aug.hookimpl"),
    "a good hook beside a bad one": (
        HOOK
        + "def simgan_register_discriminators(): return {'mine': print}\n\n@simgan_aug.hookimpl\n"
        + "def simgan_register_losses(): return 5",
        "simgan_register_losses: expected a mapping",
    ),
}


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Install a one-module distribution; gives its entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def offer(module, source, name=None):
        made.append(module)
        about = write_distribution(tmp_path, module, source, name)
        return list(importlib.metadata.Distribution.at(about).entry_points)

    yield offer
    for module in made:
        sys.modules.pop(module, None)


@pytest.fixture
def good(offer):
    """The entry point of a plugin without a fault."""
    return offer("good", GOOD)


@pytest.fixture
def module():
    """A plugin that is no file: hooks by name."""

    class Module:
        def __init__(self, **hooks):
            for name, hook in hooks.items():
                setattr(self, name, plugins.hookspecs.hookimpl(hook))

    return Module


def providers(registry):
    """Which plugin offers which part."""
    return {
        (kind, name): part.plugin
        for kind, parts in registry.parts.items()
        for name, part in parts.items()
    }


def test_our_parts_come_through_the_same_hooks():
    without, registry = Registry([], {}), Registry([], BUILTINS)

    assert set(plugins.KINDS) == set(without.parts)
    assert not any(without.parts.values())
    assert sorted(registry.parts["refiner"]) == ["resnet", "unshuffle"]
    assert sorted(registry.parts["discriminator"]) == ["paper-patch", "patch"]
    assert sorted(registry.parts["loss"]) == ["cross_entropy", "least_squares", "relativistic"]
    assert "identity" in registry.parts["feature transform"]
    assert registry.plugins["builtin"].hooks == [
        "simgan_register_discriminators",
        "simgan_register_feature_transforms",
        "simgan_register_losses",
        "simgan_register_presets",
        "simgan_register_refiners",
    ]
    assert "simgan_training_step" in registry.plugins["observers"].hooks


def test_a_part_is_built_with_its_options():
    registry = Registry([], BUILTINS)

    network = registry.build("refiner", "resnet", channels=1, features=4, blocks=1)

    assert isinstance(network, ResNetRefiner)
    assert network.first.weight.shape == (4, 1, 3, 3)


def test_a_plugin_part_is_built_like_ours(good):
    registry = Registry(good, BUILTINS)

    part = registry.build("refiner", "same", size=2, tags=["a"])

    assert isinstance(part, nn.Module)
    assert (part.channels, part.size, part.tags) == (3, 2, ["a"])
    found = registry.plugins["good"]
    assert (found.distribution, found.version, found.error) == ("good-dist", "1.2", "")
    assert found.hooks == ["simgan_register_refiners", "simgan_training_step"]
    assert found.parts["refiner"] == ["same"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sise": 2}, "no option 'sise' .*known: channels, size, tags.*did you mean 'size'"),
        ({"size": "big"}, "size: Expected `int`, got `str`"),
        ({"size": True}, "size: Expected `int`, got `bool`"),
        ({"tags": [1]}, r"tags: Expected `str`, got `int`"),
        ({"size": 0}, "size must be 1 or more, got 0"),
        ({"kind": "x"}, "no option 'kind'"),
        ({"name": "x"}, "no option 'name'"),
        ({"self": "x"}, "no option 'self'"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named_with_its_part(good, options, said):
    registry = Registry(good, BUILTINS)

    with pytest.raises(ConfigError, match=f"refiner 'same': .*{said}"):
        registry.build("refiner", "same", **options)


def test_bare_containers_are_checked_too(module):
    def loss(weights: dict, steps: list):
        return (weights, steps)

    registry = Registry([], {"mine": module(simgan_register_losses=lambda: {"odd": loss})})

    assert registry.build("loss", "odd", weights={"a": 1}, steps=[2]) == ({"a": 1}, [2])
    with pytest.raises(ConfigError, match="weights: Expected `object`, got `int`"):
        registry.build("loss", "odd", weights=1, steps=[])


def test_a_refiner_that_takes_no_channels_is_told_to(module):
    registry = Registry(
        [], {"mine": module(simgan_register_refiners=lambda: {"odd": lambda: nn.Identity()})}
    )

    with pytest.raises(ConfigError, match=r"refiner 'odd'.*must take `channels`"):
        registry.build("refiner", "odd", channels=3)


def test_a_missing_option_is_named_with_its_part(module):
    def loss(weight: float):
        return weight

    registry = Registry([], {"mine": module(simgan_register_losses=lambda: {"odd": loss})})

    with pytest.raises(ConfigError, match=r"loss 'odd': .*weight"):
        registry.build("loss", "odd")


@pytest.mark.parametrize("error", [ImportError("no a_library"), KeyError("x"), AssertionError()])
def test_a_factory_that_fails_is_an_error_that_names_its_part(module, error):
    def loss():
        raise error

    registry = Registry([], {"mine": module(simgan_register_losses=lambda: {"odd": loss})})

    with pytest.raises(PluginError, match=f"loss 'odd'.*: {type(error).__name__}"):
        registry.build("loss", "odd")


def test_options_are_left_alone_where_a_factory_says_nothing_of_them(module):
    def anything(**options):
        return options

    def unresolved(size: "NoSuchType"):  # noqa: F821
        return size

    losses = {"any": anything, "unresolved": unresolved, "unsigned": dict}
    registry = Registry([], {"mine": module(simgan_register_losses=lambda: losses)})

    assert registry.build("loss", "any", a=1, b="c") == {"a": 1, "b": "c"}
    assert registry.build("loss", "unresolved", size="x") == "x"
    assert registry.build("loss", "unsigned", size="x") == {"size": "x"}


def test_an_unknown_part_is_answered_with_the_known_ones():
    registry = Registry([], BUILTINS)

    with pytest.raises(PluginError) as caught:
        registry.build("refiner", "resnt")

    assert str(caught.value) == (
        "no refiner named 'resnt' (known: resnet, unshuffle); did you mean 'resnet'?"
    )


def test_an_unknown_part_may_be_that_of_a_broken_plugin(offer):
    with pytest.warns(UserWarning, match="broken"):
        registry = Registry(offer("broken", "1 / 0"), BUILTINS)

    with pytest.raises(PluginError, match=r"no loss named 'mine'.*; broken plugins: broken"):
        registry.find("loss", "mine")


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("broken_first", [True, False])
def test_a_broken_plugin_is_named_and_kept_apart(offer, good, fault, broken_first):
    source, said = BROKEN[fault]
    entries = (
        [*offer("broken", source), *good] if broken_first else [*good, *offer("broken", source)]
    )
    clean = Registry(good, BUILTINS)

    with pytest.warns(UserWarning, match=f"(?s)'broken' of broken-dist 1.2 is left out: .*{said}"):
        registry = Registry(entries, BUILTINS)

    assert {name: plugin.error for name, plugin in registry.plugins.items()} == {
        "builtin": "",
        "observers": "",
        "good": "",
        "broken": registry.plugins["broken"].error,
    }
    assert registry.plugins["broken"].error
    assert providers(registry) == providers(clean)
    assert not registry.manager.has_plugin("broken")
    assert registry.build("refiner", "same", size=2).size == 2


def test_two_plugins_with_one_part_are_both_named(offer, good):
    twin = offer("twin", GOOD)

    with pytest.warns(UserWarning, match="'twin'.*refiner 'same' is already offered by 'good'"):
        registry = Registry([*good, *twin], BUILTINS)

    assert registry.parts["refiner"]["same"].plugin == "good"


def test_two_plugins_with_one_name_are_both_named(offer, good):
    namesake = offer("namesake", GOOD.replace('"same"', '"other"'), name="good")

    with pytest.warns(UserWarning, match=r"'good \(namesake-dist\)'.*taken by .* of good-dist"):
        registry = Registry([*good, *namesake], BUILTINS)

    assert "same" in registry.parts["refiner"]
    assert "other" not in registry.parts["refiner"]
    assert registry.plugins["good"].error == ""


def test_a_module_offered_twice_works_once(offer, good):
    again = importlib.metadata.EntryPoint("again", "good", "simgan_aug")

    with pytest.warns(UserWarning, match="'again'.*left out"):
        registry = Registry([*good, again], {})

    registry.notify("simgan_training_step", out=None, step=1, preview=None)
    assert sys.modules["good"].seen == [1]
    assert list(registry.parts["refiner"]) == ["same"]


def test_strict_makes_a_broken_plugin_an_error(offer, monkeypatch):
    entries = offer("broken", "1 / 0")
    monkeypatch.setenv("SIMGAN_AUG_STRICT_PLUGINS", "1")

    with pytest.raises(PluginError, match=r"'broken' of broken-dist 1\.2 .*ZeroDivisionError"):
        Registry(entries, BUILTINS)


@pytest.mark.parametrize("wish", ["1", "good", "other, good"])
def test_a_disabled_plugin_is_not_even_imported(good, monkeypatch, wish):
    monkeypatch.setenv("SIMGAN_AUG_DISABLE_PLUGINS", wish)

    registry = Registry(good, BUILTINS)

    assert "good" not in registry.plugins
    assert "good" not in sys.modules
    assert "resnet" in registry.parts["refiner"]


def test_disabling_one_plugin_leaves_the_others(offer, good, monkeypatch):
    monkeypatch.setenv("SIMGAN_AUG_DISABLE_PLUGINS", "broken")

    registry = Registry([*offer("broken", "1 / 0"), *good], BUILTINS)

    assert sorted(registry.plugins) == ["builtin", "good", "observers"]


def test_an_observer_that_raises_is_not_called_again_and_stops_no_other(module):
    calls = []

    def fails(step):
        calls.append(("fails", step))
        raise OSError("disk gone")

    first = module(simgan_training_step=fails, simgan_register_losses=lambda: {"kept": dict})
    second = module(simgan_training_step=lambda step: calls.append(("works", step)))
    registry = Registry([], {"first": first, "second": second})

    told = r"'first'.*simgan_training_step: OSError: disk gone \(test_plugins.py, line \d+\)"
    with pytest.warns(UserWarning, match=told):
        registry.notify("simgan_training_step", out=None, step=1, preview=None)
    registry.notify("simgan_training_step", out=None, step=2, preview=None)

    assert calls == [("fails", 1), ("works", 1), ("works", 2)]
    assert "simgan_training_step: OSError: disk gone" in registry.plugins["first"].error
    assert registry.build("loss", "kept") == {}


def test_an_observer_that_raised_in_one_run_is_called_again_in_the_next(module):
    calls = []

    def fails_once(out):
        calls.append(out)
        if out == "first":
            raise OSError("disk gone")

    registry = Registry([], {"mine": module(simgan_training_ended=fails_once)})

    with pytest.warns(UserWarning, match="disk gone"):
        registry.notify("simgan_training_ended", out="first", reason="finished")
    for out in ("first", "second", "second"):
        registry.notify("simgan_training_ended", out=out, reason="finished")

    assert calls == ["first", "second", "second"]


def test_an_observer_takes_the_arguments_that_it_wants(module):
    seen = {}
    mine = module(
        simgan_training_started=lambda out, first_step: seen.update(start=(out, first_step)),
        simgan_training_ended=lambda reason: seen.update(end=reason),
    )
    registry = Registry([], {"mine": mine})

    registry.notify("simgan_training_started", out="run", config=None, first_step=1)
    registry.notify("simgan_training_ended", out="run", reason="finished")

    assert seen == {"start": ("run", 1), "end": "finished"}


def test_a_hook_of_a_later_contract_may_be_optional(offer):
    source = """
        import simgan_aug

        @simgan_aug.hookimpl
        def simgan_register_losses():
            return {"mine": dict}

        @simgan_aug.hookimpl(optionalhook=True)
        def simgan_register_wonders():
            return {}
    """

    registry = Registry(offer("early", source), BUILTINS)

    assert registry.plugins["early"].error == ""
    assert registry.build("loss", "mine") == {}


@pytest.mark.parametrize("fault", ["a misspelt hook", "a part of ours", "an exception in a hook"])
def test_strict_makes_every_fault_an_error(offer, good, monkeypatch, fault):
    monkeypatch.setenv("SIMGAN_AUG_STRICT_PLUGINS", "1")
    source, said = BROKEN[fault]

    with pytest.raises(PluginError, match=f"(?s)'broken' of broken-dist 1.2 is left out: .*{said}"):
        Registry([*good, *offer("broken", source)], BUILTINS)


def test_strict_makes_an_observer_that_raises_an_error(module, monkeypatch):
    registry = Registry([], {"mine": module(simgan_training_step=lambda step: 1 / 0)})
    monkeypatch.setenv("SIMGAN_AUG_STRICT_PLUGINS", "1")

    with pytest.raises(PluginError, match=r"'mine' .*simgan_training_step: ZeroDivisionError"):
        registry.notify("simgan_training_step", out=None, step=1, preview=None)


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_kind_is_offered_checked_found_and_listed_alike(module, kind):
    hook, part = plugins.offers.KINDS[kind].hook, click.Command("x") if kind == "command" else dict
    others = {kind: {"right-name": part}}

    def registry(returned):
        return Registry([], {"mine": module(**{hook: lambda: returned})})

    good = registry(others[kind])
    assert good.plugins["mine"].parts[kind] == ["right-name"]
    assert good.find(kind, "right-name").make is part
    with pytest.raises(PluginError, match=f"no {kind} named 'rihgt-name'.*mean 'right-name'"):
        good.find(kind, "rihgt-name")
    for wrong in (None, ["x"], {"right-name": 5}, {5: part}, {"": part}):
        with pytest.warns(UserWarning, match=f"{hook}: expected"):
            assert not registry(wrong).parts[kind]


@pytest.mark.filterwarnings("ignore:plugin")
def test_the_command_lists_all_that_is_known_of_a_plugin(tmp_path, capsys):
    sources = {"good_plugin": GOOD, "broken_plugin": BROKEN["a part of ours"][0]}
    with plugged(tmp_path / "site", **sources):
        assert main(["plugins", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert main(["plugins"]) == 0
    table = capsys.readouterr().out

    by_name = {each["name"]: each for each in listed}
    assert by_name["good_plugin"] | {"parts": {}} == {
        "name": "good_plugin",
        "distribution": "good_plugin-dist",
        "version": "1.2",
        "hooks": ["simgan_register_refiners", "simgan_training_step"],
        "parts": {},
        "error": "",
    }
    assert by_name["good_plugin"]["parts"]["refiner"] == ["same"]
    assert {*by_name["good_plugin"]["parts"]} == {*plugins.KINDS}
    assert "already offered by 'builtin'" in by_name["broken_plugin"]["error"]
    assert "refiner: same" in table
    assert "training step" in table


def test_a_plugin_that_is_not_wanted_is_not_listed(tmp_path, monkeypatch, capsys):
    with plugged(tmp_path / "site", good_plugin=GOOD, other_plugin=GOOD.replace("same", "else")):
        monkeypatch.setenv("SIMGAN_AUG_DISABLE_PLUGINS", "good_plugin", prepend=",")
        assert main(["plugins", "--json"]) == 0

    names = [each["name"] for each in json.loads(capsys.readouterr().out)]
    assert "other_plugin" in names
    assert "good_plugin" not in names


def test_every_hook_is_documented():
    hooks = {n: h for n, h in vars(plugins.hookspecs).items() if n.startswith("simgan_")}

    assert {name for name in hooks if "register" in name} == {
        offer.hook for offer in plugins.offers.KINDS.values()
    }
    for name, hook in hooks.items():
        assert hook.__doc__, name


CONV = """
    from torch import nn

    import simgan_aug

    class Conv(nn.Conv2d):
        def __init__(self, channels, size: int = 3):
            super().__init__(channels, channels, size, padding=size // 2)

    @simgan_aug.hookimpl
    def simgan_register_refiners():
        return {"conv": Conv}
"""


def test_a_checkpoint_says_which_distribution_and_version_it_needs(tmp_path, monkeypatch):
    path = tmp_path / "refiner.safetensors"
    with plugged(tmp_path / "site", conv_plugin=CONV):
        network = plugins.build("refiner", "conv", channels=3)
        config = Config(refiner=Part(name="conv"), tone=Tone(photos=0))
        save_checkpoint(path, Checkpoint(network, 3, None, config, {}))
        assert load(path).network.weight.shape == (3, 3, 3, 3)

    needs = r"needs the refiner 'conv' of conv_plugin-dist 1\.2, which is not installed"
    with pytest.raises(CheckpointError, match=f"{needs}.*no refiner named 'conv' .known: "):
        load(path)
    with (
        plugged(tmp_path / "broken", conv_plugin="import no_such_module"),
        pytest.warns(UserWarning, match="no_such_module"),
        pytest.raises(CheckpointError, match=f"{needs}.*; broken plugins: conv_plugin"),
    ):
        load(path)


def test_a_checkpoint_that_does_not_fit_another_version_names_both(tmp_path):
    path = tmp_path / "refiner.safetensors"
    with plugged(tmp_path / "site", conv_plugin=CONV):
        config = Config(refiner=Part(name="conv"), tone=Tone(photos=0))
        network = plugins.build("refiner", "conv", channels=3)
        save_checkpoint(path, Checkpoint(network, 3, None, config, {}))
    later = CONV.replace("size: int = 3", "size: int = 5")

    with (
        plugged(tmp_path / "later", later_plugin=later),
        pytest.raises(CheckpointError, match=r"with conv_plugin-dist 1\.2, here is later_plugin-d"),
    ):
        load(path)


def test_the_shared_registry_knows_who_offers_a_part():
    assert plugins.registry() is plugins.registry()
    assert plugins.parts("refiner")["resnet"].make is ResNetRefiner
    version = importlib.metadata.version("simgan-aug")
    assert plugins.provider("refiner", "resnet") == ("simgan_aug", version)
    assert "builtin" in [plugin.name for plugin in plugins.plugins()]
    assert plugins.failures().get("builtin") is None


@pytest.fixture
def install(tmp_path):
    """Build a distribution "fancy" and install it; gives the environment in which it is found."""

    def install(points, **content):
        wheel, about = tmp_path / "fancy-3.1-py3-none-any.whl", "fancy-3.1.dist-info"
        points = "".join(f"{name} = {module}\n" for name, module in points.items())
        content |= {
            f"{about}/METADATA": "Metadata-Version: 2.1\nName: fancy\nVersion: 3.1\n",
            f"{about}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
            f"{about}/entry_points.txt": f"[simgan_aug]\n{points}",
            f"{about}/RECORD": "",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, each in content.items():
                archive.writestr(name, each if isinstance(each, bytes) else textwrap.dedent(each))
        folder = tmp_path / "site"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--target", folder, wheel], check=True, capture_output=True)
        path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    return install


def test_an_installed_plugin_shows_up_and_its_broken_neighbour_is_named(install):
    points = {"fancy": "fancy", "fancy-broken": "fancy_broken"}
    environment = install(points, **{"fancy.py": GOOD, "fancy_broken.py": "1 / 0"})
    script = """
        import json, warnings
        from simgan_aug import plugins
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            part = plugins.build("refiner", "same", size=4)
        print(json.dumps({
            "size": part.size,
            "provider": plugins.provider("refiner", "same"),
            "failures": plugins.failures(),
            "warnings": [str(each.message) for each in caught],
        }))
    """

    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    said = json.loads(ran.stdout)
    assert said["size"] == 4
    assert said["provider"] == ["fancy", "3.1"]
    reason = "import: ZeroDivisionError: division by zero"
    assert said["failures"] == {"fancy-broken": reason}
    assert said["warnings"] == [f"plugin 'fancy-broken' of fancy 3.1 is left out: {reason}"]


SHIPS = """
    from pathlib import Path

    import simgan_aug

    @simgan_aug.hookimpl
    def simgan_register_checkpoints():
        return {"night": lambda: Path(__file__).with_name("night.safetensors")}
"""

PLUGINS = "import sys; from simgan_aug.cli import main; main(['plugins', *sys.argv[1:]])"

REFINES = """
    import sys
    import numpy as np
    from simgan_aug.inference import ImageRefiner
    from simgan_aug.shared import SharedRefiner

    image = np.load(sys.argv[1])
    for refiner in (ImageRefiner.load("night", "cpu"), SharedRefiner("night", device="cpu")):
        sys.stdout.buffer.write(refiner(image).tobytes())
"""


@pytest.mark.timeout(200)
def test_an_installed_distribution_may_ship_a_refiner_that_goes_by_a_name(
    install, refiner_file, image, tmp_path
):
    files = {"fancy/__init__.py": SHIPS, "fancy/night.safetensors": refiner_file.read_bytes()}
    environment = install({"fancy": "fancy"}, **files)
    working = tmp_path / "working"
    working.mkdir()
    np.save(tmp_path / "image.npy", image)

    def run(*arguments):
        command = [sys.executable, *arguments]
        options = {"env": environment, "cwd": working, "capture_output": True, "check": True}
        return subprocess.run(command, **options).stdout

    by_name = run("-c", textwrap.dedent(REFINES), str(tmp_path / "image.npy"))
    listed = json.loads(run("-c", PLUGINS, "--json"))
    table = run("-c", PLUGINS).decode()
    untrained = load(refiner_file)
    nn.init.zeros_(untrained.network.head.weight)
    save_checkpoint(working / "night", untrained)
    by_file = run("-c", textwrap.dedent(REFINES), str(tmp_path / "image.npy"))

    refined = ImageRefiner.load(refiner_file, device="cpu")(image)
    assert by_name == refined.tobytes() * 2
    assert {each["name"]: each["parts"].get("checkpoint") for each in listed}["fancy"] == ["night"]
    assert "checkpoint: night" in table
    assert by_file == image.tobytes() * 2  # a file of that name in the working folder goes first
