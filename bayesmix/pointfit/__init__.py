"""Point fits of this package's law and of its rivals, with one interface."""

from bayesmix.pointfit.bootstrap import Bootstrap
from bayesmix.pointfit.result import POINT_LAWS, PointFit, point_fit

__all__ = ["POINT_LAWS", "Bootstrap", "PointFit", "point_fit"]
