"""Settings from files and presets: TOML over a preset; mistakes are named."""

import dataclasses
import json

import pytest
from plugged import plugged

from simgan_aug import plugins
from simgan_aug.config import Config, Part, Training
from simgan_aug.configfile import load_config, load_preset, parse, presets
from simgan_aug.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """A config file with this content."""

    def write(text):
        path = tmp_path / "my.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


OURS = ["default", "paper-eyes", "paper-hands", "wide"]


@pytest.mark.parametrize("name", OURS)
def test_every_preset_survives_the_way_into_a_checkpoint_and_back(name):
    settings = load_preset(name)

    stored = json.dumps(settings.to_builtins())

    assert parse(json.loads(stored), "checkpoint", is_whole=True) == settings


OTHERS = [
    {"refiner": {"name": "unshuffle", "features": 16}, "student": {"features": 8}},
    {"refiner": {"name": "unshuffle", "features": 16}, "student": {"name": "resnet", "blocks": 1}},
    {"refiner": {"name": "resnet", "blocks": 3}, "student": {"blocks": 1}},
]


@pytest.mark.parametrize("tables", OTHERS)
@pytest.mark.parametrize("preset", OURS)
def test_a_student_over_any_preset_survives_the_way_into_a_run_and_back(preset, tables):
    config = parse({"preset": preset, "training": {"student_steps": 6}, **tables}, "a.toml")

    stored = json.loads(json.dumps(config.to_builtins()))

    assert parse(stored, "run.json", is_whole=True) == config


@pytest.mark.parametrize("preset", ["wide", "paper-eyes"])
def test_a_student_that_a_preset_does_not_teach_is_an_error_with_the_way_out(preset):
    with pytest.raises(ConfigError, match=r"a.toml: \[student\].*set training.student_steps"):
        parse({"preset": preset, "student": {"features": 8}}, "a.toml")


def test_the_presets_are_ours_with_a_student_and_without_and_the_papers_two():
    ours = [n for n, part in plugins.parts("preset").items() if part.plugin == "builtin"]

    assert ["default", *sorted(ours), "wide"] == OURS
    assert set(presets()) >= set(OURS)
    assert load_preset("wide") == Config()
    assert load_preset("default") == Config(training=Training(student_steps=3000))


SHIPS = """
    from pathlib import Path

    import simgan_aug

    HERE = Path(__file__).parent

    @simgan_aug.hookimpl
    def simgan_register_presets():
        return {
            "night": lambda: HERE / "night.toml",
            "lost": lambda: HERE / "lost.toml",
            "torn": lambda: HERE / "torn.toml",
            "wrong": lambda: HERE / "wrong.toml",
            "nested": lambda: HERE / "nested.toml",
            "raises": lambda: 1 / 0,
            "nothing": lambda: None,
        }
"""


@pytest.fixture
def shipped(tmp_path):
    """A plugin with presets, one of which is sound."""
    site = tmp_path / "site"
    with plugged(site, ships=SHIPS):
        (site / "night.toml").write_text("[refiner]\nfeatures = 5\n[training]\nsteps = 7\n")
        (site / "torn.toml").write_text("[refiner")
        (site / "wrong.toml").write_text("[trainning]\nsteps = 7\n")
        (site / "nested.toml").write_text('preset = "nested"\n')
        yield


@pytest.mark.usefixtures("shipped")
def test_a_plugins_preset_goes_by_its_name_and_a_file_may_stand_on_it(write):
    assert "night" in presets()
    assert load_preset("night").refiner == Part(name="unshuffle", options={"features": 5})
    assert load_preset("night").training.steps == 7
    over = load_config(write('preset = "night"\n[training]\nsteps = 9\n'))
    assert over.refiner == load_preset("night").refiner
    assert over.training.steps == 9


