import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simgan_aug.config import Training
from simgan_aug.errors import ConfigError, DivergenceError, PluginError
from simgan_aug.losses import CrossEntropy, LeastSquares, Relativistic, self_regularization
from simgan_aug.networks import Patch, ResNetRefiner, UnshuffleRefiner
from simgan_aug.ranks import Ranks
from simgan_aug.training import Batch, TrainingState, train

QUIET = Training(
    steps=4, batch_size=4, history=0, precision="fp32", refiner_rate=0.01, discriminator_rate=0.01
)


def adjust(**changes):
    return dataclasses.replace(QUIET, **changes)


class Shift(nn.Module):
    """A refiner of one weight, which it adds to every pixel."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, images):
        return images + self.shift


class Scale(nn.Module):
    """A discriminator of one weight, whose logit is the weighted pixel."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        return images * self.scale


class Recorder:
    """A loss that writes down what it is asked for, and with what."""

    def __init__(self, pairs_real=False):
        self.pairs_real = pairs_real
        self.calls, self.refined, self.real = [], [], []

    def refiner(self, critic, refined, real):
        return self._record("refiner", critic(refined), refined, real)

    def discriminator(self, critic, refined, real):
        return self._record("discriminator", critic(refined) - critic(real), refined, real)

    def regularization(self, refined, synthetic, weights):
        self.calls.append("regularization")
        return (refined - synthetic).abs().mean()

    def _record(self, call, scores, refined, real):
        self.calls.append(call)
        self.refined.append((call, refined.detach().clone()))
        self.real.append((call, real.clone()))
        return scores.mean()


def numbered(start=1, unit=1e-3):
    """Synthetic batches of one pixel; the n-th has the value n."""
    for number in itertools.count(start):
        yield Batch(images=torch.full((4, 1, 1, 1), number * unit))


def real_numbered(start=1):
    """Real batches, told from synthetic ones by their sign."""
    return (Batch(images=-batch.images) for batch in numbered(start))


def noise(channels=3, start=0, side=12):
    for number in itertools.count(start):
        generator = torch.Generator().manual_seed(number)
        yield torch.rand(4, channels, side, side, generator=generator) * 2 - 1


def batches(start=0, **more):
    return (Batch(images=images, **more) for images in noise(start=start))


def real_batches(start=0, **more):
    return batches(10**6 + start, **more)


def weighed(refined, synthetic, weights):
    return 0.1 * self_regularization(refined, synthetic, weights=weights)


def run(config, loss=None, refiner=None, discriminator=None, synthetic=None, real=None):
    loss = loss or Recorder()
    steps = train(
        refiner or Shift(),
        discriminator or Scale(),
        loss,
        loss.regularization,
        synthetic or numbered(),
        real or real_numbered(),
        config,
    )
    return list(steps)


def networks(refiner="unshuffle", **options):
    torch.manual_seed(0)
    made = UnshuffleRefiner(3, 2, 8, 1) if refiner == "unshuffle" else ResNetRefiner(3, 3, 8, 1)
    return made, Patch(3, 8, **options)


def steps_of(players, config, loss=None, state=None):
    start = (state.synthetic_batches, state.real_batches) if state else (0, 0)
    loss = loss or LeastSquares(r1=1)
    return train(*players, loss, weighed, batches(start[0]), real_batches(start[1]), config, state)


