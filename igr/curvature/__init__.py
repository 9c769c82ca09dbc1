"""Matrix-free curvature: products of the Hessian and its kin, and what can be read from them."""

from igr.curvature.eigenpairs import Eigenpairs, top_eigenpairs
from igr.curvature.hessian import hessian_product
from igr.curvature.sharpness import Sharpness, sharpness

__all__ = ["Eigenpairs", "Sharpness", "hessian_product", "sharpness", "top_eigenpairs"]