@pytest.mark.usefixtures("shipped")
def test_the_nearest_preset_may_be_a_plugins(write):
    with pytest.raises(ConfigError, match=r"my.toml: preset: no preset named 'nihgt'.*'night'\?"):
        load_config(write('preset = "nihgt"'))


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lost", r"lost.toml: cannot read the config file: No such file"),
        ("torn", r"torn.toml: not a TOML file"),
        ("wrong", r"unknown table or key 'trainning'.*did you mean 'training'"),
        ("nested", r"nested.toml: it stands on 'default'; leave out the key preset"),
        ("raises", r"ZeroDivisionError: division by zero"),
        ("nothing", r"TypeError: .*NoneType"),
    ],
)
def test_a_preset_that_cannot_be_had_is_named_with_its_plugin(name, said):
    with pytest.raises(
        ConfigError, match=rf"preset '{name}' of 'ships' of ships-dist 1.2: .*{said}"
    ):
        load_preset(name)


def test_a_preset_of_our_name_is_refused(tmp_path):
    for name in OURS:
        source = SHIPS.replace("night", name)
        with (
            pytest.warns(UserWarning, match=f"the preset '{name}' is already offered by"),
            plugged(tmp_path / name, ships=source),
        ):
            assert sorted(plugins.parts("preset")) == OURS[1:-1]


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'paper-eye'.*default.*did you mean 'paper-eyes'\?"):
        load_preset("paper-eye")


def test_the_eyes_preset_holds_the_published_values():
    settings = load_preset("paper-eyes")

    assert settings.refiner == Part(
        name="resnet", options={"kernel": 3, "features": 64, "blocks": 4}
    )
    assert settings.discriminator == Part(name="paper-patch", options={"form": "eyes"})
    assert settings.loss == Part(name="cross_entropy", options={"reduction": "paper_sum"})
    assert (settings.regularization.features, settings.regularization.reduction) == (
        "identity",
        "paper_sum",
    )
    assert settings.data.crop == (35, 55)
    training = settings.training
    assert training.optimizer == "sgd"
    assert (training.refiner_warmup, training.discriminator_warmup) == (1000, 200)
    assert (training.refiner_updates, training.discriminator_updates) == (2, 1)
    assert (settings.tone.photos, training.average) == (0, 0)


def test_the_hands_preset_holds_the_published_values():
    settings = load_preset("paper-hands")

    assert settings.refiner == Part(
        name="resnet", options={"kernel": 7, "features": 64, "blocks": 10}
    )
    assert settings.discriminator == Part(name="paper-patch", options={"form": "hands"})
    assert settings.loss == Part(name="cross_entropy", options={"reduction": "paper_sum"})
    assert settings.data.crop == (224, 224)
    training = settings.training
    assert (training.refiner_warmup, training.discriminator_warmup) == (500, 200)
    assert (training.refiner_updates, training.discriminator_updates) == (2, 1)
    assert (training.refiner_rate, training.discriminator_rate) == (2e-4, 2e-4)
    assert training.decay_after == 600_000
    assert training.refiner_rate * training.decay_factor == pytest.approx(5e-5)
    assert (settings.tone.photos, training.average) == (0, 0)


def test_an_empty_file_is_the_default_preset(write):
    settings = load_config(write(""))

    assert settings == load_preset("default")


def test_a_file_states_only_what_differs_from_its_preset(write):
    path = write('preset = "paper-hands"\n[training]\nsteps = 7\n[refiner]\nblocks = 2\n')

    settings = load_config(path)

    paper = load_preset("paper-hands")
    assert settings == dataclasses.replace(
        paper,
        training=dataclasses.replace(paper.training, steps=7),
        refiner=Part(name="resnet", options={"kernel": 7, "features": 64, "blocks": 2}),
    )


def test_options_of_another_part_are_not_inherited(write):
    path = write('preset = "paper-eyes"\n[refiner]\nname = "unshuffle"\nfactor = 4\n')

    settings = load_config(path)

    assert settings.refiner == Part(name="unshuffle", options={"factor": 4})


