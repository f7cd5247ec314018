"""Maximum likelihood: starts, EM, Newton, moves between basins, certificate.

`mle.fit_mle` is the way in; `maximize.py` shows the order of things.
"""
