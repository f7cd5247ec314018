"""Columns of a table as arrays of numbers: times, measurements, wind directions."""

from __future__ import annotations

import numpy as np
import pandas as pd

COMPASS = tuple("N NNE NE ENE E ESE SE SSE S SSW SW WSW W WNW NW NNW".split())  # noqa: SIM905


def hours_of(column: pd.Series, name: str) -> tuple[np.ndarray, bool]:
    """Hours since 1970-01-01 00:00 (N,), and whether the times have a time zone.

    Examples
    --------
    >>> hours_of(pd.Series(["1970-01-02", "1970-01-02 01:30"]), "time")
    (array([24. , 25.5]), False)
    """
    if pd.api.types.is_numeric_dtype(column):
        raise ValueError(
            f"The column {name!r} must hold dates; got numbers, first {column.iloc[0]!r}. "
            "Convert them with pandas.to_datetime."
        )
    try:
        times = pd.to_datetime(column, format="ISO8601")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The column {name!r} must hold dates of one time zone or of none, as datetimes or "
            f"ISO 8601 text; got one that is not ({str(error).splitlines()[0]}) "
            "Convert it with pandas.to_datetime, with utc=True if time zones are mixed."
        ) from error
    if times.isna().any():
        raise ValueError(
            f"The column {name!r} must have no missing times; got {times.isna().sum()}."
        )
    aware = times.dt.tz is not None
    naive = times.dt.tz_convert("UTC").dt.tz_localize(None) if aware else times
    return naive.to_numpy("datetime64[us]").astype(np.int64) / 3.6e9, aware


def numbers_of(column: pd.Series, name: str, finite: bool = False) -> np.ndarray:
    """Numbers (N,); NaN where missing, which ``finite`` refuses."""
    if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
        raise ValueError(f"The column {name!r} must be numeric; got {column.dtype}.")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(values) if finite else np.isinf(values)
    if wrong.any():
        raise ValueError(
            f"The column {name!r} must be finite{'' if finite else ' or NaN'}; got "
            f"{values[wrong][0]} in {wrong.sum()} rows, first row {int(np.flatnonzero(wrong)[0])}."
        )
    return values


def angle_of(column: pd.Series, name: str) -> np.ndarray:
    """Radians clockwise from north of 16-point directions (N,), NaN where missing.

    Examples
    --------
    >>> angle_of(pd.Series(["N", "e", None]), "wind").round(3)
    array([0.   , 1.571,   nan])
    """
    text = column.astype("object").where(column.notna(), None)
    point = text.map(lambda value: value.strip().upper() if isinstance(value, str) else value)
    code = pd.Index(COMPASS).get_indexer(pd.Index(point, dtype="object"))
    wrong = (code < 0) & point.notna().to_numpy()
    if wrong.any():
        raise ValueError(
            f"The covariate {name!r} must be numeric or a 16-point wind direction such as 'NNW'; "
            f"got {column[wrong].iloc[0]!r}. Encode other text as numbers first."
        )
    return np.where(code >= 0, code * (2 * np.pi / 16), np.nan)