def snapshot(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@settings(deadline=None, max_examples=40)
@given(
    refiner_updates=st.integers(1, 3),
    discriminator_updates=st.integers(1, 3),
    refiner_warmup=st.integers(0, 3),
    discriminator_warmup=st.integers(0, 3),
    steps=st.integers(0, 3),
)
def test_updates_come_in_the_order_of_algorithm_1(
    refiner_updates, discriminator_updates, refiner_warmup, discriminator_warmup, steps
):
    loss = Recorder()
    config = adjust(
        steps=steps,
        refiner_updates=refiner_updates,
        discriminator_updates=discriminator_updates,
        refiner_warmup=refiner_warmup,
        discriminator_warmup=discriminator_warmup,
    )

    done = run(config, loss)

    k_g, k_d = ["refiner", "regularization"], ["discriminator"]
    algorithm_1 = (k_g * refiner_updates + k_d * discriminator_updates) * steps
    warmups = ["regularization"] * refiner_warmup + ["discriminator"] * discriminator_warmup
    assert loss.calls == warmups + algorithm_1
    assert [step.number for step in done] == list(
        range(1, refiner_warmup + discriminator_warmup + steps + 1)
    )
    assert [step.phase for step in done] == (
        ["refiner warm-up"] * refiner_warmup
        + ["discriminator warm-up"] * discriminator_warmup
        + ["adversarial"] * steps
    )


def test_every_update_samples_a_fresh_batch():
    loss = Recorder()

    (*_, last) = run(adjust(refiner_updates=2, discriminator_updates=3, steps=2), loss)

    seen = [round(images[0].item(), 3) for call, images in loss.real if call == "discriminator"]
    assert seen == [-0.001 * n for n in range(1, 7)]  # K_d a step
    assert last.state.synthetic_batches == 2 * (2 + 3)
    assert last.state.real_batches == 2 * 3


def test_a_step_tells_the_losses_it_computed():
    config = adjust(steps=1, refiner_warmup=1, discriminator_warmup=1)

    losses = [set(step.losses) for step in run(config)]

    assert losses == [
        {"regularization"},
        {"discriminator"},
        {"adversarial", "regularization", "discriminator"},
    ]


def test_the_refiners_warmup_descends_on_regularization_alone():
    class Watched(Recorder):
        def refiner(self, critic, refined, real):
            raise AssertionError("the adversarial term was asked for")

    loss, refiner, discriminator = Watched(), Shift(), Scale()
    nn.init.constant_(refiner.shift, 0.5)
    config = adjust(steps=0, refiner_warmup=5, optimizer="sgd", refiner_rate=0.1)

    run(config, loss, refiner, discriminator)

    # The gradient of |shift| is 1: five steps of 0.1 each take it to zero.
    assert refiner.shift.item() == pytest.approx(0, abs=1e-6)
    assert discriminator.scale.item() == 1


def test_the_refiner_descends_on_both_terms_of_eq_4():
    refiner = Shift()
    nn.init.constant_(refiner.shift, 0.5)
    config = adjust(steps=1, optimizer="sgd", refiner_rate=0.1)

    run(config, Recorder(), refiner)

    # The logit is 1 * (image + shift), the change is |shift|: a gradient of 1 each.
    assert refiner.shift.item() == pytest.approx(0.5 - 0.1 * (1 + 1))


def test_each_update_changes_its_own_player_alone():
    refiner, discriminator, seen = Shift(), Scale(), []

    def watched():
        for batch in numbered():  # an update begins with a batch
            grads = [p.grad if p.grad is None else p.grad.clone() for p in (refiner.shift, scale)]
            seen.append((refiner.shift.item(), scale.item(), *grads))
            yield batch

    scale = discriminator.scale
    run(adjust(steps=2), Recorder(), refiner, discriminator, watched())

    first, second, third, fourth = seen  # before R, D, R, D
    for before, after in ((first, second), (third, fourth)):
        assert before[0] != after[0]
        assert before[1] == after[1]
        assert before[3] is after[3] or torch.equal(before[3], after[3])
    assert second[0] == third[0]
    assert second[1] != third[1]
    assert torch.equal(second[2], third[2])


def test_the_discriminator_is_frozen_in_the_refiners_step_and_free_in_its_own():
    discriminator, seen = Scale(), []

    class Watched(Recorder):
        def refiner(self, critic, refined, real):
            seen.append(("refiner", discriminator.scale.requires_grad, refined.requires_grad))
            return super().refiner(critic, refined, real)

        def discriminator(self, critic, refined, real):
            seen.append(("discriminator", discriminator.scale.requires_grad, refined.requires_grad))
            return super().discriminator(critic, refined, real)

    run(adjust(steps=2), Watched(), discriminator=discriminator)

    assert seen == [("refiner", False, True), ("discriminator", True, False)] * 2


def test_a_weight_that_its_author_froze_stays_frozen():
    discriminator = Scale()
    discriminator.fixed = nn.Parameter(torch.tensor(3.0), requires_grad=False)

    run(adjust(steps=2), discriminator=discriminator)

    assert not discriminator.fixed.requires_grad
    assert discriminator.scale.requires_grad


@pytest.mark.parametrize("accumulate", [1, 2])
def test_of_several_photos_for_an_image_both_players_meet_the_most_alike(accumulate):
    config = adjust(steps=2, accumulate=accumulate)
    loss = Recorder(pairs_real=True)
    synthetic = [torch.rand(4, 1, 16, 16) * 2 - 1 for _ in range(4)]
    # The third of three candidates is laid out as the image is, in another light.
    real = [
        torch.stack([torch.rand_like(made), torch.rand_like(made), 0.1 - 0.6 * made], dim=1)
        for made in synthetic
    ]

    run(
        config,
        loss,
        Shift(),
        Scale(),
        (Batch(images=made) for made in synthetic),
        (Batch(images=each.flatten(0, 1)) for each in real),
    )

    shown = torch.cat([images for _, images in loss.real])
    assert torch.allclose(shown, torch.cat([each[:, 2] for each in real]))


def test_the_discriminator_sees_what_the_current_refiner_makes():
    refiner, loss = Shift(), Recorder()

    steps = train(
        refiner, Scale(), loss, loss.regularization, numbered(), real_numbered(), adjust(steps=3)
    )

    for number, _ in enumerate(steps, start=1):
        call, refined = loss.refined[-1]
        assert call == "discriminator"
        current = 2 * number * 1e-3 + refiner.shift.item()  # two synthetic batches a step
        assert torch.allclose(refined, torch.full_like(refined, current))


def test_half_of_the_discriminators_refined_batch_is_history():
    loss = Recorder()
    config = adjust(steps=0, discriminator_warmup=12, history=8)

    run(config, loss)

    for number, (_, refined) in enumerate(loss.refined, start=1):
        made_in = [round(value / 1e-3) for value in refined.flatten().tolist()]
        if number == 1:
            assert made_in == [1] * 4  # nothing is held yet
        else:
            assert made_in.count(number) == 2
            assert sum(earlier < number for earlier in made_in) == 2
    assert len({n for _, refined in loss.refined for n in refined.flatten().tolist()}) > 6


def test_without_history_the_refined_batch_is_all_current():
    loss = Recorder()

    run(adjust(steps=0, discriminator_warmup=5, history=0), loss)

    for number, (_, refined) in enumerate(loss.refined, start=1):
        assert torch.allclose(refined, torch.full_like(refined, number * 1e-3))


def test_a_loss_that_pairs_gets_fresh_real_images_in_the_refiners_term():
    loss = Recorder(pairs_real=True)

    (*_, last) = run(adjust(steps=3), loss)

    assert [round(images[0].item() * 1000) for _, images in loss.real] == [-1, -2, -3, -4, -5, -6]
    assert last.state.real_batches == 6


def test_a_loss_that_does_not_pair_costs_no_real_images_in_the_refiners_term():
    (*_, last) = run(adjust(steps=3))

    assert last.state.real_batches == 3


def test_weights_reach_the_regularization_and_the_reference_the_refiner():
    seen = {}

    class Seen(Shift):
        takes_reference = True

        def forward(self, images, reference):
            seen["reference"] = reference
            return super().forward(images)

    class Watched(Recorder):
        def regularization(self, refined, synthetic, weights):
            seen["weights"] = weights
            return super().regularization(refined, synthetic, weights)

    weights, reference = torch.rand(4, 1, 12, 12), torch.rand(4, 3, 64)
    synthetic = batches(weights=weights, reference=reference)

    run(adjust(steps=1), Watched(), Seen(), Scale(), synthetic, real_batches())

    assert torch.equal(seen["weights"], weights)
    assert torch.equal(seen["reference"], reference)


class TonedScale(Scale):
    """A discriminator that takes a tone; it scores the first channel."""

    takes_reference = True

    def forward(self, images):
        return super().forward(images[:, :1])


def toned(number):
    """A tone that tells the number of its batch."""
    return torch.full((4, 1, 16), float(number))


def test_a_critic_that_takes_a_reference_sees_each_image_beside_its_tone():
    loss = Recorder(pairs_real=True)
    synthetic = (dataclasses.replace(b, reference=toned(n)) for n, b in enumerate(numbered(), 1))
    real = (dataclasses.replace(b, reference=toned(-n)) for n, b in enumerate(real_numbered(), 1))
    config = adjust(steps=6, history=4)

    run(config, loss, discriminator=TonedScale(), synthetic=synthetic, real=real)

    for _, shown in loss.real:  # image -n/1000 with tone -n
        assert shown.shape[1] == 1 + 8
        assert torch.allclose(shown[:, 1:], shown[:, :1] * 1000)
    for call, shown in loss.refined:
        made_in = shown[:, 1:].amax((1, 2, 3))
        assert torch.equal(made_in, shown[:, 1:].amin((1, 2, 3)))  # one tone an image
        if call == "refiner":
            assert len(made_in.unique()) == 1
    _, last = loss.refined[-1]
    assert len(last[:, 1].unique()) > 1  # the history's images keep the tones of their time


def test_a_tone_stays_with_its_image_in_the_history():
    loss = Recorder()
    synthetic = (dataclasses.replace(b, reference=toned(n)) for n, b in enumerate(numbered(), 1))
    real = (dataclasses.replace(b, reference=toned(-n)) for n, b in enumerate(real_numbered(), 1))
    config = adjust(steps=0, discriminator_warmup=8, history=4)

    run(config, loss, discriminator=TonedScale(), synthetic=synthetic, real=real)

    for _, shown in loss.refined:  # the refiner does not learn here: image n/1000 with tone n
        assert torch.allclose(shown[:, 1:], shown[:, :1] * 1000)


def test_a_refiner_that_takes_a_reference_says_so_where_none_comes():
    players = (UnshuffleRefiner(3, 2, 8, 1, takes_reference=True), Patch(3, 8))

    with pytest.raises(ConfigError, match=r"tone\.photos"):
        next(steps_of(players, QUIET))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("culprit", ["refiner", "discriminator", "regularization"])
def test_a_loss_that_is_not_finite_ends_training_and_leaves_the_weights(culprit, value):
    players = refiner, discriminator = networks()
    before = {}

    class Bad(LeastSquares):
        def refiner(self, critic, refined, real):
            return self._end("refiner", super().refiner(critic, refined, real))

        def discriminator(self, critic, refined, real):
            return self._end("discriminator", super().discriminator(critic, refined, real))

        def regularization(self, refined, synthetic, weights):
            return self._end("regularization", weighed(refined, synthetic, weights))

        def _end(self, call, loss):
            self.count = getattr(self, "count", 0) + (call == culprit)
            if call != culprit or self.count < 3:
                return loss
            before.update(refiner=snapshot(refiner), discriminator=snapshot(discriminator))
            return loss * value

    loss, done = Bad(), []
    steps = train(*players, loss, loss.regularization, batches(), real_batches(), QUIET)

    with pytest.raises(DivergenceError, match=r"in step 3; lower training\.refiner_rate"):
        done.extend(iter(steps.__next__, None))

    assert equal(snapshot(refiner), before["refiner"])
    assert equal(snapshot(discriminator), before["discriminator"])
    assert all(p.requires_grad for player in players for p in player.parameters())


def test_a_gradient_that_is_not_finite_ends_training_though_the_loss_is():
    class Steep(Recorder):
        def refiner(self, critic, refined, real):
            return critic(refined).sub(critic(refined).detach()).mul(0).sqrt().mean()  # 0 / 0

    refiner = Shift()

    with pytest.raises(DivergenceError, match="the gradient of the refiner is nan in step 1"):
        run(QUIET, Steep(), refiner)

    assert refiner.shift.item() == 0


@pytest.mark.parametrize(
    ("loss", "term"),
    [
        (Relativistic(), weighed),
        (LeastSquares(r1=1, r2=1), weighed),
        (CrossEntropy(), weighed),
        (
            CrossEntropy("paper_sum"),
            lambda *of: self_regularization(*of[:2], reduction="paper_sum"),
        ),
    ],
    ids=["relativistic", "least squares", "cross entropy", "sums"],
)
@pytest.mark.parametrize("shares", [2, 4])
def test_shares_one_after_the_other_do_what_the_batch_does_at_once(loss, term, shares):
    config, done = adjust(batch_size=8, optimizer="sgd", refiner_warmup=1), []
    for accumulate in (1, shares):
        sides = (doubled(batches(start)) for start in (0, 10**6))
        cut = dataclasses.replace(config, accumulate=accumulate)
        (*_, last) = train(*networks("resnet", spectral=False), loss, term, *sides, cut)
        done.append(last)

    assert done[0].losses == pytest.approx(done[1].losses, rel=1e-4)
    for name, value in done[0].state.tensors().items():
        assert torch.allclose(value, done[1].state.tensors()[name], atol=1e-5), name


def doubled(batches):
    """Batches of twice as many images."""
    for batch in batches:
        yield Batch(images=torch.cat([batch.images, batch.images.flip(2, 3)]))


def test_every_share_has_a_history_of_its_own_and_its_own_rows():
    loss = Recorder()
    rows = torch.arange(8.0).view(8, 1, 1, 1)
    synthetic = (Batch(images=rows + 100 * number) for number in itertools.count(1))
    real = (Batch(images=-rows - 100 * number) for number in itertools.count(1))
    config = adjust(batch_size=8, accumulate=2, history=8, steps=0, discriminator_warmup=12)

    (*_, last) = run(config, loss, synthetic=synthetic, real=real)

    for call, (_, refined) in enumerate(loss.refined):
        update, share = 1 + call // 2, call % 2
        made_in, row = refined.flatten() // 100, refined.flatten() % 100
        assert set((row // 4).tolist()) == {share}
        assert made_in.tolist().count(update) == (4 if update == 1 else 2)
        assert torch.equal(loss.real[call][1], -rows[4 * share :][:4] - 100 * update)
    assert [history.images.shape for history in last.state.histories] == [(4, 1, 1, 1)] * 2
    drawn = [
        [refined.flatten()[2:].tolist() for _, refined in loss.refined[share::2]]
        for share in (0, 1)
    ]
    assert drawn[0] != [[value - 4 for value in values] for values in drawn[1]]


class Deaf(Ranks):
    """Ranks that add nothing up, so that one can be looked at alone."""

    def add(self, tensors):
        pass


def test_a_rank_gets_its_rows_of_the_batch_and_of_the_noise_for_all_of_it():
    seen = {}

    class Noisy(Shift):
        noise_channels = 1

        def forward(self, images, noise):
            seen.setdefault(ranks, []).append(torch.cat([images, noise], dim=1))
            return super().forward(images) + 0 * noise.mean()

    alone, first, second = Ranks(), Deaf(number=0, world=2), Deaf(number=1, world=2)
    for ranks in (alone, first, second):
        players = Noisy(), Scale()
        state = TrainingState(*players, QUIET, ranks)
        list(train(*players, Relativistic(), weighed, batches(), real_batches(), QUIET, state))

    for whole, *parts in zip(seen[alone], seen[first], seen[second], strict=True):
        assert torch.equal(whole, torch.cat(parts))


def test_a_layer_that_changes_when_it_is_called_does_so_once_an_update_whatever_the_shares():
    class Counting(Scale):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, images):
            self.calls += 1
            return super().forward(images)

    counted = []
    for accumulate in (1, 2):
        discriminator = Counting()
        run(adjust(steps=3, accumulate=accumulate), discriminator=discriminator)
        counted.append(discriminator.calls.item())

    assert counted == [9, 9]  # one of the refiner's term, two of its own


@pytest.mark.parametrize("world", [3, 4])
def test_a_batch_that_ranks_cannot_share_evenly_says_what_size_they_can(world):
    config, ranks = adjust(batch_size=8 * world - 4), Ranks(number=1, world=world)

    with pytest.raises(ConfigError, match=f"a multiple of {2 * world}"):
        TrainingState(Shift(), Scale(), config, ranks)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.SyncBatchNorm(3)])
