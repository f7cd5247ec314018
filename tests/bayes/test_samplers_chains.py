"""The loop: keyed noise, interruption, checkpoints, divergence, fusion, bad input."""

import os
import warnings

import pytest
import torch

from bayes.samplers import (
    BAOAB,
    MCLMC,
    SAMPLERS,
    SGLD,
    AdaptiveSGHMC,
    ControlVariate,
    CosineCycles,
    Cyclical,
    PolynomialDecay,
    SamplingWarning,
    StorageError,
    checkpoint,
    sample_density,
)
from bayes.samplers.chains import run
from bayes.samplers.loop import BLOCK_NUMBERS, block_steps
from bayes.samplers.streams import ChainStreams

STEPS = {
    "sgld": 0.05,
    "psgld": 0.05,
    "sghmc": 0.2,
    "adaptive-sghmc": 0.1,
    "baoab": 0.3,
    "sgnht": 0.2,
    "mclmc": 0.3,
}
SAME_NOISE = 1e-10
"""Two runs of the same noise whose sums are taken in another order, on a convex potential, where
differences do not grow; float64."""


def banana(q):
    return -0.5 * (q[0] ** 2 + (q[1] - 0.3 * q[0] ** 2) ** 2) - 0.5 * q[2:].square().sum()


def valleys(q):  # (C, P) -> (C,)
    return -(0.5 * q.square() + 0.1 * q**4).sum(1)


def bowl(q):
    return -0.5 * (q * q * torch.tensor([1.0, 3.0]).to(q)).sum()


def start(n_chains=3, n=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_chains, n, dtype=torch.float64, generator=generator)


def interrupt_after(n_blocks):
    seen = []

    def callback(progress):
        seen.append(progress)
        if len(seen) == n_blocks:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_chain_does_not_depend_on_the_others(name):
    sampler = SAMPLERS[name](STEPS[name])
    many = start(64)
    options = {"n_draws": 50, "burn_in": 50, "random_state": 5}
    together = sample_density(bowl, many, sampler, **options).draws
    few = sample_density(bowl, many[:2], sampler, **options).draws
    assert torch.allclose(together[:2], few, rtol=0, atol=SAME_NOISE)
    assert float((together[0] - together[1])[-1].abs().min()) > 0  # but chains differ
    other = sample_density(bowl, many[:2], sampler, **{**options, "random_state": 6}).draws
    assert float((other - few)[:, -1].abs().min()) > SAME_NOISE


def test_streams_of_chains_are_their_own():
    device = torch.device("cpu")
    many, few = ChainStreams(3, 64, device), ChainStreams(3, 2, device)
    assert torch.equal(many.normal(5, 7, torch.float64)[:, :2], few.normal(5, 7, torch.float64))
    assert torch.equal(many.indices(5, 10, 4)[:, :2], few.indices(5, 10, 4))
    seeds = {g.initial_seed() for g in ChainStreams(3, 5000, device).generators}
    assert len(seeds) == 5000


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_resumed_run_is_bit_identical(name, tmp_path):
    sampler = SAMPLERS[name](STEPS[name])
    options = {"n_draws": 150, "burn_in": 50, "thin": 2, "random_state": 5, "batched": True}
    whole = sample_density(valleys, start(), sampler, **options)
    path = tmp_path / "run.safetensors"
    first = sample_density(
        valleys, start(), sampler, checkpoint=path, callback=interrupt_after(2), **options
    )
    assert first.interrupted
    assert 0 < first.draws.shape[1] < 150
    assert torch.equal(first.draws, whole.draws[:, : first.draws.shape[1]])
    second = sample_density(valleys, start(), sampler, checkpoint=path, **options)
    assert not second.interrupted
    assert torch.equal(second.draws, whole.draws)
    assert torch.equal(second.potential, whole.potential)
    for name_, value in whole.moments.as_tensors().items():
        assert torch.equal(second.moments.as_tensors()[name_], value)
    longer = {**options, "n_draws": 200}
    third = sample_density(valleys, start(), sampler, checkpoint=path, **longer)
    assert torch.equal(third.draws, sample_density(valleys, start(), sampler, **longer).draws)


