"""What every gate must do: a new gate's test class inherits `GateContract`.

.. code-block:: python

    class TestMyGate(GateContract):
        def gate(self, intercept, slope):
            return MyGate(intercept, slope, temperature=0.7)
"""

import numpy as np
import pytest
import torch

from kernels.gating import Layout, naive
from moe_stats import GateTemplate, GaussianMoE, LinearExperts

EXACT = 1e-12
"""Two ways to the same number, float64."""

AUTOGRAD = 1e-10
"""Derivatives against automatic ones, float64, of quantities of order 1."""


class GateContract:
    """Behaviour checks for a gate; a subclass supplies `gate`."""

    n_features = 2
    n_experts = 4

    def gate(self, intercept, slope):
        """A gate with these intercepts (..., E) and slopes (..., E, D)."""
        raise NotImplementedError

    def make(self, *, batch=(), seed=0):
        rng = np.random.default_rng(seed)
        shape = (*batch, self.n_experts)
        return self.gate(rng.normal(size=shape), rng.normal(size=(*shape, self.n_features)))

    def features(self, n=50, batch=()):
        rng = np.random.default_rng(7)
        return torch.from_numpy(rng.normal(size=(*batch, n, self.n_features)))

    def model(self, gate):
        shape = gate.slope.shape
        return GaussianMoE(gate, LinearExperts(gate.slope * 0, *2 * [torch.ones(shape[:-1])]))

    def test_probabilities(self):
        gate = self.make()
        probs = gate.probs(self.features())
        assert probs.shape == (50, self.n_experts)
        assert bool((probs >= 0).all())
        assert torch.allclose(probs.sum(-1), torch.ones(50).double(), rtol=0, atol=EXACT)
        assert torch.allclose(torch.exp(gate.log_probs(self.features())), probs, atol=EXACT)
        assert float(probs.std(0).max()) > 0.01  # the features matter

    def test_as_many_experts_speak_as_are_selected(self):
        gate = self.make()
        speaking = (gate.probs(self.features()) > 0).sum(-1)
        assert set(speaking.tolist()) == {gate.form.top_k or self.n_experts}

    def test_batch_is_a_loop(self):
        gate, X = self.make(batch=(3,)), self.features()
        together = gate.probs(X)
        for r in range(3):
            alone = self.gate(gate.intercept[r], gate.slope[r]).probs(X)
            assert torch.allclose(together[r], alone, rtol=0, atol=EXACT)

    def test_parameters_come_back(self):
        for gate in (self.make(), self.make(batch=(3,))):
            again = type(gate).from_parameters(*gate.pack(), **gate.options)
            assert again.options == gate.options
            for mine, theirs in zip(gate.pack(), again.pack(), strict=True):
                assert torch.equal(mine, theirs)
            own, shared = gate.pack()
            form = gate.form
            assert own.shape[-2:] == (self.n_experts, self.n_features + form.extra_parameters)
            assert shared.shape[-1] == form.n_shared
            assert len(gate.shared_names) == form.n_shared
            assert not form.n_shared or 0 < gate.shared_bound < torch.inf

    def test_masses_are_reweighed(self):
        gate = self.make()
        own, shared = gate.pack()
        factor = -torch.arange(1.0, 1 + self.n_experts, dtype=torch.float64)
        own = gate.reweigh(own, shared, factor)
        again = type(gate).from_parameters(own, shared, **gate.options)
        change = again.atoms()[0] - gate.atoms()[0]
        assert torch.allclose(change, factor, rtol=0, atol=EXACT)
        assert torch.equal(again.slope, gate.slope)

    def test_equivalents_have_the_same_probabilities(self):
        for n_experts in {max(2, self.make().form.top_k or 2), self.n_experts}:
            gate = self.make()
            gate = self.gate(gate.intercept[:n_experts], gate.slope[:n_experts])
            for other in gate.equivalents():
                assert not torch.equal(other.slope, gate.slope)
                X = self.features()
                assert torch.allclose(other.probs(X), gate.probs(X), rtol=0, atol=EXACT)

    def test_template_builds_the_gate(self):
        gate = self.make()
        template = type(gate).template(**gate.options)
        assert isinstance(template, GateTemplate)
        assert template.form() == gate.form
        assert hash(template) == hash(type(gate).template(**gate.options))
        assert type(gate).__name__ in repr(template)
        built = template.build(*gate.pack())
        assert torch.equal(built.probs(self.features()), gate.probs(self.features()))

    def test_template_refuses_unknown_options(self):
        with pytest.raises(ValueError, match="options"):
            type(self.make()).template(not_an_option=1)

    def test_starting_parameters_give_affine_scores_that_can_be_told_apart(self):
        gate = self.make()
        luck = torch.full((gate.form.n_shared,), 0.3, dtype=torch.float64)
        own, shared = type(gate).starting_parameters(gate.intercept, gate.slope, luck)
        probs = type(gate).from_parameters(own, shared, **gate.options).probs(self.features())
        assert bool(torch.isfinite(probs).all())
        assert float(probs.std(0).max()) > 0.01

    def test_score_gradient_is_that_of_the_score(self):
        gate = self.make()
        derivative = self._score_derivatives(gate)[0]
        flat, x, layout = self._flat(gate)
        jacobian = naive.score_jacobian(flat, gate.form, x, layout)[0]  # (E, Q, N)
        assert torch.allclose(jacobian, derivative, rtol=0, atol=AUTOGRAD)

    def test_score_curvature_is_that_of_the_score(self):
        gate = self.make()
        second = self._score_derivatives(gate)[1]
        flat, x, layout = self._flat(gate)
        curvature = torch.zeros_like(second)
        if gate.form.score_curvature is not None:
            like = torch.zeros(1, self.n_experts, x.shape[-1], dtype=torch.float64)
            entries = gate.form.score_curvature(*naive.columns(flat, x, layout))
            for (q, r), value in entries.items():
                assert q <= r
                curvature[:, q, r] = curvature[:, r, q] = naive.as_column(value, like)[0]
        assert torch.allclose(curvature, second, rtol=0, atol=AUTOGRAD)

    def test_translations_named_change_nothing(self):
        gate, X = self.make(), self.features()
        for name in gate.translates:
            shifted = self._shift(gate, name)
            assert torch.allclose(shifted.probs(X), gate.probs(X), rtol=0, atol=EXACT), name

    def test_translations_not_named_change_something(self):
        gate, X = self.make(), self.features()
        for name in {"log_weight", "gate_slope"} - set(gate.translates):
            assert float((self._shift(gate, name).probs(X) - gate.probs(X)).abs().max()) > 1e-6

    def test_one_expert_shifted_alone_changes_something(self):
        gate, X = self.make(), self.features()
        one = torch.zeros(self.n_experts, 1, dtype=torch.float64)
        one[0] = 0.7
        slope = self.gate(gate.intercept, gate.slope + one)
        assert float((slope.probs(X) - gate.probs(X)).abs().max()) > 1e-6

    def test_atoms(self):
        gate = self.make(batch=(3,))
        log_weight, atoms = gate.atoms()
        assert log_weight.shape == (3, self.n_experts)
        assert all(a.shape[:2] == (3, self.n_experts) and a.ndim == 3 for a in atoms.values())
        assert set(gate.translates) <= {"log_weight", *atoms}

    def test_flat_parameters_of_a_model_come_back(self):
        model = self.model(self.make(batch=(2,)))
        template = GateTemplate(type(model.gate), model.gate.options)
        again = GaussianMoE.from_params(model.to_params(), template, self.n_experts)
        assert torch.equal(again.to_params(), model.to_params())
        assert again.n_features == self.n_features

    def test_float32_stays_float32(self):
        gate = self.make()
        single = self.gate(gate.intercept.float(), gate.slope.float())
        probs = single.probs(self.features())
        assert probs.dtype == torch.float32
        assert torch.allclose(probs.double(), gate.probs(self.features()), rtol=0, atol=1e-5)

    def _shift(self, gate, name):
        if name == "log_weight":
            return self.gate(gate.intercept + 1.3, gate.slope)
        direction = torch.linspace(0.5, -1.1, self.n_features, dtype=torch.float64)
        return self.gate(gate.intercept, gate.slope + direction)

    def _flat(self, gate):
        own, shared = gate.pack()
        experts = own.new_zeros(self.n_experts, self.n_features + 2)
        flat = torch.cat([torch.cat([own, experts], -1).flatten(), shared])[None]
        layout = Layout.of(gate.form, self.n_experts, self.n_features)
        return flat, self.features().mT[None], layout

    def _score_derivatives(self, gate):
        """By torch.func, of each score by its own and the shared parameters: (E, Q, N) and
        (E, Q, Q, N)."""
        own, shared = gate.pack()
        features = list(self.features().mT)
        n_own = own.shape[-1]

        def score(theta):
            columns = list(theta)
            return gate.form.score(columns[:n_own], columns[n_own:], features).expand(50)

        first = torch.func.jacrev(score)
        second = torch.func.jacfwd(first)
        thetas = [torch.cat([block, shared]) for block in own]
        return (
            torch.stack([first(t).mT for t in thetas]),
            torch.stack([second(t).permute(1, 2, 0) for t in thetas]),
        )