def test_a_network_that_would_see_the_shares_is_refused(layer):
    network = Shift()
    network.layers = nn.Sequential(nn.ReLU(), layer)
    TrainingState(network, Scale(), QUIET)  # one share is the batch

    for players in ((network, Scale()), (Scale(), network)):
        with pytest.raises(ConfigError, match=r"BatchNorm.*those of 2 images"):
            TrainingState(*players, adjust(accumulate=2))


def test_histories_of_other_shares_are_refused():
    (*_, last) = steps_of(networks(), adjust(history=6))

    with pytest.raises(ValueError, match="1 histories, where there are 2 shares"):
        TrainingState(*networks(), adjust(history=6, accumulate=2)).load(last.state.tensors())


@pytest.mark.parametrize("loss", [CrossEntropy(), LeastSquares(r1=1), Relativistic()])
@pytest.mark.parametrize("refiner", ["unshuffle", "resnet"])
def test_a_run_moves_both_players_and_stays_finite(refiner, loss):
    players = networks(refiner)
    before = [snapshot(player) for player in players]

    (*_, last) = steps_of(players, adjust(history=6), loss)

    assert all(math.isfinite(value) for value in last.losses.values())
    for player, old in zip(players, before, strict=True):
        assert not equal(snapshot(player), old)
        assert all(value.isfinite().all() for value in snapshot(player).values())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_same_seed_gives_the_same_run_bit_for_bit(optimizer):
    config = adjust(history=6, optimizer=optimizer, seed=7)

    runs = [list(steps_of(networks(), config)) for _ in range(2)]

    assert [step.losses for step in runs[0]] == [step.losses for step in runs[1]]
    first, second = (steps[-1].state.tensors() for steps in runs)
    assert equal(first, second)


