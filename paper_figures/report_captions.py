"""What the report says below the figures of a study: what is drawn, in which units."""

from __future__ import annotations

_FORECAST_INTERVALS = "bars are 95% intervals over blocks of days"

CAPTIONS: dict[str, dict[str, str]] = {
    "coverage": {
        "coverage": "Share of replicates whose nominal interval holds the truth, a row a "
        "parameter, with 95% Wilson intervals. Dashed: the nominal level; grey: two points on "
        "either side. Controls have standard errors that are too short on purpose.",
    },
    "forecast": {
        "scores": "CRPS and interval score in the unit of the target (less is better), and the "
        f"share of hidden values inside 95% intervals; {_FORECAST_INTERVALS}.",
        "worth": "How far the CRPS of each other model is above the first's, in percent of the "
        "first's, with standard errors.",
        "rates": "CRPS in the unit of the target, and coverage of 95% intervals, against the share "
        f"of values hidden; {_FORECAST_INTERVALS}.",
        "horizon": "CRPS in the unit of the target, and coverage of 95% intervals, by hours since "
        f"the last observation; {_FORECAST_INTERVALS}.",
        "gap": "CRPS in the unit of the target, and coverage of 95% intervals, by length of the "
        f"gap in hours; {_FORECAST_INTERVALS}.",
        "reliability": "Share of hidden values below a forecast quantile less the quantile's "
        "level: 0 where a forecaster is calibrated.",
        "series": "Forecasts of what was hidden from a sensor, in the unit of the target, with "
        "50% and 90% intervals.",
        "places": "Means over hidden values at each place, in the unit of the target: truth, "
        "forecast median, width of the 90% interval. Triangles were observed.",
    },
    "functional_prior": {
        "functions": "Functions drawn from each prior along a line through the inputs, in units "
        "of the output.",
        "classes": "Class probabilities drawn from each prior along a line through the inputs.",
        "distances": "Distances between the laws of functions of each prior and of the target, in "
        "units of the output, with 95% intervals; dashed: upper limit of the target's distance "
        "from itself.",
        "seconds": "Energy distance to the target, in units of the output, against CPU seconds of "
        "matching on one thread.",
    },
    "likelihood": {
        "likelihood": "Left and middle: score and Hessian beside what the Fisher information I "
        "says, in units of I, against sample size n: medians over replicates with their middle "
        "80%, n^(-1/2) dashed. Right: mean score statistic over its degrees of freedom with 95% "
        "intervals, 1 where the covariance of the score is the information.",
    },
    "posterior": {
        "bands": "Posterior of a network's function under each prior (median and 90% band) over "
        "that of the Gaussian process, in units of the output.",
        "scores": "Above: scores of each split in their own units. Below: mean differences to the "
        "baseline on the same splits, with 90% intervals.",
    },
    "rates": {
        "rates": "Errors against sample size n, each in its own unit, both axes logarithmic: "
        "medians over replicates with their middle 80%; solid: the fitted power law with the 95% "
        "interval of its slope; dashed: what was predicted.",
        "moving": "Errors of the experts that move with n beside those of the experts that stay, "
        "in units of the parameters, medians and .9 quantiles over replicates. Dashed: the rate at "
        "a fixed truth; dotted: the one at which the truth moves.",
        "levels": "Left: Hellinger distance of fits against sample size n, beside the smallest "
        "that the family has near the truth's atoms and anywhere. Right: gate probabilities of the "
        "closest models over the truth's.",
        "temperature": "Absolute errors of temperature, gate slopes and their quotient against "
        "sample size n, medians with the middle 80% of replicates; last: profile log-likelihood of "
        "the temperature, in nats below its maximum.",
        "estimators": "Ways of fitting on the same data, against sample size n: log-likelihood "
        "above the truth's in nats, mass of the lightest expert, largest intercept deviation in "
        "units of y (medians with the middle 80%), share of fits with cells as supposed (95% "
        "intervals).",
    },
    "sampler_bias": {
        "bias": "Bias of a statistic against the size of a sampler's step, with intervals of two "
        "standard errors, a panel an arm. Solid: closed form; dashed: fit of the stated order.",
    },
    "sampler_speed": {
        "speed": "Steps of all chains in a processor second against the number of chains: medians "
        "over timings, bars their least and largest.",
    },
    "selection": {
        "selection": "Share of data sets with the true number of experts chosen, with 95% Wilson "
        "intervals, against sample size n, a panel a true number.",
    },
}
"""Kind of study, then the first word of a figure's name after its profile, to the caption."""


def caption_of(kind: str, profile: str, stem: str) -> str:
    """The caption of a figure's file, or its name where it has none.

    Examples
    --------
    >>> caption_of("sampler_speed", "quick", "quick-speed")[:34]
    'Steps of all chains in a processor'
    """
    word = stem.removeprefix(f"{profile}-").partition("-")[0]
    return CAPTIONS.get(kind, {}).get(word, stem)
