"""Further terms of regularization: by plugins, with weights of their own that train."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from test_run import SMALL, equal, inputs, weights  # noqa: F401
from test_training import (
    QUIET,
    Recorder,
    Scale,
    Shift,
    adjust,
    batches,
    doubled,
    networks,
    numbered,
    real_batches,
    real_numbered,
)
from torch import nn

from simgan_aug import hookimpl, plugins
from simgan_aug.config import Config, Part, Regularization, Term
from simgan_aug.configfile import parse
from simgan_aug.errors import ConfigError, DivergenceError, PluginError
from simgan_aug.losses import LeastSquares
from simgan_aug.parts import build_loss, build_terms, check_parts
from simgan_aug.rollback import LastGood
from simgan_aug.run import Run
from simgan_aug.terms import Terms
from simgan_aug.training import TrainingState, train


class Learned(nn.Module):
    """A term with a weight of its own: how far an affine map takes refined from synthetic pixels.

    With `dropped` it looks at some pixels alone, which it draws.
    """

    def __init__(self, channels: int = 3, dropped: float = 0.0):
        super().__init__()
        self.map = nn.Conv2d(channels, channels, 1)
        nn.init.dirac_(self.map.weight)
        self.register_buffer("calls", torch.zeros(()))
        self.dropped = dropped

    def forward(self, refiner, refined, synthetic, weights):
        self.calls += 1
        change = (self.map(refined) - synthetic).abs()
        return nn.functional.dropout(change, self.dropped).mean()


def loose(channels):
    """A term that is no module."""
    return lambda refiner, refined, synthetic, weights: (refined - synthetic).square().mean()


class Plugin:
    """Offers terms as an installed distribution would."""

    @staticmethod
    @hookimpl
    def simgan_register_regularizations():
        return {"learned": Learned, "loose": loose, "plain": lambda: loose(3)}


@pytest.fixture(autouse=True)
def offered(monkeypatch):
    """The terms above are among the installed parts."""
    registry = plugins.Registry([], {"mine": Plugin})
    shared = plugins.registry().parts["regularization"]
    for name, part in registry.parts["regularization"].items():
        monkeypatch.setitem(shared, name, dataclasses.replace(part, plugin="builtin"))


def with_terms(*terms, config=SMALL):
    held = dataclasses.replace(config.regularization, terms=terms)
    return dataclasses.replace(config, regularization=held)


LEARNED = with_terms(Term(name="learned", weight=0.5, options={"dropped": 0.5}), Term(name="loose"))


def learned(weight=0.5, **options):
    torch.manual_seed(1)
    return Terms({"learned": (weight, Learned(**options))})


def no_other(refined, synthetic, weights):
    return 0 * refined.mean()


def steps_with(terms, config, state=None, loss=None, double=False):
    players = networks("resnet", spectral=False)
    resumed = TrainingState(*players, config, terms=terms)
    if state is not None:
        resumed.load(state)
    sides = batches(resumed.synthetic_batches), real_batches(resumed.real_batches)
    sides = map(doubled, sides) if double else sides
    return train(*players, loss or LeastSquares(r1=1), no_other, *sides, config, resumed)


def test_a_term_descends_with_its_weight():
    refiner = Shift()
    nn.init.constant_(refiner.shift, 0.5)
    config = adjust(steps=0, refiner_warmup=1, optimizer="sgd", refiner_rate=0.1)
    terms = Terms({"near": (3.0, lambda refiner, refined, synthetic, w: refined.mean())})
    state = TrainingState(refiner, Scale(), config, terms=terms)

    list(train(refiner, Scale(), Recorder(), no_other, numbered(), real_numbered(), config, state))

    assert refiner.shift.item() == pytest.approx(0.5 - 0.1 * 3.0)


def test_weights_of_a_term_train_at_the_refiners_rate_in_the_refiners_step_alone():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Parameter(torch.tensor(0.0))

        def forward(self, refiner, refined, synthetic, weights):
            return self.own + 0 * refined.mean()

    rates = {"optimizer": "sgd", "refiner_rate": 0.1, "discriminator_rate": 7.0}
    config = adjust(steps=3, decay_after=2, decay_factor=0.5, discriminator_warmup=2, **rates)
    terms = Terms({"own": (2.0, Own())})
    players = Shift(), Scale()
    state = TrainingState(*players, config, terms=terms)

    list(train(*players, Recorder(), no_other, numbered(), real_numbered(), config, state))

    assert terms.terms["own"][1].own.item() == pytest.approx(-2.0 * (0.1 + 0.1 + 0.05))


def test_a_term_is_given_the_refiner_both_images_and_the_weights_of_pixels():
    seen = []
    terms = Terms({"seen": (1.0, lambda *given: seen.append(given) or given[1].mean())})
    players = Shift(), Scale()
    nn.init.constant_(players[0].shift, 0.25)
    state = TrainingState(*players, QUIET, terms=terms)
    weighed = batches(weights=torch.rand(4, 1, 12, 12))

    next(train(*players, Recorder(), no_other, weighed, real_batches(), QUIET, state))

    ((refiner, refined, synthetic, weights),) = seen
    assert refiner is players[0]
    assert torch.allclose(refined, synthetic + 0.25)
    assert weights.shape == (4, 1, 12, 12)


def test_losses_tell_each_term_and_the_total():
    terms = Terms(
        {
            "one": (0.5, lambda refiner, refined, *_: 0 * refined.mean() + 3),
            "two": (2.0, lambda refiner, refined, *_: 0 * refined.mean() + 1),
        }
    )

    step = next(steps_with(terms, QUIET))

    assert step.losses["regularization/one"] == pytest.approx(1.5)
    assert step.losses["regularization/two"] == pytest.approx(2.0)
    assert step.losses["regularization"] == pytest.approx(3.5)


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(optimizer, stop):
    config = adjust(steps=4, refiner_warmup=2, history=6, optimizer=optimizer, refiner_updates=2)
    for step in steps_with(learned(dropped=0.5), config):
        if step.number == stop:
            saved = {name: value.clone() for name, value in step.state.tensors().items()}
    torch.manual_seed(99)  # the global state plays no part

    (*_, last) = steps_with(learned(dropped=0.5), config, saved)

    assert last.losses == step.losses
    assert equal(last.state.tensors(), step.state.tensors())
    assert not torch.equal(saved["terms.trained.0.map.weight"], learned().trained[0].map.weight)


def test_draws_of_a_term_differ_from_update_to_update_and_leave_the_global_state():
    drawn = []
    terms = Terms({"draws": (1.0, lambda r, refined, *_: drawn.append(torch.rand(3)) or r.shift)})
    players = Shift(), Scale()
    config = adjust(steps=3, refiner_updates=2, accumulate=2)
    state = TrainingState(*players, config, terms=terms)
    before = torch.get_rng_state()

    list(train(*players, Recorder(), no_other, numbered(), real_numbered(), config, state))

    assert len({tuple(each.tolist()) for each in drawn}) == 3 * 2 * 2
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shares", [2, 4])
def test_shares_one_after_the_other_do_what_the_batch_does_at_once(shares):
    config, done = adjust(batch_size=8, optimizer="sgd", refiner_warmup=1), []
    for accumulate in (1, shares):
        cut = dataclasses.replace(config, accumulate=accumulate)
        (*_, last) = steps_with(learned(weight=2.0), cut, double=True)
        done.append(last)

    assert done[0].losses == pytest.approx(done[1].losses, rel=1e-4)
    for name, value in done[0].state.tensors().items():
        assert torch.allclose(value, done[1].state.tensors()[name], atol=1e-5), name
    assert done[0].state.terms.trained[0].calls == 5  # once an update, whatever the shares


def test_a_term_that_would_see_the_shares_is_refused():
    terms = Terms({"normed": (1.0, nn.BatchNorm2d(3))})
    TrainingState(Shift(), Scale(), QUIET, terms=terms)

    with pytest.raises(ConfigError, match="BatchNorm2d"):
        TrainingState(Shift(), Scale(), adjust(accumulate=2), terms=terms)


def test_a_term_stays_in_the_mode_that_its_author_chose():
    still, learning = Learned().eval(), Learned()
    terms = Terms({"still": (1.0, still), "learning": (1.0, learning)})

    next(steps_with(terms, QUIET))

    assert (still.training, learning.training) == (False, True)


def test_a_term_that_is_not_finite_ends_training_by_name():
    terms = Terms({"wild": (1.0, lambda refiner, refined, *_: refined.mean() * float("nan"))})

    with pytest.raises(DivergenceError, match="the regularization/wild loss is nan in step 1"):
        next(steps_with(terms, QUIET))


def test_going_back_takes_a_terms_weights_back_and_a_broken_one_is_noticed():
    terms = learned()
    state = TrainingState(Shift(), Scale(), QUIET, terms=terms)
    good = LastGood(state, QUIET)
    held = terms.trained[0].map.weight.detach().clone()
    with torch.no_grad():
        terms.trained[0].map.weight.fill_(float("nan"))

    with pytest.raises(DivergenceError, match="not finite"):
        good.hold()
    good.go_back(DivergenceError("it"))

    assert torch.equal(terms.trained[0].map.weight, held)


@pytest.mark.parametrize(
    ("value", "said"),
    [(lambda images: images.mean((1, 2, 3)), r"shape \(4,\)"), (lambda images: 1.0, "float")],
    ids=["one for each image", "a number"],
)
def test_a_term_that_is_no_scalar_is_named(value, said):
    terms = Terms({"odd": (1.0, lambda refiner, refined, *_: value(refined))})

    with pytest.raises(PluginError, match=f"regularization 'odd': expected a scalar .*{said}"):
        next(steps_with(terms, QUIET))


def test_a_run_with_terms_that_is_interrupted_and_resumed_equals_an_uninterrupted_one(
    inputs,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr("simgan_aug.observers.LOG_EVERY", 1)
    list(Run(LEARNED, inputs, tmp_path / "whole").steps())
    running = Run(LEARNED, inputs, tmp_path / "parts").steps()
    for _ in range(3):
        next(running)
    running.close()

    list(Run(LEARNED, inputs, tmp_path / "parts", resume=True).steps())

    whole, parts = (load_file(tmp_path / out / "state.safetensors") for out in ("whole", "parts"))
    assert equal(whole, parts)
    assert whole["terms.trained.0.calls"] == 6
    assert not any("map" in name for name in weights(tmp_path / "whole"))  # the refiner file
    line = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"regularization", "regularization/learned", "regularization/loose"} <= set(line)


def test_a_term_leaves_the_start_of_the_networks_as_it_was(inputs, tmp_path):  # noqa: F811
    plain, termed = (Run(config, inputs, tmp_path / "out").state for config in (SMALL, LEARNED))

    assert equal(plain.refiner.state_dict(), termed.refiner.state_dict())
    assert equal(plain.discriminator.state_dict(), termed.discriminator.state_dict())


TOML = {
    "regularization": {
        "weight": 0.2,
        "terms": [{"name": "learned", "weight": 0.5, "dropped": 0.5}, {"name": "loose"}],
    }
}


def test_options_of_a_term_stand_beside_its_name_and_come_back_from_json():
    config = parse(TOML, "file")

    assert config.regularization.terms == LEARNED.regularization.terms
    assert parse(json.loads(json.dumps(config.to_builtins())), "header") == config


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ({"name": "lerned"}, r"no regularization named 'lerned' .*did you mean 'learned'"),
        ({"name": "learned", "droped": 1}, r"no option 'droped' .*did you mean 'dropped'"),
        ({"name": "learned", "dropped": "x"}, "dropped: Expected `float`, got `str`"),
        ({"name": "learned", "channels": 1}, "'learned': channels is no option"),
        ({"name": "plain", "refiner": 1}, "'plain': refiner is no option"),
    ],
    ids=str,
)
def test_a_wrong_term_is_found_before_any_data_is_read(term, said):
    config = parse({"regularization": {"terms": [term]}}, "my.toml")

    with pytest.raises(ConfigError, match=rf"my\.toml: \[regularization\]: .*{said}"):
        check_parts(config, "my.toml")


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([{"name": "learned", "weight": -1}], "weight must be 0 or more, got -1"),
        ([{"name": "learned", "weight": float("nan")}], "weight must be 0 or more, got nan"),
        ([{"weight": 1}], "missing required field `name`"),
        ([{"name": "learned", "options": 5}], "options"),
        (["learned"], "terms"),
        ({"name": "learned"}, "terms"),
        ([{"name": "loose"}, {"name": "loose"}], "'loose' is given more than once"),
    ],
    ids=str,
)
def test_an_impossible_table_of_terms_is_named(terms, said):
    with pytest.raises(ConfigError, match=rf"my\.toml: \[regularization\]: .*{said}"):
        parse({"regularization": {"terms": terms}}, "my.toml")


def test_a_loss_with_weights_is_refused_as_nobody_would_train_them(monkeypatch):
    class Weighty(nn.Module):
        def __init__(self, frozen=False):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1), requires_grad=not frozen)

    part = plugins.RegisteredPart(Weighty, "builtin")
    monkeypatch.setitem(plugins.registry().parts["loss"], "weighty", part)

    with pytest.raises(PluginError, match="the loss 'weighty' has weights"):
        build_loss(Part(name="weighty"))
    assert isinstance(build_loss(Part(name="weighty", options={"frozen": True})), Weighty)


def test_terms_and_the_papers_sums_do_not_go_together():
    with pytest.raises(ConfigError, match=r"terms are means .*set reduction = 'mean'"):
        Regularization(reduction="paper_sum", terms=(Term(name="loose"),))


def test_a_factory_is_given_what_its_signature_names():
    given = {}

    def nosy(channels, refiner, strength: float = 1.0):
        given.update(channels=channels, refiner=refiner, strength=strength)
        return loose(channels)

    plugins.registry().parts["regularization"]["nosy"] = plugins.RegisteredPart(nosy, "builtin")
    config = with_terms(Term(name="nosy", options={"strength": 2.0}), Term(name="plain"))
    refiner = Shift()
    try:
        terms = build_terms(config, refiner, 1)
    finally:
        del plugins.registry().parts["regularization"]["nosy"]

    assert given == {"channels": 1, "refiner": refiner, "strength": 2.0}
    assert list(terms.terms) == ["nosy", "plain"]
    assert not list(terms.parameters())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda refiner: nn.Sequential(refiner), "holds weights of the refiner"),
        (lambda: nn.LazyLinear(3), "has weights without a shape"),
    ],
    ids=["the refiner", "no shape"],
)
def test_weights_that_cannot_be_a_terms_own_are_refused(monkeypatch, make, said):
    shared = plugins.registry().parts["regularization"]
    monkeypatch.setitem(shared, "odd", plugins.RegisteredPart(make, "builtin"))

    with pytest.raises(ConfigError, match=f"regularization 'odd': {said}"):
        check_parts(with_terms(Term(name="odd"), config=Config(refiner=Part(name="resnet"))), "it")