def test_another_seed_gives_another_run():
    first, second = (
        list(steps_of(networks(), adjust(seed=seed)))[-1].state.tensors() for seed in (1, 2)
    )

    assert not equal(first, second)


def test_a_run_does_not_depend_on_the_global_random_state():
    results = []
    for seed in (1, 2):
        players = networks()
        torch.manual_seed(seed)
        results.append(list(steps_of(players, adjust(history=6)))[-1].state.tensors())

    assert equal(*results)


@pytest.mark.parametrize("stop", [1, 2, 4, 6])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(optimizer, stop):
    config = adjust(
        steps=5, refiner_warmup=2, discriminator_warmup=1, history=6, optimizer=optimizer
    )
    for step in steps_of(networks(spectral=True), config, Relativistic()):
        if step.number == stop:  # as a file gives them back: copies, contiguous
            saved = {
                name: value.clone(memory_format=torch.contiguous_format)
                for name, value in step.state.tensors().items()
            }
    players = networks(spectral=True)
    state = TrainingState(*players, config)
    state.load(saved)

    (*_, last) = steps_of(players, config, Relativistic(), state)

    assert last.number == step.number == 8
    assert last.losses == step.losses
    assert equal(last.state.tensors(), step.state.tensors())


def test_what_is_saved_is_loaded():
    config = adjust(history=6)
    (*_, last) = steps_of(networks(), config)
    state = TrainingState(*networks(), config)

    state.load(last.state.tensors())

    assert equal(state.tensors(), last.state.tensors())
    assert (state.step, state.synthetic_batches, state.real_batches) == (4, 8, 4)
    assert state.histories[0].size == 6