def test_interruption_inside_a_block_changes_nothing(tmp_path):
    calls = []

    def density(q):
        calls.append(1)
        if len(calls) == 200:
            raise KeyboardInterrupt
        return -0.5 * q.square().sum()

    path = tmp_path / "run"
    options = {"n_draws": 300, "burn_in": 10, "random_state": 5}
    first = sample_density(density, start(), BAOAB(0.3), checkpoint=path, **options)
    assert first.interrupted
    second = sample_density(density, start(), BAOAB(0.3), checkpoint=path, **options)
    whole = sample_density(lambda q: -0.5 * q.square().sum(), start(), BAOAB(0.3), **options)
    assert torch.equal(second.draws, whole.draws)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run"
    sample_density(
        bowl, start(), BAOAB(0.3), n_draws=20, burn_in=5, random_state=1, checkpoint=path
    )
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": SGLD(0.1)}, "sampler was 'BAOAB"),
        ({"random_state": 2}, "seed was 1, now 2"),
        ({"init": start(4)}, "n_chains was 3, now 4"),
        ({"init": start(3).float()}, "dtype was 'torch.float64'"),
        ({"log_density": banana}, "of another density or of other data"),
    ],
)
def test_checkpoints_of_other_runs_are_refused(saved, change, message):
    given = {"log_density": bowl, "init": start(), "sampler": BAOAB(0.3), "random_state": 1}
    with pytest.raises(StorageError, match=message):
        sample_density(**{**given, **change}, n_draws=20, burn_in=5, checkpoint=saved)