def test_label_weights_are_read_by_category_name(write):
    path = write('[regularization.labels]\nbackground = 0.1\n"palm tree" = 3\n')

    settings = load_config(path)

    assert settings.regularization.labels == {"background": 0.1, "palm tree": 3.0}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[trainin]\nsteps = 1", ["'trainin'", "did you mean 'training'"]),
        ("steps = 1", ["'steps'", "known: data, discriminator, loss, preset"]),
        ("[training]\nstep = 1", ["[training]", "'step'", "did you mean 'steps'"]),
        ("[data]\nxyzzy = 1", ["[data]", "'xyzzy'", "known: channels, crop"]),
        ('[training]\nsteps = "many"', ["[training]", "steps", "`int`", "`str`"]),
        ("[training]\nsteps = true", ["[training]", "steps", "`int`", "`bool`"]),
        ("[training]\nbetas = [0.5]", ["[training]", "betas", "length 2"]),
        ('[data]\ncrop = [16, "a"]', ["[data]", "crop", "`int`", "`str`"]),
        ("[data]\nflip = 1", ["[data]", "flip", "`bool`", "`int`"]),
        ('[regularization]\nlabels = {hand = "much"}', ["[regularization]", "labels", "`float`"]),
        ('refiner = "resnet"', ["refiner", "[refiner]", "'resnet'"]),
        ("[[data]]\nflip = true", ["data", "[data]"]),
        ("[refiner]\nname = 5", ["[refiner]", "name", "5"]),
        ("[loss]\noptions = 5", ["[loss]", "options", "5"]),
        ("preset = 5", ["preset", "5"]),
        ('preset = "papier-eyes"', ["preset", "'papier-eyes'", "did you mean 'paper-eyes'"]),
        ("[training]\nsteps = \n", ["not a TOML file", "line 2"]),
        ("[data]\nflip = true\nflip = true", ["not a TOML file"]),
        (b"[data]\n# \xff", ["not a TOML file", "utf-8"]),
        ("a = " + "[" * 100_000, ["not a TOML file"]),
    ],
    ids=lambda value: value[:24] if isinstance(value, (str, bytes)) else None,
)
def test_a_mistake_is_named_with_its_file_table_and_key(write, text, named):
    path = write(text)

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert [part for part in named if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("table", "line", "key"),
    [
        ("regularization", "weight = -0.1", "weight"),
        ("regularization", "weight = inf", "weight"),
        ("regularization", "weight = nan", "weight"),
        ("regularization", 'reduction = "sum"', "reduction"),
        ("regularization", "labels = {hand = -1}", "labels.hand"),
        ("regularization", "labels = {hand = nan}", "labels.hand"),
        ("regularization", "labels = {hand = 1e5}", "labels.hand"),
        ("tone", "photos = -1", "photos"),
        ("tone", "photos = 5000", "photos"),
        ("tone", "match = 'late'", "match"),
        ("tone", "share = [0.9, 0.5]", "share"),
        ("data", "channels = -1", "channels"),
        ("data", "crop = [7, 64]", "crop"),
        ("data", "scale = [1.0, 0.5]", "scale"),
        ("data", "scale = [0.0, 1.0]", "scale"),
        ("data", "scale = [nan, 1.0]", "scale"),
        ("data", "alike = 0", "alike"),
        ("data", "alike = 65", "alike"),
        ("data", "memory_mb = 0", "memory_mb"),
        ("data", "reuse = 0", "reuse"),
        ("training", "batch_size = 3", "batch_size"),
        ("training", "batch_size = 0", "batch_size"),
        ("training", "history = 7", "history"),
        ("training", "steps = -1", "steps"),
        ("training", "seed = -1", "seed"),
        ("training", f"seed = {2**64}", "seed"),
        ("training", "refiner_warmup = -1", "refiner_warmup"),
        ("training", "discriminator_warmup = -1", "discriminator_warmup"),
        ("training", "decay_after = -1", "decay_after"),
        ("training", "refiner_updates = 0", "refiner_updates"),
        ("training", "discriminator_updates = 0", "discriminator_updates"),
        ("training", "refiner_rate = 0.0", "refiner_rate"),
        ("training", "discriminator_rate = inf", "discriminator_rate"),
        ("training", "decay_factor = -1.0", "decay_factor"),
        ("training", "betas = [0.0, 1.0]", "betas[1]"),
        ("training", "average = 1.0", "average"),
        ("training", 'optimizer = "lion"', "optimizer"),
        ("training", 'precision = "fp8"', "precision"),
    ],
)
def test_an_impossible_value_is_named_with_its_key_and_itself(write, table, line, key):
    path = write(f"[{table}]\n{line}\n")

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert str(caught.value).startswith(f"{path}: [{table}]: {key} must ")
    assert "got " in str(caught.value)