def test_a_loaded_state_shares_no_memory_with_what_it_was_loaded_from():
    config = adjust(history=6)
    (*_, last) = steps_of(networks(), config)
    saved = last.state.tensors()
    before = {name: value.clone() for name, value in saved.items()}
    players = networks()
    state = TrainingState(*players, config)
    state.load(saved)

    list(steps_of(players, adjust(steps=8, history=6), state=state))

    assert equal(saved, before)


def test_a_state_of_other_networks_is_refused():
    (*_, last) = steps_of(networks("resnet"), QUIET)

    with pytest.raises(RuntimeError, match="Missing key"):
        TrainingState(*networks("unshuffle"), QUIET).load(last.state.tensors())


def test_a_stopped_loop_goes_on_in_the_same_process():
    whole = list(steps_of(networks(), adjust(history=6)))[-1].state.tensors()
    players = networks()
    first = next(steps_of(players, adjust(history=6)))

    (*_, last) = steps_of(players, adjust(history=6), state=first.state)

    assert equal(last.state.tensors(), whole)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_what_is_kept_is_the_moving_average_of_the_weights(decay):
    config = adjust(average=decay, refiner_warmup=3, discriminator_warmup=2)
    refiner, discriminator = networks("resnet")  # no identity at the start: its warm-up moves

    average = None
    for step in steps_of((refiner, discriminator), config):
        if step.phase != "discriminator warm-up":
            now = {name: value.double() for name, value in snapshot(refiner).items()}
            average = now if average is None else average
            average = {k: decay * average[k] + (1 - decay) * now[k] for k in now}

        kept = step.state.averaged.state_dict()
        for name, value in average.items():
            assert torch.allclose(kept[name].double(), value, atol=1e-6)


