"""Families of priors: densities against independent routes, samples against densities."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.special import gammaln

from bayes.networks import MLP, ConvNet
from bayes.priors import (
    FAMILIES,
    FlowPrior,
    GaussianPrior,
    HierarchicalPrior,
    StudentTPrior,
    fixed_gaussian,
    fixed_hierarchical,
    load_prior,
)
from bayes.priors.groups import group_index
from bayes.storage import StorageError, write

NET = MLP(2, [3], 1)
ROUNDING = 1e-10
"""Two float64 routes to a log-density of order ten."""

FALSE_ALARM = 1e-6
"""Of each test on samples here."""


def perturbed(prior, seed=0, size=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in prior.parameters():
            p += size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return prior


PRIORS = {
    "per layer": lambda: perturbed(GaussianPrior.per_layer(NET)),
    "per parameter": lambda: perturbed(GaussianPrior.per_parameter(NET)),
    "ard": lambda: perturbed(GaussianPrior.ard(NET)),
    "hierarchical": lambda: perturbed(HierarchicalPrior.per_layer(NET, shape=3.0, rate=2.0)),
    "hierarchical ard": lambda: perturbed(HierarchicalPrior.ard(NET, shape=3.0, rate=2.0)),
    "student": lambda: perturbed(StudentTPrior.per_layer(NET, df=6.0)),
    "flow": lambda: perturbed(FlowPrior(NET, n_couplings=3, width=4)),
}


@pytest.fixture(params=PRIORS)
def prior(request):
    return PRIORS[request.param]()


def test_shapes_and_reproducibility(prior):
    w = prior.sample(5, random_state=3)
    assert w.shape == (5, NET.n_weights)
    assert not w.requires_grad
    assert torch.equal(w, prior.sample(5, random_state=3))
    assert not torch.equal(w, prior.sample(5, random_state=4))
    assert prior.log_prob(w).shape == (5,)
    assert prior.log_prob(w.view(5, 1, -1)).shape == (5, 1)
    assert torch.allclose(prior.log_prob(w[2]), prior.log_prob(w)[2])
    X = torch.ones(4, 2, dtype=torch.float64)
    assert torch.equal(prior.sample_functions(X, 5, 3), NET(w, X))


def test_functions_in_float32_have_the_same_law(prior):
    """Two-sample Kolmogorov-Smirnov at one point, 4,000 functions of each; false alarm
    `FALSE_ALARM`. Control: functions a third larger."""
    X = torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    f = prior.rsample_functions(X, 4_000, 1)
    assert f.dtype == torch.float32
    assert f.requires_grad
    weights = prior.rsample(4_000, 1, torch.float32)
    assert torch.allclose(f, NET(weights, X), atol=1e-6)
    single, double = f.detach()[:, 0, 0].numpy(), prior.sample_functions(X, 4_000, 2)[:, 0, 0]
    assert stats.ks_2samp(single, double.numpy()).pvalue > FALSE_ALARM
    assert stats.ks_2samp(4 / 3 * single, double.numpy()).pvalue < FALSE_ALARM


def test_global_generator_is_left_alone(prior):
    before = torch.get_rng_state()
    prior.sample_functions(torch.ones(4, 2), 5, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_density_agrees_with_samples(prior):
    """Null: the density is that of the samples, so E w d/dw log p = -P (integration by parts,
    with w = 0 off the boundary), and E d/dpsi log p = 0 for every parameter. Statistic: means
    over 20,000 draws in their standard errors; Bonferroni at `FALSE_ALARM`. Control: the density
    of another prior of the family."""
    w = prior.sample(20_000, random_state=0).requires_grad_()
    (slope,) = torch.autograd.grad(prior.log_prob(w).sum(), w)
    stein = ((w.detach() * slope).sum(1) + NET.n_weights).detach()
    assert abs(float(stein.mean() / stein.std())) * len(w) ** 0.5 < stats.norm.isf(FALSE_ALARM / 2)

    w = w.detach()

    def scores(of):
        parameters = dict(of.named_parameters())
        chunks = []
        for part in w.split(200):
            value = of.log_prob(part).mean()
            g = torch.autograd.grad(value, list(parameters.values()))
            chunks.append(torch.cat([x.flatten() for x in g]))
        g = torch.stack(chunks)
        t = g.mean(0) / g.std(0).clamp_min(1e-12) * len(g) ** 0.5
        return float(t.abs().max()), len(t)

    worst, count = scores(prior)
    bound = stats.t.isf(FALSE_ALARM / 2 / count, 99)
    assert worst < bound
    assert scores(perturbed(prior, seed=5))[0] > bound  # control


def test_reparametrised_draws_are_differentiable(prior):
    """d/dpsi of a draw against central differences, with the noise held fixed by the seed. Gamma
    draws by rejection are not continuous in their shape: theirs is tested by moments below."""
    parameters = [p for n, p in prior.named_parameters() if n != "log_excess"]
    direction = torch.randn(
        NET.n_weights, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )

    def value():
        return (prior.rsample(1, 7)[0] * direction).sum()

    gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        step = 1e-5 * torch.ones_like(parameter)
        with torch.no_grad():
            parameter += step
            above = value()
            parameter -= 2 * step
            below = value()
            parameter += step
        slope = float((above - below) / 2e-5)
        assert float(gradient.sum()) == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ["hierarchical", "student"])
def test_gradient_through_gamma_draws(name):
    """E |w_0| differs between shapes; its derivative by reparametrised draws (200,000) and by
    quadrature of the marginal t agree within 5 standard errors (false alarm 6e-7)."""
    prior = PRIORS[name]()
    which = prior.log_excess
    blocks = torch.stack(
        [
            torch.autograd.grad(prior.rsample(10_000, k)[:, :6].abs().mean(), which)[0][0]
            for k in range(20)
        ]
    )

    def expected(raw):
        if name == "hierarchical":
            df, scale = 1 + 2 * math.exp(raw), math.exp(float(prior.log_scale[0].detach()))
        else:
            df, scale = 2 + math.exp(raw), math.exp(float(prior.log_scale[0].detach()))
        return 2 * scale * integrate.quad(lambda x: x * stats.t.pdf(x, df), 0, np.inf)[0]

    raw = float(which[0].detach())
    slope = (expected(raw + 1e-4) - expected(raw - 1e-4)) / 2e-4
    error = float(blocks.std()) / 20**0.5
    assert abs(float(blocks.mean()) - slope) < stats.t.isf(3e-7, 19) * error
    assert abs(slope) > stats.t.isf(3e-7, 19) * error  # control: zero is told apart


def test_gaussian_log_density():
    prior = PRIORS["ard"]()
    w = prior.sample(3, 0)
    expected = stats.norm.logpdf(w.numpy(), scale=prior.scale.detach().numpy()).sum(1)
    assert np.allclose(prior.log_prob(w).detach(), expected, atol=ROUNDING)


def test_hierarchical_density_is_a_multivariate_t():
    prior = PRIORS["hierarchical"]()
    w = prior.sample(3, 0)
    expected = np.zeros(3)
    shape, rate = prior.shape.detach().numpy(), prior.rate.detach().numpy()
    for g, block in enumerate(NET.blocks):
        law = stats.multivariate_t(
            np.zeros(block.size), rate[g] / shape[g] * np.eye(block.size), df=2 * shape[g]
        )
        expected += law.logpdf(w[:, block.slice].numpy().reshape(3, block.size))
    assert np.allclose(prior.log_prob(w).detach(), expected, atol=ROUNDING)


def test_hierarchical_marginal_conditional_and_gibbs_agree():
    """Bayes: log p(w) = log p(w | tau) + log p(tau) - log p(tau | w), the last one being the
    Gibbs step's Gamma(shape + n/2, rate + |w|^2/2), for any tau."""
    prior = PRIORS["hierarchical"]()
    w = prior.sample(4, 0)
    tau = prior.sample_precision(w, 1)
    a, r = prior.shape.detach(), prior.rate.detach()
    n = torch.tensor([b.size for b in NET.blocks], dtype=torch.float64)
    half = torch.stack([w[:, b.slice].square().sum(1) / 2 for b in NET.blocks], 1)

    def log_gamma(a, r):
        a, r = (x.numpy() for x in (a, r))
        t = tau.numpy()
        return (a * np.log(r) - gammaln(a) + (a - 1) * np.log(t) - r * t).sum(1)

    joint = prior.log_prob_given(w, tau).detach().numpy() + log_gamma(a, r)
    marginal = prior.log_prob(w).detach()
    assert np.allclose(joint - log_gamma(a + n / 2, r + half), marginal, atol=1e-9)
    # control: the reference's shape, softplus(raw + n/2) instead of shape + n/2, is another law
    wrong = np.log1p(np.exp(np.log(np.expm1(a.numpy())) + n.numpy() / 2))
    off = joint - log_gamma(torch.from_numpy(wrong), r + half)
    assert not np.allclose(off, marginal, atol=1e-2)


