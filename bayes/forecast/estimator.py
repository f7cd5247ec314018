"""CGLU-BNF: a Bayesian space-time forecaster for incomplete data.

The paper fixes the outline: Fourier features with a graph attention encoder, channel gated learning
units with learned activations and gated residuals, MAP ensembles. The rest is this project's own
design, and its results are not the paper's: a context of observed neighbours condensed by a
Gaussian process (`kriging`), training under hidden stretches (`views`), recalibration of held-out
probabilities (`recalibration`).

References
----------
Tackling incomplete data in air quality prediction (2025), arXiv 2511.02175.
Saad et al. (2024), Scalable spatiotemporal prediction with Bayesian neural fields.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from kernels.checks import check_choice, check_int, check_real

from .._validation import torch_generator
from ..storage import understanding
from .architecture import Architecture
from .architecture.activation import ACTIVATIONS
from .calibration import central_levels, check_levels
from .context import N_GROUPS
from .fitting import climate_of, held_out_law, prepare, recalibrate
from .inference import DRAWS
from .likelihoods import LIKELIHOODS
from .predictive import Predictive
from .recalibration import Recalibration
from .records import Records, Schema, read_records
from .sampling import sample_rows
from .scores import CRPS_LEVELS, LEVELS, crps_quantiles
from .seasons import HALF_DAY, check_seasons
from .storage import load_model, save_model
from .training import Plan, Progress, train

BATCH, STEP_SIZE, PATIENCE = 512, 5e-3, 5


class CGLUBNF(BaseEstimator):
    """Forecasts, gap filling and mapping with calibrated uncertainty.

    Parameters
    ----------
    time : str
        Column of times.
    coords : sequence of str
        Columns of coordinates; latitude and longitude are recognised by name (`Schema`).
    target : str
    covariates : sequence of str
        May be missing in places, when training and when predicting.
    sensor : str, optional
        Column that identifies the instrument; without it, places with many rows are sensors.
    freq : str, optional
        Sampling step; found from the times if not given.
    seasonality : "auto", None or sequence of float
        Periods in hours; day, week and year as far as the record spans them twice.
    likelihood : str
        See `likelihoods`; ``"auto"`` needs no choice and keeps non-negative targets so.
    inference : {"map", "mle", "vi", "laplace", "sgmcmc"}
    ensemble_size : int
        M.
    context : bool
        Whether predictions use observed neighbours. Without it the model is a field: coordinates
        in, distribution out.
    attention, gating, heteroscedastic, interactions : bool
        Parts that can be off: attention to neighbours, channel gated units (dense layers instead),
        a scale for each row, products of coordinates.
    degree : int
        Octaves of Fourier features of the coordinates, 0 for none.
    activations : sequence of str
        Mixed by the learned activation.
    climate : bool
        Whether forecasts far from all observations lean on the seasons of the record (`climate`).
    recalibrate : bool
        Whether probabilities are made to match those of held-out values (`recalibration`).
    width, depth : int
        Of the network's body.
    n_updates : int
        About how many steps of the optimiser.
    random_state : int, Generator or None
    device : str
        Where the network is trained.

    Attributes
    ----------
    model_ : Model
    history_ : list of Progress

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> times = pd.date_range("2024-01-01", periods=200, freq="h")
    >>> df = pd.DataFrame({"time": np.repeat(times, 3), "x": np.tile([0.0, 1.0, 5.0], 200)})
    >>> df["pm25"] = 20 + 10 * np.sin(np.arange(600) / 40) + rng.normal(size=600)
    >>> model = CGLUBNF("time", ["x"], "pm25", n_updates=20, random_state=0).fit(df[::2])
    >>> model.predict_interval(df[1::2], coverage=[0.5]).columns.tolist()
    [(0.5, 'low'), (0.5, 'high')]
    """

    def __init__(
        self,
        time: str,
        coords: Sequence[str],
        target: str,
        covariates: Sequence[str] = (),
        sensor: str | None = None,
        freq: str | None = None,
        seasonality: Any = "auto",
        likelihood: str = "auto",
        inference: str = "map",
        ensemble_size: int = 4,
        context: bool = True,
        attention: bool = True,
        gating: bool = True,
        heteroscedastic: bool = True,
        interactions: bool = False,
        degree: int = 1,
        activations: Sequence[str] = ("elu", "tanh", "silu", "identity"),
        climate: bool = True,
        recalibrate: bool = True,
        width: int = 64,
        depth: int = 2,
        n_updates: int = 400,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.time = time
        self.coords = coords
        self.target = target
        self.covariates = covariates
        self.sensor = sensor
        self.freq = freq
        self.seasonality = seasonality
        self.likelihood = likelihood
        self.inference = inference
        self.ensemble_size = ensemble_size
        self.context = context
        self.attention = attention
        self.gating = gating
        self.heteroscedastic = heteroscedastic
        self.interactions = interactions
        self.degree = degree
        self.activations = activations
        self.climate = climate
        self.recalibrate = recalibrate
        self.width = width
        self.depth = depth
        self.n_updates = n_updates
        self.random_state = random_state
        self.device = device

    @classmethod
    def bayesnf(cls, time: str, coords: Sequence[str], target: str, **settings: Any) -> CGLUBNF:
        """A Bayesian neural field: this model with its own parts off.

        Harmonics, Fourier features and products of coordinates; dense layers with a mixture of elu
        and tanh; a normal likelihood with one scale; no context, no recalibration, all of the data
        for each member, no early stopping.
        """
        off = {
            "context": False,
            "attention": False,
            "gating": False,
            "heteroscedastic": False,
            "interactions": True,
            "degree": 5,
            "activations": ("elu", "tanh"),
            "likelihood": "normal",
            "climate": False,
            "recalibrate": False,
            "width": 256,
            "n_updates": 2000,
        }
        return cls(time, coords, target, **{**off, **settings})

    def fit(
        self,
        df: pd.DataFrame,
        validation: pd.DataFrame | None = None,
        callback: Callable[[Progress], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn from the rows with a known target.

        Parameters
        ----------
        df : DataFrame
        validation : DataFrame or None
            Rows that decide when to stop and that recalibrate, given ``df``. Without it each member
            holds out blocks of time.
        callback : callable or None
            Called with a `training.Progress` after every epoch.
        checkpoint : path or None
            Written after every epoch; training goes on from it if it is there.

        Raises
        ------
        ValueError
            If a parameter or the table breaks a rule; the sentence names it.
        """
        self._check()
        schema = Schema(
            self.time, self.coords, self.target, self.covariates, self.sensor, self.freq
        )
        records = read_records(df, schema)
        likelihood = LIKELIHOODS[self.likelihood]()
        likelihood.check(records)
        held = None
        if validation is not None:
            held = _known(read_records(validation, schema, records.reference))
        records = _known(records)
        step, span = records.reference.step, float(np.ptp(records.hours))
        generator = torch_generator(self.random_state)
        problem = prepare(
            records,
            held,
            likelihood,
            check_seasons(self.seasonality, step, span),
            Architecture(
                width=self.width,
                depth=self.depth,
                degree=self.degree,
                context=self.context,
                attention=self.attention,
                gating=self.gating,
                heteroscedastic=self.heteroscedastic,
                interactions=self.interactions,
                activations=tuple(self.activations),
            ),
            self.ensemble_size,
            self.recalibrate or self.context,
            generator,
        )
        plan = Plan(
            self.n_updates, BATCH, STEP_SIZE, PATIENCE, float(self.inference != "mle"), len(records)
        )
        model, targets = problem.model, problem.targets.to(self.device)
        network = model.network.to(self.device)
        self.history_ = train(
            network, targets, problem.log_prob, plan, generator, callback, checkpoint
        )
        draw = DRAWS[self.inference]
        if draw is not None:
            network = draw(network, targets, problem.log_prob, plan, generator)
        model.network = network.to("cpu")
        if self.recalibrate or (self.climate and self.context):
            law, outside = held_out_law(problem)
            if self.climate and self.context:
                model.climate = climate_of(problem, law, outside)
            if self.recalibrate:
                model.recalibration = recalibrate(problem, law, outside)
        self.model_ = model
        return self

    def predict(
        self,
        df: pd.DataFrame,
        statistic: str = "median",
        observed: pd.DataFrame | None = None,
    ) -> pd.Series:
        """Medians or means, with the index of ``df``.

        Parameters
        ----------
        df : DataFrame
            Its target, if there is one, is not looked at.
        statistic : {"median", "mean"}
        observed : DataFrame or None
            Rows with a known target to look at besides those of training, such as what has been
            measured since. Neither these nor training rows at a row's own time and sensor, or time
            and place, count for that row.
        """
        check_choice("statistic", statistic, ("median", "mean"))
        records, predictive = self._predictive(df, observed)
        values = (
            predictive.mean() if statistic == "mean" else predictive.quantile(np.array([0.5]))[:, 0]
        )
        return pd.Series(records.restore(values), index=df.index, name=self.target)

    def predict_quantiles(
        self,
        df: pd.DataFrame,
        alpha: Sequence[float] = tuple(LEVELS),
        observed: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Quantiles at levels ``alpha`` in (0, 1), one column a level, with the index of ``df``."""
        check_levels(np.unique(alpha), straddle=False)
        records, predictive = self._predictive(df, observed)
        values = records.restore(predictive.quantile(np.asarray(alpha, np.float64)))
        return pd.DataFrame(values, index=df.index, columns=list(alpha))

    def predict_interval(
        self,
        df: pd.DataFrame,
        coverage: Sequence[float] = (0.9,),
        observed: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Central intervals; columns (coverage, "low") and (coverage, "high")."""
        out = self.predict_quantiles(df, central_levels(coverage), observed)
        out.columns = pd.MultiIndex.from_product([coverage, ["low", "high"]])
        return out

    def predict_exceedance(
        self, df: pd.DataFrame, threshold: float, observed: pd.DataFrame | None = None
    ) -> pd.Series:
        """Probabilities that the target is above a threshold."""
        check_real("threshold", threshold)
        records, predictive = self._predictive(df, observed)
        values = 1 - predictive.cdf(np.full(len(records), float(threshold)))
        return pd.Series(records.restore(values), index=df.index, name=self.target)

    def predict_variance(
        self, df: pd.DataFrame, observed: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Columns ``epistemic`` (between members) and ``aleatoric`` (within), not recalibrated."""
        records, predictive = self._predictive(df, observed)
        epistemic, aleatoric = predictive.variances()
        return pd.DataFrame(
            {"epistemic": records.restore(epistemic), "aleatoric": records.restore(aleatoric)},
            index=df.index,
        )

    def sample(
        self,
        df: pd.DataFrame,
        n: int = 100,
        random_state: Any = None,
        observed: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Joint draws of all rows, one column a draw; `sampling` says how rows depend."""
        check_int("n", n, 1)
        records, predictive, more = self._read(df, observed)
        draws = sample_rows(
            self.model_, records, predictive, more, n, torch_generator(random_state)
        )
        return pd.DataFrame(records.restore(draws), index=df.index)

    def calibrate(self, df: pd.DataFrame) -> Self:
        """Recalibrate on rows with a known target that the model was not trained on.

        It replaces the calibration of `fit`. The rows are predicted from the training rows alone.
        """
        records, predictive = self._predictive(df, None)
        known = np.flatnonzero(records.observed)
        if not len(known):
            raise ValueError(f"The target {self.target!r} must be known somewhere; got NaN alone.")
        self.model_.recalibration = Recalibration.fit(
            predictive.probabilities(records.target)[known],
            predictive.group[known],
            np.floor(records.hours[known] / HALF_DAY),
            N_GROUPS,
        )
        return self

    def score(self, df: pd.DataFrame) -> float:
        """Minus the mean CRPS over the rows with a known target: higher is better."""
        records, predictive = self._predictive(df, None)
        known = records.observed
        quantiles = predictive.quantile(CRPS_LEVELS)[known]
        return -float(np.mean(crps_quantiles(records.target[known], quantiles, CRPS_LEVELS)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file, whole or not at all; nothing is pickled.

        Raises
        ------
        StorageError
            If it cannot be written; what was there is intact.
        """
        check_is_fitted(self, "model_")
        settings = self.get_params(deep=False)
        if not isinstance(settings["random_state"], int | None):
            settings["random_state"] = None
        save_model(self.model_, settings, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CGLUBNF:
        """Read a model that `save` wrote.

        Raises
        ------
        FileNotFoundError
        StorageError
            If the file is torn, changed, of another kind or of another version, or holds no such
            model.
        """
        model, settings = load_model(path)
        with understanding(path):
            estimator = cls(**settings)
        estimator.model_ = model
        return estimator

    def _predictive(
        self, df: pd.DataFrame, observed: pd.DataFrame | None
    ) -> tuple[Records, Predictive]:
        return self._read(df, observed)[:2]

    def _read(
        self, df: pd.DataFrame, observed: pd.DataFrame | None
    ) -> tuple[Records, Predictive, Records | None]:
        check_is_fitted(self, "model_")
        reference = self.model_.records.reference
        records = read_records(df, reference.schema, reference)
        more = None if observed is None else read_records(observed, reference.schema, reference)
        return records, self.model_.predict(records, more), more

    def _check(self) -> None:
        check_choice("likelihood", self.likelihood, tuple(LIKELIHOODS))
        check_choice("inference", self.inference, tuple(DRAWS))
        check_int("ensemble_size", self.ensemble_size, 1)
        check_int("width", self.width, 1)
        check_int("depth", self.depth, 1)
        check_int("degree", self.degree, 0)
        check_int("n_updates", self.n_updates, 1)
        for name in self.activations:
            check_choice("activations", name, tuple(ACTIVATIONS))


def _known(records: Records) -> Records:
    return records.take(records.observed)