def test_checkpoints_of_another_version_are_refused(saved, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    with pytest.raises(StorageError, match="version"):
        sample_density(
            bowl, start(), BAOAB(0.3), n_draws=20, burn_in=5, random_state=1, checkpoint=saved
        )


def test_torn_checkpoints_are_refused(saved, tmp_path):
    saved.write_bytes(saved.read_bytes()[:100])
    given = {"n_draws": 20, "burn_in": 5, "random_state": 1}
    with pytest.raises(StorageError, match="torn"):
        sample_density(bowl, start(), BAOAB(0.3), checkpoint=saved, **given)


def test_a_checkpoint_that_cannot_be_written_loses_no_draw(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(SamplingWarning, match="no space is left"):
        result = sample_density(
            bowl, start(), BAOAB(0.3), n_draws=20, random_state=1, checkpoint=tmp_path / "run"
        )
    assert bool(torch.isfinite(result.draws).all())
    assert list(tmp_path.iterdir()) == []


def quartic(q):
    return -0.25 * (q**4).sum()


def test_diverging_chains_are_stopped_and_the_others_go_on():
    """Euler's step for q^4/4 grows without bound from |q| > sqrt(2/h)."""
    init = start()
    init[1] = 50.0
    options = {"n_draws": 200, "burn_in": 0, "random_state": 1}
    with pytest.warns(SamplingWarning, match=r"Chain 1 was stopped at step \d: .*too large"):
        result = sample_density(quartic, init, SGLD(0.05), **options)
    assert [d.chain for d in result.divergences] == [1]
    assert result.kept == [0, 2]
    assert bool(torch.isnan(result.draws[1, 10:]).all())
    alone = sample_density(quartic, start(), SGLD(0.05), **options)
    assert torch.equal(result.draws[[0, 2]], alone.draws[[0, 2]])
    assert bool(torch.isfinite(result.mean()).all())
    assert result.to_datatree().posterior.sizes["chain"] == 2
    assert "Chain 1 was stopped" in result.diagnose()[0]
    assert result.temperatures().blocks["all"].configurational < 5


def test_all_chains_diverged():
    with pytest.warns(SamplingWarning, match=r"Chain \d was stopped"):
        result = sample_density(quartic, start() + 50, SGLD(0.05), n_draws=200, random_state=1)
    assert result.kept == []
    assert "No chain is left" in result.diagnose()[-1]
    with pytest.raises(ValueError, match="All 3 chains were stopped"):
        result.mean()


def long_tail(q):
    return -5 * torch.log1p(q.square().sum())


@pytest.mark.parametrize(("far", "kept"), [(1e15, [0, 2]), (30.0, [0, 1, 2])])
def test_a_chain_that_rests_far_out_is_left_out(far, kept):
    """Where the tail is flat, rounding keeps a chain at 1e15 with temperatures that look right.
    Control: one at 30 may be a draw of the density."""
    init = start()
    init[1] = far
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SamplingWarning)
        result = sample_density(long_tail, init, BAOAB(0.3), n_draws=50, burn_in=10, random_state=0)
    assert result.kept == kept
    assert float(result.mean().abs().max()) < 100
    assert any("Chain 1 was stopped" in str(w.message) for w in said) == (1 not in kept)
    assert any("above the lowest of the starts" in s for s in result.diagnose()) == (1 not in kept)
    assert bool(torch.isfinite(result.draws).all())


def test_a_resumed_run_remembers_who_was_stopped(tmp_path):
    init, path = start(), tmp_path / "run"
    init[1] = 50.0
    options = {"n_draws": 300, "burn_in": 0, "random_state": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        whole = sample_density(quartic, init, SGLD(0.05), **options)
        stop = interrupt_after(1)
        sample_density(quartic, init, SGLD(0.05), checkpoint=path, callback=stop, **options)
        again = sample_density(quartic, init, SGLD(0.05), checkpoint=path, **options)
    assert again.divergences == whole.divergences
    assert torch.equal(again.draws.nan_to_num(7), whole.draws.nan_to_num(7))


def test_nan_gradients_are_named():
    def density(q):  # sqrt is NaN where q[1] > 2
        return -0.5 * q.square().sum() + 0 * torch.sqrt(2 - q[1])

    with pytest.warns(SamplingWarning, match="the gradient is NaN at 1 of 3 parameters, first 1"):
        result = sample_density(
            density, torch.zeros(1, 3).double(), SGLD(0.3), n_draws=2000, random_state=0
        )
    step = result.divergences[0].step
    assert step > 0
    # draws up to the step are there, none after
    last = int(torch.isfinite(result.draws[0, :, 0]).sum())
    assert last == max(0, step - result.burn_in - 1)


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "mclmc"])
def test_temperature_zero_finds_the_mode(name):
    sampler = SAMPLERS[name](STEPS[name], temperature=0.0)
    centre = torch.tensor([1.0, -2.0]).double()
    result = sample_density(
        lambda q: valleys(q - centre),
        start(),
        sampler,
        n_draws=1,
        burn_in=900,
        random_state=0,
        batched=True,
    )
    assert torch.allclose(result.draws[:, 0], centre.expand(3, 2), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_fused_is_plain(name):
    """Same noise, steps fused: rounding apart, on a convex potential."""
    sampler = SAMPLERS[name](STEPS[name])
    options = {"n_draws": 40, "burn_in": 40, "thin": 3, "random_state": 5}
    plain = sample_density(bowl, start(), sampler, **options)
    fused = sample_density(bowl, start(), sampler, compile=True, **options)
    assert torch.allclose(plain.draws, fused.draws, rtol=0, atol=SAME_NOISE)
    assert torch.allclose(plain.potential, fused.potential, rtol=0, atol=SAME_NOISE)


@pytest.mark.slow
def test_fused_with_schedules_is_plain():
    sampler = Cyclical(AdaptiveSGHMC(0.2), cycle_length=40, exploration=0.5)
    options = {"n_draws": 30, "burn_in": 40, "random_state": 5}
    plain = sample_density(bowl, start(), sampler, **options)
    fused = sample_density(bowl, start(), sampler, compile=True, **options)
    assert torch.allclose(plain.draws, fused.draws, rtol=0, atol=SAME_NOISE)


def test_batched_densities_are_mapped_ones():
    def batched(q):
        return -0.5 * (q * q * torch.tensor([1.0, 3.0]).to(q)).sum(1)

    options = {"n_draws": 50, "burn_in": 5, "random_state": 5}
    one = sample_density(bowl, start(), BAOAB(0.3), **options)
    other = sample_density(batched, start(), BAOAB(0.3), batched=True, **options)
    assert torch.allclose(one.draws, other.draws, rtol=0, atol=SAME_NOISE)


def test_draws_are_thinned_positions():
    every = sample_density(bowl, start(), BAOAB(0.3), n_draws=60, burn_in=10, random_state=5)
    third = sample_density(
        bowl, start(), BAOAB(0.3), n_draws=20, burn_in=10, thin=3, random_state=5
    )
    assert torch.equal(every.draws[:, 2::3], third.draws)
    values = torch.func.vmap(torch.func.vmap(bowl))(third.draws)
    assert torch.allclose(third.potential, -values, rtol=0, atol=SAME_NOISE)


def test_progress():
    seen = []
    sample_density(
        bowl, start(), BAOAB(0.3), n_draws=500, burn_in=10, random_state=5, callback=seen.append
    )
    assert [p.n_draws for p in seen] == sorted(p.n_draws for p in seen)
    assert seen[-1].n_draws == 500
    assert seen[-1].step == seen[-1].n_steps == 511
    assert 0.9 < seen[-1].rhat() < 1.2


def test_memory_of_a_block_is_bounded():
    for n in (1, 2, 7, 100, 5251, BLOCK_NUMBERS, BLOCK_NUMBERS + 1, 10**6):
        steps = block_steps(n)
        assert steps >= 1
        assert steps * n <= max(n, BLOCK_NUMBERS)


def test_schedules():
    cycles = Cyclical(SGLD(0.2), cycle_length=50, exploration=0.6)
    controls = [cycles.controls(t, 0) for t in range(100)]
    assert controls[0].step_size == pytest.approx(0.2)
    assert controls[:50] == controls[50:]
    assert [c.temperature for c in controls[:50]] == [0.0] * 30 + [1.0] * 20
    result = sample_density(bowl, start(), cycles, n_draws=40, burn_in=0, random_state=0)
    assert result.n_steps >= 100
    plain = SGLD(PolynomialDecay(0.2, 10, 0.6))
    assert plain.controls(30, 0).step_size == pytest.approx(0.2 * 4**-0.6)
    assert sample_density(bowl, start(), plain, n_draws=9, random_state=0).draws.shape == (3, 9, 2)
    assert SGLD(0.1, temperature=CosineCycles(2.0, 4)).controls(2, 0).temperature == 1.0


def data_potential(data):
    """U = sum of |q - x_i|^2 / 2."""

    def potential(q, batch):
        centre = data.mean(0).expand_as(q) if batch is None else data[batch].mean(1)
        return 0.5 * len(data) * (q - centre).square().sum(1), len(data) * (q - centre)

    return potential


def test_control_variates_take_the_noise_out():
    """On a quadratic with one curvature the batch's noise does not depend on q: none is left."""
    data = start(50)
    potential = data_potential(data)
    wrapped = ControlVariate(potential, torch.tensor([3.0, 1.0]).double())
    q, batch = start(4, seed=1), torch.randint(50, (4, 5))
    exact = potential(q, None)[1]
    assert torch.allclose(wrapped(q, batch)[1], exact, rtol=0, atol=1e-12)
    assert float((potential(q, batch)[1] - exact).abs().min()) > 1e-3
    assert torch.equal(wrapped(q, None)[1], exact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init": [0.0]}, "'init' parameter must be a floating-point tensor"),
        ({"init": torch.zeros(2, 2, dtype=torch.long)}, "'init' parameter"),
        ({"init": start(3), "n_chains": 4}, "got 3 rows with n_chains=4"),
        ({"n_draws": 0}, r"'n_draws' parameter must be an int in \[1, inf\); got 0"),
        ({"thin": 0}, "'thin' parameter"),
        ({"burn_in": -1}, "'burn_in' parameter"),
        ({"random_state": -1}, "'random_state' parameter"),
        ({"log_density": lambda q: -q.square()}, "log_density|scalar"),
        (
            {"log_density": lambda q: q.sum().log()},
            "log density is not at the start of chain 0",
        ),
        ({"init": torch.zeros(1).double(), "sampler": MCLMC(0.1)}, "at least 2 parameters"),
    ],
)
def test_bad_input(change, message):
    given = {"log_density": bowl, "init": -start().abs(), "sampler": BAOAB(0.3)}
    with pytest.raises((ValueError, RuntimeError), match=message):
        sample_density(**{**given, **change})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGLD(0.0), r"'step_size' parameter must be a real number in \(0"),
        (lambda: SGLD(0.1, temperature=-1), "'temperature'"),
        (lambda: MCLMC(0.1, temperature=0), "'temperature'"),
        (lambda: SAMPLERS["sghmc"](0.1, momentum_decay=1.5), "'momentum_decay'"),
        (lambda: BAOAB(0.1, scale=torch.tensor([1.0, 0.0])), "'scale'"),
        (lambda: AdaptiveSGHMC(0.1, noise_estimate="some"), "'noise_estimate'"),
        (lambda: Cyclical(SGLD(0.1), 1), "'cycle_length'"),
        (lambda: Cyclical(MCLMC(0.1), 10), "'exploration' parameter must be 0 with MCLMC"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("batch_size", [51, 0])
def test_batches_larger_than_the_data(batch_size):
    with pytest.raises(ValueError, match=r"'batch_size' parameter must be an int in \[1, 50\]"):
        run(
            data_potential(start(50)),
            SGLD(1e-3),
            start(),
            n_draws=1,
            burn_in=0,
            seed=0,
            n_observations=50,
            batch_size=batch_size,
        )


def test_batches_are_refused_where_they_bias():
    with pytest.raises(ValueError, match="needs full batches"):
        run(
            data_potential(start(50)),
            MCLMC(1e-3),
            start(),
            n_draws=1,
            burn_in=0,
            seed=0,
            n_observations=50,
            batch_size=5,
        )
