"""Training: folds, early stopping, resuming, posterior draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bayes.forecast.architecture import N_FOLDS, Architecture, Inputs, Network
from bayes.forecast.inference.laplace import N_DRAWS, _head_gradients, last_layer_laplace
from bayes.forecast.inference.weights import flatten, unflatten, with_draws
from bayes.forecast.likelihoods import LIKELIHOODS
from bayes.forecast.scale import TargetScale
from bayes.forecast.training import Plan, Targets, data_loss, held_out, log_prior, train
from bayes.storage import StorageError

R, M = 300, 5
SCALE = TargetScale(1.0, 0.0, 0.0, 1.0, -np.inf)
PLAN = Plan(n_updates=60, batch=64, step_size=1e-2, patience=100, prior_weight=1.0, n_rows=R)


def log_prob(z, location, log_scale, tail):
    return LIKELIHOODS["normal"]().log_prob(z, location, log_scale, tail, SCALE)


def _targets() -> Targets:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(R, 1, generator=g) - 0.5
    z = torch.sin(6 * x[:, 0]) + 0.1 * torch.randn(R, generator=g)
    nothing = torch.zeros(R, 0)
    inputs = Inputs(
        x, nothing, nothing, nothing, nothing.bool(), torch.zeros(R, 0, 1), nothing,
        torch.zeros(R), torch.zeros(R),
    )  # fmt: skip
    return Targets(inputs, z, torch.arange(R) % N_FOLDS)


def _network(seed: int = 0) -> Network:
    architecture = Architecture(n_coords=1, n_edge=1, width=8, context=False)
    return Network(architecture, M, torch.zeros(1), torch.Generator().manual_seed(seed))


def _train(network: Network, plan: Plan = PLAN, **more):
    generator = torch.Generator().manual_seed(1)
    return train(network, _targets(), log_prob, plan, generator, **more)


def test_it_learns():
    network = _network()
    history = _train(network)
    assert history[-1].held_out > history[0].held_out + 0.3
    assert len(history) == PLAN.n_epochs(R) == 12


def test_a_member_does_not_learn_from_its_fold():
    """Values of fold 0 change: so do the weights of all members but those that hold it out."""
    before, after = _network(), _network()
    targets = _targets()
    changed = Targets(
        targets.inputs, torch.where(targets.fold == 0, targets.z + 1, targets.z), targets.fold
    )
    plan = Plan(5, 64, 1e-2, 1, 1.0, R)  # one epoch: held-out scores decide nothing
    for network, data in ((before, targets), (after, changed)):
        train(network, data, log_prob, plan, torch.Generator().manual_seed(1))
    moved = (flatten(before) - flatten(after)).abs().amax(1)
    keeps = before.folds == 0
    assert keeps.tolist() == [True, False, False, False, True]
    assert (moved[keeps] == 0).all()
    assert (moved[~keeps] > 1e-3).all()


def test_rows_outside_all_folds():
    network = _network()
    fold = torch.tensor([-1, 0, N_FOLDS])
    assert held_out(network, fold).T.tolist()[0] == [True] * M
    assert held_out(network, fold).T.tolist()[1] == [True, False, False, False, True]
    assert held_out(network, fold).T.tolist()[2] == [False] * M


def test_the_best_weights_are_restored():
    network = _network()
    seen: list[torch.Tensor] = []
    history = _train(network, callback=lambda _: seen.append(flatten(network)))
    assert len(seen) == len(history)
    kept = flatten(network)
    for m in range(M):
        assert any(torch.equal(kept[m], weights[m]) for weights in seen)


def test_a_hopeless_training_stops_early():
    plan = Plan(600, 64, 1e-2, 3, 1.0, R)
    targets = _targets()
    noise = torch.randn(R, generator=torch.Generator().manual_seed(3))
    history = train(
        _network(), Targets(targets.inputs, noise, targets.fold), log_prob, plan,
        torch.Generator().manual_seed(1),
    )  # fmt: skip
    assert len(history) < plan.n_epochs(R)


def test_resuming_gives_the_same(tmp_path):
    class StopError(Exception):
        pass

    def stop(progress):
        if progress.epoch == 5:
            raise StopError

    whole, halved = _network(), _network()
    expected = _train(whole)
    path = tmp_path / "checkpoint"
    with pytest.raises(StopError):
        _train(halved, checkpoint=path, callback=stop)
    resumed = _network(seed=7)
    assert _train(resumed, checkpoint=path) == expected
    assert torch.equal(flatten(resumed), flatten(whole))
    with pytest.raises(StorageError, match="another training"):
        _train(_network(), Plan(50, 64, 1e-2, 100, 1.0, R), checkpoint=path)


def test_the_prior_is_logistic():
    x = torch.tensor([[0.3, -2.0]])
    expected = np.log([np.exp(-v) / (1 + np.exp(-v)) ** 2 for v in (0.3, -2.0)]).sum()
    assert float(log_prior(x)) == pytest.approx(expected, abs=1e-6)


def test_weights_go_to_a_matrix_and_back():
    network = _network()
    draws = torch.stack([flatten(network), flatten(network) + 1])
    larger = with_draws(network, draws)
    assert larger.n_members == 2 * M
    assert torch.equal(flatten(larger), draws.flatten(0, 1))
    assert torch.equal(larger.folds, network.folds.repeat(2))
    for name, value in unflatten(network, flatten(network)).items():
        assert torch.equal(value, network.get_parameter(name))


def test_head_gradients_are_those_of_autograd():
    network, targets = _network(), _targets()
    rows = slice(10, 11)
    gradient = _head_gradients(network, targets, rows, log_prob)[2, 0]
    outputs = network(targets.inputs.rows(rows).expand(M))
    value = log_prob(targets.z[rows], *outputs)[2, 0]
    layer = network.head.out
    weight, bias = torch.autograd.grad(value, [layer.weight, layer.bias])
    expected = torch.cat([weight[2], bias[2]]).flatten()
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_laplace_shrinks_with_data():
    """The variance of the locations at the targets falls as 1/N where the data dominate: with 100
    times the N by more than 10; with the same N it does not."""
    network, targets = _network(), _targets()
    location = network(targets.inputs.expand(M))[0].detach()
    moves = []
    for n_rows in (R, R, 100 * R):
        plan = Plan(60, 64, 1e-2, 100, 1.0, n_rows)
        generator = torch.Generator().manual_seed(len(moves))
        larger = last_layer_laplace(network, targets, log_prob, plan, generator)
        draws = larger(targets.inputs.expand(N_DRAWS * M))[0].detach().view(N_DRAWS, M, -1)
        moves.append(float((draws - location).square().mean()))
    assert moves[2] < moves[0] / 10
    assert 0.3 < moves[1] / moves[0] < 3


def test_other_weights_can_be_scored():
    network, targets = _network(), _targets()
    rows = torch.arange(R)
    own = data_loss(network, targets, rows, log_prob)
    again = data_loss(network, targets, rows, log_prob, unflatten(network, flatten(network)))
    torch.testing.assert_close(own, again)
    other = data_loss(network, targets, rows, log_prob, unflatten(network, flatten(network) + 0.1))
    assert (other - own).abs().min() > 1e-4


def test_without_held_out_targets_the_last_weights_stay():
    network, targets = _network(), _targets()
    everywhere = Targets(targets.inputs, targets.z, torch.full((R,), N_FOLDS))
    last: list[torch.Tensor] = []
    history = train(
        network, everywhere, log_prob, PLAN, torch.Generator().manual_seed(1),
        callback=lambda _: last.append(flatten(network)),
    )  # fmt: skip
    assert len(history) == PLAN.n_epochs(R)
    assert np.isnan(history[-1].held_out)
    assert torch.equal(flatten(network), last[-1])
