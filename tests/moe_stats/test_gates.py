"""Built-in gates: the contract of all gates, and what is their own."""

import pytest
import torch
from gate_contract import GateContract

from moe_stats import SoftmaxGate, TopKGate


class TestSoftmaxGate(GateContract):
    def gate(self, intercept, slope):
        return SoftmaxGate(intercept, slope)


class TestTopKGateBySlope(GateContract):
    def gate(self, intercept, slope):
        return TopKGate(intercept, slope, top_k=2, rank="slope")


class TestTopKGateByLogit(GateContract):
    n_features = 1

    def gate(self, intercept, slope):
        return TopKGate(intercept, slope, top_k=3, rank="logit")


X = torch.linspace(-1.9, 2.3, 41, dtype=torch.float64)[:, None]
INTERCEPT, SLOPE = [0.2, 0.9, -0.3, 0.4], [[2.1], [0.3], [-1.7], [0.8]]


def test_softmax_is_the_formula():
    gate = SoftmaxGate(INTERCEPT, SLOPE)
    scores = X * torch.tensor(SLOPE, dtype=torch.float64).T + torch.tensor(
        INTERCEPT, dtype=torch.float64
    )
    assert torch.allclose(gate.probs(X), torch.softmax(scores, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", ["slope", "logit"])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_selects_by_its_rank_and_renormalises(top_k, rank):
    probs = TopKGate(INTERCEPT, SLOPE, top_k=top_k, rank=rank).probs(X)
    slopes = X * torch.tensor(SLOPE, dtype=torch.float64).T
    logits = slopes + torch.tensor(INTERCEPT, dtype=torch.float64)
    ranks = slopes if rank == "slope" else logits
    for n in range(len(X)):
        best = sorted(range(4), key=lambda e, n=n: -float(ranks[n, e]))[:top_k]
        expected = torch.zeros(4, dtype=torch.float64)
        expected[best] = torch.softmax(logits[n, best], -1)
        assert torch.allclose(probs[n], expected, rtol=0, atol=1e-12)
        assert probs[n].nonzero().ravel().tolist() == sorted(best)


def test_the_two_ranks_differ():
    by_slope = TopKGate(INTERCEPT, SLOPE, top_k=2, rank="slope").probs(X)
    by_logit = TopKGate(INTERCEPT, SLOPE, top_k=2, rank="logit").probs(X)
    assert bool(((by_slope > 0) != (by_logit > 0)).any())


def test_all_experts_kept_is_the_softmax():
    for rank in ("slope", "logit"):
        kept = TopKGate(INTERCEPT, SLOPE, top_k=4, rank=rank).probs(X)
        assert torch.allclose(kept, SoftmaxGate(INTERCEPT, SLOPE).probs(X), rtol=0, atol=1e-15)


def test_ties_go_to_the_first():
    probs = TopKGate([0.3, 0.3, 0.3], [[0.7], [0.7], [0.7]], top_k=2).probs(X)
    assert torch.allclose(probs, torch.tensor([0.5, 0.5, 0.0]).double().expand(41, 3), atol=1e-12)


def test_slope_ranking_changes_only_at_zero():
    """With one feature the order of b1 x is one on each side of 0."""
    chosen = TopKGate(INTERCEPT, SLOPE, top_k=2, rank="slope").probs(X) > 0
    for side in (X[:, 0] < 0, X[:, 0] > 0):
        assert len(torch.unique(chosen[side], dim=0)) == 1


def test_a_top_1_gate_is_an_indicator():
    probs = TopKGate(INTERCEPT, SLOPE, top_k=1, rank="logit").probs(X)
    assert set(probs.unique().tolist()) == {0.0, 1.0}


def test_integers_become_float64():
    assert SoftmaxGate([0, 1], [[2], [0]]).slope.dtype == torch.float64
