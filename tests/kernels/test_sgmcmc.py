"""The updates against their equations: linear maps, exact flows, both forms."""

import math

import pytest
import torch

from kernels import sgmcmc
from kernels.sgmcmc import naive

EXACT = 1e-13
"""Two ways to the same number of order 1, float64."""

FUSED = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Compiled against plain form; the fused one contracts multiply-adds."""

UPDATES = {
    "sgld": {"step_size": 0.1, "temperature": 0.7},
    "psgld": {"second_moment": "positive", "step_size": 0.1, "damping": 0.01, "temperature": 0.7},
    "sghmc": {
        "momentum": "state",
        "step_size": 0.1,
        "momentum_decay": 0.3,
        "mass": "positive",
        "noise_variance": "positive",
        "temperature": 0.7,
    },
    "baoab": {"momentum": "state", "step_size": 0.1, "friction": 0.8, "temperature": 0.7},
    "sgnht": {
        "momentum": "state",
        "thermostat": "chain",
        "step_size": 0.1,
        "diffusion": 0.8,
        "temperature": 0.7,
    },
    "mclmc": {
        "direction": "unit",
        "step_size": 0.1,
        "decoherence_length": 1.3,
        "temperature": 0.7,
    },
}


def arguments(name, shape=(3, 7), dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal():
        return torch.randn(shape, dtype=dtype, generator=generator)

    made = {
        "positive": lambda: normal().square() + 0.5,
        "state": normal,
        "chain": lambda: normal()[:, :1],
        "unit": lambda: torch.nn.functional.normalize(normal(), dim=1),
    }
    tensors = {"position": normal(), "gradient": normal(), "noise": normal()}
    for key, value in UPDATES[name].items():
        tensors[key] = made[value]() if isinstance(value, str) else value
    return tensors


def outputs(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.slow
@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("dtype", FUSED)
def test_compiled_is_naive(name, dtype):
    for seed, shape in enumerate([(3, 7), (5, 33)]):
        given = arguments(name, shape, dtype, seed)
        plain = outputs(getattr(sgmcmc, name)(**given, backend="naive"))
        fused = outputs(getattr(sgmcmc, name)(**given, backend="compiled"))
        for a, b in zip(plain, fused, strict=True):
            assert a.dtype == b.dtype == dtype
            assert torch.allclose(a, b, rtol=FUSED[dtype], atol=FUSED[dtype])


@pytest.mark.parametrize("name", UPDATES)
def test_auto_chooses_by_size(name, monkeypatch):
    from kernels.sgmcmc import compiled

    calls = []

    def spy(formula, given):
        calls.append(formula.__name__)
        return formula(**given)

    monkeypatch.setattr(compiled, "update", spy)
    getattr(sgmcmc, name)(**arguments(name))
    assert calls == []
    monkeypatch.setattr(sgmcmc, "MIN_COMPILED_NUMBERS", 21)
    getattr(sgmcmc, name)(**arguments(name))
    assert calls == [name]


@pytest.mark.parametrize("name", UPDATES)
def test_chains_do_not_meet(name):
    given = arguments(name)
    together = outputs(getattr(naive, name)(**given))
    for c in range(3):
        own = {k: v[c : c + 1] if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        for all_of_them, alone in zip(together, outputs(getattr(naive, name)(**own)), strict=True):
            assert torch.allclose(all_of_them[c : c + 1], alone, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", UPDATES)
def test_a_step_size_a_chain(name):
    given = arguments(name)
    steps = torch.tensor([[0.05], [0.1], [0.2]], dtype=torch.float64)
    together = outputs(getattr(naive, name)(**{**given, "step_size": steps}))
    for c in range(3):
        alone = outputs(getattr(naive, name)(**{**given, "step_size": float(steps[c])}))
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[c], b[c], rtol=0, atol=EXACT)


def test_sghmc_is_chens_equation():
    given = arguments("sghmc")
    given |= {"mass": 1.0, "noise_variance": 0.0}
    eta, alpha = given["step_size"] ** 2, given["momentum_decay"]
    velocity = given["step_size"] * given["momentum"]
    velocity = (1 - alpha) * velocity - eta * given["gradient"]
    velocity = velocity + math.sqrt(2 * alpha * eta * 0.7) * given["noise"]
    position, momentum = naive.sghmc(**given)
    assert torch.allclose(position, given["position"] + velocity, rtol=0, atol=EXACT)
    assert torch.allclose(momentum * given["step_size"], velocity, rtol=0, atol=EXACT)


def test_sghmc_in_springenbergs_notation():
    """Noise of variance 2 lr^2 mdecay / sqrt(V) - lr^4 on the velocity."""
    given = arguments("sghmc") | {"temperature": 1.0}
    second_moment = given["noise_variance"]
    given["mass"] = torch.sqrt(second_moment)
    lr, mdecay = given["step_size"], given["momentum_decay"]
    velocity = lr * given["momentum"] / given["mass"]
    variance = 2 * lr**2 * mdecay / torch.sqrt(second_moment) - lr**4
    velocity = (1 - mdecay) * velocity - lr**2 / torch.sqrt(second_moment) * given["gradient"]
    velocity = velocity + torch.sqrt(variance) * given["noise"]
    assert torch.allclose(naive.sghmc(**given)[0], given["position"] + velocity, rtol=0, atol=EXACT)


def test_decay_is_raised_exactly_where_noise_would_be_negative():
    """sqrt(V) > 2 mdecay / lr^2 = 200 at a common setting."""
    root = torch.tensor([[10.0, 199.0, 201.0, 355.0, 1e6]], dtype=torch.float64)
    decay = naive.sufficient_decay(0.01, 0.01, root, root.square(), 1.0)
    assert (decay > 0.01).tolist() == [[False, False, True, True, True]]
    variance = 2 * decay * root - 0.01**2 * root.square()
    assert bool((variance[:, :4] >= -1e-12 * root[:, :4]).all())
    assert float(decay[0, 3]) == pytest.approx(0.01**2 * 355 / 2)
    assert float(decay[0, 4]) == 1.0
    assert bool((naive.sufficient_decay(0.01, 0.01, root, root.square(), 0.0) == 0.01).all())
    at_zero = naive.sufficient_decay(0.01, 0.01, root, root.square(), torch.tensor(0.0).double())
    assert bool((at_zero == 0.01).all())


def test_merged_baoab_is_b_a_o_a_b():
    """Ten steps with the half kicks written out, on a quartic."""
    given = arguments("baoab")
    h, c = given["step_size"], math.exp(-0.8 * 0.1)
    q, p = given["position"], given["momentum"]
    merged_q, merged_p = q, p + 0.5 * h * q**3
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        noise = torch.randn(q.shape, dtype=q.dtype, generator=generator)
        p = p - 0.5 * h * q**3
        q = q + 0.5 * h * p
        p = c * p + math.sqrt(0.7 * (1 - c**2)) * noise
        q = q + 0.5 * h * p
        p = p - 0.5 * h * q**3
        merged_q, merged_p = naive.baoab(merged_q, merged_p, merged_q**3, noise, h, 0.8, 0.7)
    assert torch.allclose(merged_q, q, rtol=0, atol=1e-12)
    assert torch.allclose(merged_p - 0.5 * h * q**3, p, rtol=0, atol=1e-12)


def test_without_friction_baoab_turns_back():
    """Leapfrog is reversible: back with the momentum turned, to the start."""
    given = arguments("baoab")
    h, q, p = 0.1, given["position"], given["momentum"]
    none = torch.zeros_like(q)
    start = q.clone()
    for _ in range(20):
        q, p = naive.baoab(q, p, q**3, none, h, 0.0, 0.7)
    p = -(p - h * q**3)
    for _ in range(20):
        q, p = naive.baoab(q, p, q**3, none, h, 0.0, 0.7)
    assert torch.allclose(q, start, rtol=0, atol=1e-12)


def test_thermostat_at_rest_is_baoab():
    """With zeta fixed at A and an immovable thermostat, SGNHT is BAOAB of friction A."""
    shape = (2, 100_000)  # the thermostat moves by the mean over P: small at T
    generator = torch.Generator().manual_seed(0)
    q, p, g, xi = torch.randn(4, *shape, dtype=torch.float64, generator=generator)
    h, friction = 1e-3, 0.8
    zeta = torch.full((2, 1), friction, dtype=torch.float64)
    mine = naive.sgnht(q, p, zeta, g, xi, h, friction, 1.0)
    theirs = naive.baoab(q, p, g, xi, h, friction, 1.0)
    shift = float((mine[2] - zeta).abs().max())
    assert shift < 1e-4
    tolerance = 10 * h * shift  # friction off by the shift for a time h, on numbers up to 5
    assert torch.allclose(mine[1], theirs[1], rtol=0, atol=tolerance)


def test_thermostat_variance_is_smooth_at_zero():
    """(1 - e^-x)/x by series and by expm1 meet; both agree with the exact noise."""
    given = arguments("sgnht", (1, 2)) | {"gradient": torch.zeros(1, 2).double()}
    given["momentum"] = torch.full((1, 2), math.sqrt(0.7), dtype=torch.float64)  # no turn at T
    base = {}
    for zeta in (-1e-3, -4.9e-4, 0.0, 4.9e-4, 5.1e-4, 1e-3):
        given["thermostat"] = torch.full((1, 1), zeta, dtype=torch.float64)
        noisy = naive.sgnht(**given)[1]
        still = naive.sgnht(**{**given, "noise": torch.zeros(1, 2).double()})[1]
        base[zeta] = float(((noisy - still) / given["noise"]).mean())
        rate = 2 * 0.1 * zeta
        exact = 2 * 0.8 * 0.7 * 0.1 * (-math.expm1(-rate) / rate if rate else 1.0)
        assert base[zeta] ** 2 == pytest.approx(exact, rel=1e-8)


def test_mclmc_kick_is_the_flow():
    """Half a kick, twice without noise, against the differential equation on the sphere."""
    given = arguments("mclmc", (4, 5))
    n, e = 5, given["gradient"]
    u = given["direction"].clone()
    steps = 20_000
    h = given["step_size"] / steps

    def flow(u):
        return -(e - (u * e).sum(1, keepdim=True) * u) / (0.7 * (n - 1))

    for _ in range(steps):
        u = u + h * flow(u + 0.5 * h * flow(u))  # midpoint: error h^2 = 2.5e-11
    given["noise"] = torch.zeros_like(u)
    position, direction = naive.mclmc(**given)
    assert torch.allclose(direction, u, rtol=0, atol=1e-9)
    assert torch.allclose(position - given["position"], given["step_size"] * u, rtol=0, atol=1e-9)


def test_mclmc_survives_any_gradient():
    given = arguments("mclmc")
    for scale in (0.0, 1e-300, 1e100):
        result = naive.mclmc(**{**given, "gradient": scale * given["gradient"].sign()})
        assert all(bool(torch.isfinite(v).all()) for v in result)
        assert torch.allclose(result[1].norm(dim=1), torch.ones(3).double(), rtol=0, atol=EXACT)


def test_scale_adaptation_averages():
    """Constant gradient: both averages reach it and the window shrinks to 1; pure noise: it
    grows by one a step."""
    shape = (2, 3)
    window, mean, moment = torch.ones(3, *shape, dtype=torch.float64)
    for _ in range(200):
        window, mean, moment = naive.scale_adaptation(window, mean, moment, torch.full(shape, 3.0))
    assert torch.allclose(mean, torch.full(shape, 3.0).double(), atol=1e-6)
    assert torch.allclose(moment, torch.full(shape, 9.0).double(), atol=1e-5)
    assert float((window - 1).abs().max()) < 1e-5
    window, mean = torch.full(shape, 7.0).double(), torch.zeros(shape).double()
    assert float(naive.scale_adaptation(window, mean, moment, moment)[0].mean()) == 8.0