def test_the_average_is_a_network_of_its_own():
    (*_, last) = steps_of(networks(), QUIET)

    assert type(last.state.averaged) is UnshuffleRefiner
    assert not equal(last.state.averaged.state_dict(), last.state.refiner.state_dict())


def test_learning_rates_decay_after_the_given_step():
    config = adjust(
        steps=4,
        refiner_warmup=1,
        discriminator_warmup=1,
        decay_after=2,
        decay_factor=0.1,
        refiner_rate=0.2,
        discriminator_rate=0.4,
    )

    rates = []
    loss = Recorder()
    for step in train(
        Shift(), Scale(), loss, loss.regularization, numbered(), real_numbered(), config
    ):
        optimizers = step.state.optimizers
        rates.append(tuple(optimizers[p].param_groups[0]["lr"] for p in optimizers))

    full, decayed = (0.2, 0.4), pytest.approx((0.02, 0.04))
    assert rates[:4] == [full] * 4  # both warm-ups and two steps
    assert rates[4:] == [decayed] * 2


def test_decay_shortens_the_way_of_the_weights():
    config = adjust(steps=4, decay_after=2, decay_factor=0.1, optimizer="sgd", refiner_rate=0.1)

    class Constant(Recorder):
        def refiner(self, critic, refined, real):
            return refined.mean()  # a gradient of 1

        def regularization(self, refined, synthetic, weights):
            return 0 * refined.mean()

    refiner = Shift()
    run(config, Constant(), refiner)

    assert refiner.shift.item() == pytest.approx(-0.1 - 0.1 - 0.01 - 0.01)