def test_gibbs_step_draws_the_conditional_law():
    """Kolmogorov-Smirnov on 5,000 draws for one w, each of 4 groups; false alarm 1e-6."""
    prior = PRIORS["hierarchical"]()
    w = prior.sample(1, 0)
    tau = prior.sample_precision(w.expand(5_000, -1), 1).numpy()
    for g, block in enumerate(NET.blocks):
        shape = float(prior.shape[g].detach()) + block.size / 2
        rate = float(prior.rate[g].detach()) + float(w[:, block.slice].square().sum()) / 2
        assert stats.kstest(tau[:, g], stats.gamma(shape, scale=1 / rate).cdf).pvalue > 1e-6 / 4
        off = stats.kstest(tau[:, g], stats.gamma(shape + 1, scale=1 / rate).cdf).pvalue
        assert off < 1e-6  # control


def test_scales_are_fresh_for_every_function():
    """With wide layers functions given the scales are normal, so their excess kurtosis comes from
    scales that differ between functions: output weights' precision Gamma(a, .) gives 3/(a - 2)
    (shape 6: .75). One scale for all functions would leave none: the control."""
    net = MLP(1, [100], 1, activation="erf")
    prior = HierarchicalPrior.per_layer(net, shape=6.0, rate=6.0)
    with torch.no_grad():  # all scales but the output weights' nearly fixed
        prior.log_excess[[0, 1]] = math.log(1e6)
        prior.log_scale[3] = math.log(1e-6)
    X = torch.tensor([[0.7]], dtype=torch.float64)
    f = prior.sample_functions(X, 10_000, 0)[:, 0, 0]

    def kurtosis(f):
        return float((f**4).mean() / (f**2).mean() ** 2) - 3

    boot = np.random.default_rng(0)
    spread = np.std([kurtosis(f[boot.integers(len(f), size=len(f))]) for _ in range(100)])
    assert abs(kurtosis(f) - 0.75) < 5 * spread + 3 / 100  # + of a finite width
    shared = NET_FUNCTIONS(net, prior, X)
    assert abs(kurtosis(shared)) < 0.3


