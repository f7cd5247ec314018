"""
A CSV with holes to a calibrated map
====================================

Sensors of a city, a sixth of whose readings is lost, and the concentration where nobody measured.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bayes import CGLUBNF
from bayes.forecast import synthetic_city

# %%
# The table
# ---------
# A synthetic city stands in for yours: any CSV file with times, coordinates and a target will do.

path = Path(tempfile.mkdtemp()) / "city.csv"
synthetic_city(n_sensors=8, days=10, random_state=4, n_vehicles=0).to_csv(path, index=False)
table = pd.read_csv(path, parse_dates=["time"])
print(f"{table['pm25'].isna().mean():.0%} of {len(table)} readings are lost")

# %%
# The model
# ---------
# Column names are all it needs. Two networks and few steps keep this page quick; the defaults take
# about a minute and forecast better.

model = CGLUBNF(
    time="time",
    coords=["latitude", "longitude"],
    target="pm25",
    sensor="sensor",
    ensemble_size=2,
    n_updates=100,
    random_state=0,
).fit(table)

# %%
# Calibration
# -----------
# Of the lost readings the truth is known here, for once. Intervals are for readings, which have an
# error of their own, so they hold the truth more often than they say.

lost = table[table["pm25"].isna()]
intervals = model.predict_interval(lost, coverage=[0.5, 0.9])
for share in (0.5, 0.9):
    inside = lost["truth"].between(intervals[share, "low"], intervals[share, "high"])
    print(f"{share:.0%} intervals hold {inside.mean():.0%} of {len(lost)} lost values")

# %%
# The map
# -------
# Rows for places without a sensor, at the hour at which most was lost.

moment = lost["time"].value_counts().index[0]
now = table[table["time"] == moment]
side = {
    name: np.linspace(table[name].min() - 0.02, table[name].max() + 0.02, 16)
    for name in ("latitude", "longitude")
}
latitude, longitude = (axis.ravel() for axis in np.meshgrid(*side.values(), indexing="ij"))
places = pd.DataFrame({"time": moment, "latitude": latitude, "longitude": longitude})
places["sensor"] = [f"place {i}" for i in range(len(places))]
interval = model.predict_interval(places, coverage=[0.9])[0.9]
maps = {
    "median": model.predict(places),
    "width of 90% interval": interval["high"] - interval["low"],
}

fig, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
on = now["pm25"].notna()
for ax, (title, values) in zip(axes, maps.items(), strict=True):
    field = values.to_numpy().reshape(16, 16)
    image = ax.pcolormesh(side["longitude"], side["latitude"], field, cmap="cividis")
    ax.plot(now["longitude"][on], now["latitude"][on], "wo", mec="k", label="measures")
    ax.plot(now["longitude"][~on], now["latitude"][~on], "rX", mec="k", label="is off")
    ax.set(title=f"{title} (ug/m3)", xlabel="longitude")
    fig.colorbar(image)
axes[0].set_ylabel("latitude")
axes[0].legend()
plt.show()