@pytest.mark.parametrize(("momentum", "coasts"), [(0.0, False), (0.9, True)])
def test_adam_takes_the_configured_decay_rates(momentum, coasts):
    class Once(Recorder):
        def refiner(self, critic, refined, real):
            self.count = getattr(self, "count", 0) + 1
            return refined.mean() * (self.count == 1)  # a gradient in the first step alone

        def regularization(self, refined, synthetic, weights):
            return 0 * refined.mean()

    short, long = Shift(), Shift()
    for refiner, steps in ((short, 1), (long, 3)):
        run(adjust(steps=steps, betas=(momentum, 0.99)), Once(), refiner)

    assert short.shift.item() == pytest.approx(-0.01, rel=1e-4)  # Adam's first step is the rate
    assert (long.shift.item() < short.shift.item()) == coasts


def test_every_update_draws_its_own_noise():
    seen = []

    class Noisy(Shift):
        noise_channels = 2

        def forward(self, images, noise):
            seen.append(noise.clone())
            return super().forward(images) + noise.mean(1, keepdim=True)

    run(adjust(steps=3, history=4), refiner=Noisy())

    assert [noise.shape for noise in seen] == [(4, 2, 1, 1)] * 6
    assert len({tuple(noise.flatten().tolist()) for noise in seen}) == 6


