"""bayesmix: Bayesian laws of data mixing, with honest intervals."""