@pytest.mark.parametrize("line", ["history = 0", "history = 8", "batch_size = 2", "steps = 0"])
def test_the_least_possible_values_are_possible(write, line):
    path = write(f"[training]\n{line}\n")

    settings = load_config(path)

    key, value = line.split(" = ")
    assert getattr(settings.training, key) == int(value)


@pytest.mark.parametrize("name", ["missing.toml", ".", "nul\0.toml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    path = tmp_path / name

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert str(path) in str(caught.value)


def test_a_match_before_the_network_of_four_channels_is_refused():
    tables = {"data": {"channels": 4}, "tone": {"match": "before"}}

    with pytest.raises(
        ConfigError, match=r"a\.toml: tone\.match = 'before' is for channels that all"
    ):
        parse(tables, source="a.toml")
    tables["tone"]["photos"] = 0

    assert parse(tables, source="a.toml").data.channels == 4


def test_a_sum_beside_a_mean_is_refused():
    with pytest.raises(ConfigError, match="both be 'paper_sum' or neither"):
        parse({"preset": "paper-eyes", "loss": {"name": "least_squares"}}, source="a.toml")


@pytest.mark.parametrize(
    ("tables", "student", "steps"),
    [
        ({"refiner": {"name": "resnet"}}, Part(name="resnet"), 0),
        (
            {"refiner": {"name": "resnet"}, "student": {"features": 8}},
            Part(name="resnet", options={"features": 8}),
            3000,
        ),
        (
            {"refiner": {"name": "resnet"}, "student": {"name": "unshuffle", "factor": 4}},
            Part(name="unshuffle", options={"factor": 4, "blocks": 1, "pixel_features": 8}),
            3000,
        ),
        ({"refiner": {"name": "resnet"}, "training": {"student_steps": 0}}, Part(name="resnet"), 0),
    ],
)
def test_the_student_of_another_kind_of_refiner_is_of_that_kind(tables, student, steps):
    config = parse({"preset": "default", **tables}, source="a.toml")

    assert config.student == student
    assert config.training.student_steps == steps


def test_a_student_that_nothing_is_said_of_would_be_its_teacher_again():
    tables = {"refiner": {"name": "resnet"}, "training": {"student_steps": 5}}

    with pytest.raises(ConfigError, match=r"a.toml: a student of a 'resnet'.*\[student\] does not"):
        parse(tables, source="a.toml")


@pytest.mark.parametrize(
    ("table", "student"),
    [
        ({"steps": 250}, 750),
        ({"steps": 250, "student_steps": 3000}, 3000),
        ({"batch_size": 8}, 3000),
        ({"steps": 0}, 1),
    ],
)
def test_the_steps_of_a_student_are_in_proportion_unless_they_are_given(table, student):
    assert parse({"training": table}, source="a.toml").training.student_steps == student
    wide = parse({"preset": "wide", "training": {"steps": 250}}, source="a.toml")
    assert wide.training.student_steps == 0


def test_one_number_in_place_of_two_is_an_error_that_shows_two():
    with pytest.raises(ConfigError, match=r"crop: Expected `array`.*by default it is \[64, 64\]"):
        parse({"data": {"crop": 32}}, source="t.toml")