def NET_FUNCTIONS(net, prior, X):  # noqa: N802
    """Functions that share one draw of the scales, as the published code has it."""
    scales = prior.rsample_scales(1, 0).detach()
    noise = torch.randn(10_000, net.n_weights, generator=torch.Generator().manual_seed(2)).double()
    return torch.cat([net(part, X) for part in (scales * noise).split(2_000)])[:, 0, 0]


def test_flow_density_is_the_change_of_variables():
    """log N(z) - log |det dw/dz| by automatic differentiation of the sampling direction."""
    prior = PRIORS["flow"]()
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(1, NET.n_weights, generator=generator, dtype=torch.float64)

    def flow(z):
        parts = zip(prior.layers, z.split(prior._sizes, -1), strict=True)
        return prior.log_scale.exp() * torch.cat([layer(p) for layer, p in parts], -1)

    assert torch.allclose(flow(z), prior.rsample(1, torch.Generator().manual_seed(4)), atol=1e-14)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z[None])[0], z[0])
    expected = stats.norm.logpdf(z.numpy()).sum() - float(torch.linalg.slogdet(jacobian)[1])
    assert float(prior.log_prob(flow(z)).detach()) == pytest.approx(expected, abs=ROUNDING)
    # control: without the log-determinants it is another number
    assert abs(stats.norm.logpdf(z.numpy()).sum() - expected) > 1e-3


def test_flow_density_integrates_to_one():
    """A linear model of one input: weight and bias, one layer of size 2; trapezoids on a square
    that holds all but 1e-8 of the mass, spacing .05: for smooth densities to 1e-6."""
    prior = perturbed(FlowPrior(MLP(1, [], 1), n_couplings=3, width=4), size=0.5)
    axis = torch.linspace(-25, 25, 1001, dtype=torch.float64)
    mesh = torch.cartesian_prod(axis, axis)
    total = float(prior.log_prob(mesh).detach().exp().sum()) * 0.05**2
    assert total == pytest.approx(1, abs=1e-5)


def test_gradients_flow_through_the_log_determinant():
    prior = PRIORS["flow"]()
    w = prior.sample(2, 0)
    names, parameters = zip(*prior.named_parameters(), strict=True)

    def value(*parameters):
        return torch.func.functional_call(
            _LogProb(prior), {f"prior.{n}": p for n, p in zip(names, parameters, strict=True)}, (w,)
        )

    assert torch.autograd.gradcheck(value, parameters)
    coupling = prior.layers[0][0]
    stretch = coupling.inverse(w[0, :9])[1]
    for gradient in torch.autograd.grad(stretch, [coupling.entry, coupling.exit]):
        assert float(gradient.abs().max()) > 0


class _LogProb(torch.nn.Module):
    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, w):
        return self.prior.log_prob(w)


