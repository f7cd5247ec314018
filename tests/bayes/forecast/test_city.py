"""The synthetic city solves its equation, has its cycles, and knows its truth."""

import numpy as np
import pandas as pd
import pytest

from bayes.forecast import city as city_module
from bayes.forecast.city import INSTRUMENT_BIAS, NOISE, SCHEMA, synthetic_city
from bayes.forecast.records import read_records


@pytest.fixture(scope="module")
def city():
    return synthetic_city(n_sensors=16, days=28, random_state=0)


def test_it_is_a_table_that_can_be_read(city):
    records = read_records(city, SCHEMA)
    assert records.n_sensors == 18
    assert records.reference.step == 1.0
    assert np.ptp(records.position, axis=0).max() <= city_module.CITY + 0.1
    assert city.pm25.min() > 0


def test_same_key_same_city(city):
    pd.testing.assert_frame_equal(synthetic_city(16, 28, 0), city)
    assert not synthetic_city(16, 28, 1).truth.equals(city.truth)


def test_errors_are_those_promised(city):
    """log(pm25 / truth) less the sensor's mean: standard deviation NOISE. 9,000 rows: relative
    standard error .75%; bound 6 of them. Means by sensor: sd INSTRUMENT_BIAS over 18 sensors,
    chi-square bounds at 1e-6 either side."""
    seen = city.dropna(subset="pm25")
    error = np.log(seen.pm25 / seen.truth)
    own = error.groupby(seen.sensor).transform("mean")
    assert (error - own).std() == pytest.approx(NOISE, rel=0.045)
    assert 0.3 < error.groupby(seen.sensor).mean().std() / INSTRUMENT_BIAS < 2.0


def test_share_lost_is_as_asked(city):
    fixed = city[city.kind == "fixed"]
    assert fixed.pm25.isna().mean() == pytest.approx(0.15, abs=0.005)
    assert city[city.kind == "vehicle"].pm25.notna().all()
    assert synthetic_city(3, 3, 0, missing=0.0, n_vehicles=0).pm25.notna().all()


def test_days_and_places_differ(city):
    fixed = city[city.kind == "fixed"]
    by_hour = fixed.groupby(fixed.time.dt.hour).truth.mean()
    assert by_hour[[8, 19, 20]].min() > 1.2 * by_hour[[13, 14, 15]].max()
    traffic = city.groupby(city.time.dt.day_of_week).traffic.mean()
    assert traffic[[5, 6]].max() < 0.8 * traffic[[0, 1, 2, 3, 4]].min()
    wide = fixed.pivot(index="time", columns="sensor", values="truth")
    position = fixed.groupby("sensor")[["latitude", "longitude"]].first().to_numpy()
    apart = np.linalg.norm(position[:, None] - position[None], axis=-1)
    pair = np.triu_indices(16, 1)
    near = wide.corr().to_numpy()[pair][np.argsort(apart[pair])]
    assert near[:20].mean() > near[-20:].mean() + 0.1


def test_vehicles_drive_by_day(city):
    own = city[city.sensor == "V00"]
    assert sorted(own.time.dt.hour.unique()) == list(range(5, 23))
    assert own.latitude.nunique() > 0.9 * len(own)


def test_modes_solve_advection_diffusion():
    """Constant wind and emission: the exact solution on the torus is stationary,
    0 = (-D k^2 - lambda - i u k) m + e shape, and is reached whatever came before; a wind
    reversed must not solve it."""
    rng = np.random.default_rng(0)
    weather = city_module._weather(400, rng)
    weather[["east", "north", "traffic"]] = 5.0, -2.0, 0.5
    modes = city_module._mass(weather, np.random.default_rng(1))
    np.testing.assert_allclose(modes[-1], modes[-2], rtol=1e-9, atol=1e-12)
    k = city_module._wave_numbers()
    advect = 5.0 * k[:, None] - 2.0 * k[None]
    loss = city_module.DIFFUSION * (k[:, None] ** 2 + k[None] ** 2) + city_module.DEPOSITION
    source = (loss + 1j * advect) * modes[-1]
    real = np.fft.fft2(np.fft.ifftshift(source)).real  # the field of the sources
    assert real.min() > -0.1 * real.max()
    wrong = np.fft.fft2(np.fft.ifftshift((loss - 1j * advect) * modes[-1])).real
    assert wrong.min() < -0.1 * wrong.max()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="'n_sensors' parameter must be an int"):
        synthetic_city(0)
    with pytest.raises(ValueError, match="'missing' parameter"):
        synthetic_city(3, missing=1.0)
