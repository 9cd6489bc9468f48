"""bayesmix: Bayesian laws of data mixing, with honest intervals."""

import lazy_loader

# PyMC and ArviZ take seconds to import: the names of `__init__.pyi` are imported when first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
