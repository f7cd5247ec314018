"""Networks evaluated for many draws at once, against the module itself, draw by draw."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from bayes.networks import ACTIVATIONS, MLP, Activation, BayesianNetwork, ConvNet, as_network

ROUNDING = 1e-12
"""float64, values of order one: sums of at most a few hundred terms, in another order."""


class Residual(nn.Module):
    """A forward pass of its own: skip connection, functional activation, a layer used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        h = h + functional.softplus(self.again(h), beta=2.0)
        return self.last(self.again(h).relu())


def image_net():
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False),
        nn.GroupNorm(2, 6, affine=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 3, (2, 1), padding="same", dilation=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(12, elementwise_affine=False),
        nn.Linear(12, 2),
    )


MODULES = {
    "mlp": (nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2, bias=False)), (3,)),
    "linear": (nn.Linear(3, 2), (3,)),
    "residual": (Residual(), (3,)),
    "images": (image_net(), (4, 8, 8)),
    "rows of pixels": (ConvNet((1, 8, 8), [2, 3], 4, activation="swish").module, (64,)),
}


def drawn(module, shape, n_draws=4, n_rows=6, *, own=False, fan_in_scaling=True, seed=0):
    net = BayesianNetwork(module, fan_in_scaling=fan_in_scaling)
    g = torch.Generator().manual_seed(seed)
    weights = torch.randn(n_draws, net.n_weights, generator=g, dtype=torch.float64)
    rows = (n_draws, n_rows, *shape) if own else (n_rows, *shape)
    return net, weights, torch.randn(rows, generator=g, dtype=torch.float64)


def one_by_one(net, weights, X, own):
    """The module itself with each draw's parameters, scaled by hand."""
    out = []
    for s, parameters in enumerate(weights):
        named = net.unflatten(parameters)
        for block in net.blocks:
            if net.fan_in_scaling and block.kind == "weight":
                named[block.name] = named[block.name] / math.sqrt(math.prod(block.shape[1:]))
        out.append(functional_call(net.module.double(), named, (X[s] if own else X,)))
    return torch.stack(out)


@pytest.mark.parametrize("fan_in_scaling", [True, False])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_equals_the_module_draw_by_draw(name, own, fan_in_scaling):
    module, shape = MODULES[name]
    net, weights, X = drawn(module, shape, own=own, fan_in_scaling=fan_in_scaling)
    expected = one_by_one(net, weights, X, own)
    got = net(weights, X)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < ROUNDING * expected.abs().max()
    # control: the draws are told apart, and so is the scaling
    assert (got.flip(0) - expected).abs().max() > 1e-3
    other = BayesianNetwork(module, fan_in_scaling=not fan_in_scaling)(weights, X)
    assert (other - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODULES)
def test_gradients_equal_those_of_the_loop(name):
    module, shape = MODULES[name]
    net, weights, X = drawn(module, shape)
    weights.requires_grad_()
    (fast,) = torch.autograd.grad(net(weights, X).square().sum(), weights)
    (slow,) = torch.autograd.grad(one_by_one(net, weights, X, False).square().sum(), weights)
    assert (fast - slow).abs().max() < ROUNDING * 10 * slow.abs().max()


@pytest.mark.parametrize("name", MODULES)
def test_one_draw_and_one_of_many(name):
    module, shape = MODULES[name]
    net, weights, X = drawn(module, shape)
    assert net(weights[1], X).shape == (6, net.n_outputs)
    assert torch.allclose(net(weights[1], X), net(weights, X)[1], atol=ROUNDING)
    assert torch.equal(net(weights[:1], X)[0], net(weights[0], X))


@pytest.mark.parametrize("name", MODULES)
def test_flat_weights_and_back(name):
    net, weights, _ = drawn(*MODULES[name])
    named = net.unflatten(weights)
    assert {k: v.shape[1:] for k, v in named.items()} == {
        k: v.shape for k, v in net.module.named_parameters()
    }
    assert torch.equal(net.flatten(named), weights)
    for block in net.blocks:
        assert torch.equal(named[block.name].flatten(1), weights[:, block.slice])


