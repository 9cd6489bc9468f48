"""bayesmix: Bayesian laws of data mixing, with honest intervals."""

import copyreg
import importlib
import sys
from importlib.metadata import version

import lazy_loader

__version__ = version(__name__)
# PyMC and ArviZ take seconds to import: the names of `__init__.pyi` are imported when first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# joblib sends a function of a script or notebook with the modules that it names: as any other
# module this one goes by its name
copyreg.pickle(type(sys.modules[__name__]), lambda it: (importlib.import_module, (it.__name__,)))