def test_what_rollbacks_have_left_of_the_rates_is_part_of_the_state():
    config = adjust(steps=3)
    first = next(steps_of(networks(), config))
    first.state.scalars["rate"] = 0.25
    players = networks()
    state = TrainingState(*players, config)
    state.load(first.state.tensors())

    (*_, last) = steps_of(players, config, state=state)

    assert last.rates == {"refiner": 0.0025, "discriminator": 0.0025}


def test_a_number_kept_by_name_is_saved_and_loaded():
    state = TrainingState(*networks(), QUIET)
    state.scalars["lambda"] = 1 / 3
    other = TrainingState(*networks(), QUIET)

    other.load(state.tensors())

    assert other.scalars == {"rate": 1.0, "rollbacks": 0.0, "lambda": 1 / 3}


def test_without_decay_rates_stay():
    (*_, last) = steps_of(networks(), adjust(steps=3, decay_after=0, decay_factor=0.1))

    assert last.state.optimizers["refiner"].param_groups[0]["lr"] == 0.01


def test_half_the_bits_train_too_and_keep_weights_in_single_precision():
    players = networks()

    (*_, last) = steps_of(players, adjust(steps=2, precision="bf16", history=6))

    assert all(math.isfinite(value) for value in last.losses.values())
    assert {p.dtype for player in players for p in player.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", -1),
        ("batch_size", 0),
        ("batch_size", 3),
        ("batch_size", -2),
        ("accumulate", 0),
        ("accumulate", 3),  # 16 images do not make 3 shares
        ("accumulate", 16),  # of one image, of which half would come from the history
        ("rollbacks", -1),
        ("rollback_factor", 0.0),
        ("rollback_factor", 1.0),
        ("refiner_updates", 0),
        ("discriminator_updates", 0),
        ("refiner_warmup", -1),
        ("discriminator_warmup", -1),
        ("optimizer", "lion"),
        ("refiner_rate", 0.0),
        ("refiner_rate", math.nan),
        ("discriminator_rate", -1e-4),
        ("discriminator_rate", math.inf),
        ("betas", (1.0, 0.99)),
        ("betas", (0.0, -0.1)),
        ("decay_after", -1),
        ("decay_factor", 0.0),
        ("history", -1),
        ("history", 7),  # less than half a batch of 16
        ("average", 1.0),
        ("average", -0.1),
        ("average", math.nan),
        ("precision", "fp8"),
        ("seed", -1),
    ],
)
def test_impossible_values_are_rejected_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        Training(**{name: value})


class InPlace(Shift):
    """A refiner that changes what it is given."""

    def forward(self, images):
        images += self.shift
        return images


class Enlarged(Shift):
    """A refiner that adds a channel."""

    def forward(self, images):
        return torch.cat([images, images[:, :1]], dim=1) + self.shift


@pytest.mark.parametrize(
    ("refiner", "message"),
    [
        (InPlace, "changes the images that it is given"),
        (Enlarged, r"makes .*4, 4, 12, 12.* keep the shape"),
    ],
)
def test_a_refiner_that_breaks_the_contract_is_named_in_the_first_step(refiner, message):
    parts = refiner(), Patch(3, 8), LeastSquares(), weighed, batches(), real_batches(), QUIET

    with pytest.raises(PluginError, match=message):
        next(train(*parts))