def test_blocks_of_an_mlp():
    net = MLP(13, [100], 1, activation="tanh")
    assert net.n_weights == 1501
    assert (net.n_inputs, net.n_outputs) == (13, 1)
    assert [(b.kind, b.layer, b.fan_in, b.size) for b in net.blocks] == [
        ("weight", 0, 13, 1300),
        ("bias", 0, 13, 100),
        ("weight", 1, 100, 100),
        ("bias", 1, 100, 1),
    ]


def test_shared_inputs_are_as_each_draw_its_own_copy():
    net, weights, X = drawn(*MODULES["mlp"])
    own = net(weights, X.expand(len(weights), *X.shape))
    assert torch.allclose(net(weights, X), own, atol=ROUNDING)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    expected = {
        "tanh": x.tanh(),
        "relu": x.clamp(min=0),
        "erf": x.erf(),
        "cos": x.cos(),
        "sin": x.sin(),
        "rbf": (-(x**2)).exp(),
        "softplus": x.exp().log1p(),
        "swish": x / (1 + (-x).exp()),
        "linear": x,
    }[name]
    assert torch.allclose(Activation(name)(x), expected, atol=1e-15, rtol=1e-14)
    net = MLP(1, [1], 1, activation=name)
    w = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    assert torch.allclose(net(w, x[:, None])[:, 0], expected, atol=1e-15, rtol=1e-14)


def test_the_input_is_left_alone():
    net, weights, X = drawn(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1)), (3,))
    before = X.clone()
    net(weights, X)
    assert torch.equal(X, before)
    assert net.module[0].inplace


def test_dense_stack():
    stack = MLP(3, [5, 4], 2, activation="erf").dense_stack()
    assert [(d.n_inputs, d.n_outputs, a and a.name) for d, a in stack] == [
        (3, 5, "erf"),
        (5, 4, "erf"),
        (4, 2, None),
    ]
    for name in ("residual", "images"):
        with pytest.raises(ValueError, match="'energy'"):
            as_network(MODULES[name][0]).dense_stack()


def test_one_trace_serves_every_dtype():
    net, weights, X = drawn(*MODULES["mlp"])
    assert net(weights.float(), X).dtype == torch.float32
    assert torch.allclose(net(weights.float(), X).double(), net(weights, X), atol=1e-5)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 1)

    def forward(self, x):
        return self.last(x) if x.sum() > 0 else x


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.last, self.factor = nn.Linear(2, 1), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.last(x) * self.factor


def frozen():
    module = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    module[0].requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 1)), "remove it"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)), "LayerNorm"),
        (nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 1)), "elementwise_affine=False"),
        (nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.Linear(2, 1)), "'1' .PReLU. .* use Linear"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="circular"), nn.Flatten()), "zeros"),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten()), "end with a Linear"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(2, 1)), "start_dim=1"),
        (nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Linear(2, 1)), r"\(C, H, W\)"),
        (nn.Tanh(), "end with a Linear"),
        (Branching(), "plain sequence"),
        (Scaled(), "not supported"),
        (frozen(), "frozen"),
        ("mlp", "torch.nn.Module"),
    ],
)
def test_what_is_not_supported_names_the_cure(module, message):
    with pytest.raises(ValueError, match=message):
        BayesianNetwork(module)


def test_bad_shapes():
    net = MLP(3, [4], 1)
    w, X = torch.zeros(5, net.n_weights), torch.zeros(7, 3)
    with pytest.raises(ValueError, match=r"'weights'.*\(S, 21\).*\(5, 20\)"):
        net(w[:, 1:], X)
    with pytest.raises(ValueError, match=r"'X'.*\(N, 3\).*\(7, 2\)"):
        net(w, X[:, 1:])
    with pytest.raises(ValueError, match="4 sets for 5 draws"):
        net(w, X.expand(4, 7, 3))
    with pytest.raises(ValueError, match="'hidden'"):
        MLP(3, [0], 1)
    with pytest.raises(ValueError, match=r"'activation'.*'sigmoidal'"):
        MLP(3, [2], 1, activation="sigmoidal")
    with pytest.raises(ValueError, match="'channels'"):
        ConvNet((1, 4, 4), [2, 2, 2], 1)
