"""Functional priors, SG-MCMC samplers, Bayesian neural networks and forecasters.

`bayes.networks` evaluates many weight draws of a network at once, `bayes.priors` gives it the prior
of a Gaussian process, `bayes.samplers` draws from posteriors.
"""
