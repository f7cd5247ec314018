"""Functional priors, SG-MCMC samplers, Bayesian neural networks and forecasters.

Nothing is here yet: the packages `kernels` and `moe_stats` come first.
"""