def test_student_log_density():
    prior = PRIORS["student"]()
    w = prior.sample(3, 0)
    scale, df = prior.scale.detach().numpy(), prior.df.detach().numpy()
    expected = stats.t.logpdf(w.numpy(), df, scale=scale).sum(1)
    assert np.allclose(prior.log_prob(w).detach(), expected, atol=ROUNDING)


def test_baselines_are_fixed():
    fg, fh = fixed_gaussian(NET), fixed_hierarchical(NET)
    assert torch.equal(fg.scale, torch.ones(NET.n_weights).double())
    assert torch.equal(fh.shape, torch.ones(4).double())
    assert torch.equal(fh.rate, torch.ones(4).double())
    assert not any(p.requires_grad for prior in (fg, fh) for p in prior.parameters())


def test_groups_of_a_convolutional_net():
    index, names = group_index(ConvNet((2, 4, 4), [3], 1), "ard")
    assert names[:3] == ("1.weight[:, 0]", "1.weight[:, 1]", "1.bias")
    assert torch.equal(index[: 3 * 2 * 9].view(3, 2, 9)[:, 1], torch.ones(3, 9).long())
    assert len(torch.unique(index)) == len(names)


@pytest.mark.parametrize("name", PRIORS)
def test_save_and_load(name, tmp_path):
    prior = PRIORS[name]()
    path = prior.save(tmp_path / "prior.safetensors")
    again = load_prior(path, MLP(2, [3], 1))
    assert type(again) is type(prior)
    assert torch.equal(prior.sample(3, 0), again.sample(3, 0))
    assert [p.name for p in tmp_path.iterdir()] == ["prior.safetensors"]


def test_files_that_cannot_be_read(tmp_path):
    path = GaussianPrior.per_layer(NET).save(tmp_path / "prior.safetensors")
    with pytest.raises(ValueError, match="network it was fitted for"):
        load_prior(path, MLP(2, [4], 1))
    with pytest.raises(ValueError, match="network it was fitted for"):
        load_prior(path, MLP(2, [3], 1, fan_in_scaling=False))
    with pytest.raises(FileNotFoundError):
        load_prior(tmp_path / "none", NET)
    (tmp_path / "text").write_text("a prior")
    with pytest.raises(ValueError, match="torn or not a safetensors file"):
        load_prior(tmp_path / "text", NET)
    write(tmp_path / "other", "forecaster", 1, {}, {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="must hold a functional prior; got 'forecaster'"):
        load_prior(tmp_path / "other", NET)
    raw = path.read_bytes().replace(b'"version":"2"', b'"version":"9"')
    (tmp_path / "newer").write_bytes(raw)
    with pytest.raises(ValueError, match="version 9; this library reads version 2"):
        load_prior(tmp_path / "newer", NET)
    header = {"family": "gamma", "settings": {}, "net": NET.signature()}
    write(tmp_path / "family", "functional prior", 2, json.loads(json.dumps(header)), {})
    with pytest.raises(ValueError, match="'gamma'; known are"):
        load_prior(tmp_path / "family", NET)
    assert set(FAMILIES) == {"gaussian", "hierarchical", "flow", "student_t"}


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = GaussianPrior.per_layer(NET).save(tmp_path / "prior.safetensors")
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(StorageError, match=r"disk full.*intact"):
        GaussianPrior.per_layer(NET, scale=2.0).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_pyro_sees_the_same_density():
    pyro = pytest.importorskip("pyro")
    prior = PRIORS["hierarchical"]()
    function, X = prior.to_pyro(), torch.ones(3, 2, dtype=torch.float64)
    pyro.set_rng_seed(0)
    trace = pyro.poutine.trace(function).get_trace(X)
    w = trace.nodes["weights"]["value"]
    assert torch.equal(trace.nodes["_RETURN"]["value"], NET(w, X))
    with torch.no_grad():
        assert float(trace.log_prob_sum()) == pytest.approx(float(prior.log_prob(w)))
    with pytest.raises(ValueError, match="'net'"):
        prior.to_pyro(MLP(2, [4], 1))


def test_bad_parameters():
    with pytest.raises(ValueError, match=r"'by'.*'unit'"):
        GaussianPrior(NET, by="unit")
    with pytest.raises(ValueError, match=r"'scale'.*\(0"):
        GaussianPrior.per_layer(NET, scale=0.0)
    with pytest.raises(ValueError, match="'df'"):
        StudentTPrior.per_layer(NET, df=2.0)
    with pytest.raises(ValueError, match=r"'shape'.*\(0\.5"):
        HierarchicalPrior.per_layer(NET, shape=0.5)
    with pytest.raises(ValueError, match="'n' parameter"):
        GaussianPrior.per_layer(NET).sample(0)
    with pytest.raises(ValueError, match="'random_state'"):
        GaussianPrior.per_layer(NET).sample(1, random_state="a")
