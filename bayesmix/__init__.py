"""bayesmix: Bayesian laws of data mixing, with honest intervals."""

from importlib.metadata import version

import lazy_loader

__version__ = version(__name__)
# PyMC and ArviZ take seconds to import: the names of `__init__.pyi` are imported when first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
