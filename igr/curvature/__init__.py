"""Matrix-free curvature: products with the Hessian and related matrices, and their eigenvalues."""

from igr.curvature.eigenpairs import Eigenpairs, top_eigenpairs
from igr.curvature.gauss_newton import fisher_product, gauss_newton_product
from igr.curvature.hessian import hessian_product
from igr.curvature.options import EigenpairsOptions, SearchOptions
from igr.curvature.sgd_stability import SGDStability, sgd_stability
from igr.curvature.sharpness import Sharpness, sharpness
from igr.curvature.spectrum import Estimate, SpectralDensity, spectral_density, trace

__all__ = [
    "Eigenpairs",
    "EigenpairsOptions",
    "Estimate",
    "SGDStability",
    "SearchOptions",
    "Sharpness",
    "SpectralDensity",
    "fisher_product",
    "gauss_newton_product",
    "hessian_product",
    "sgd_stability",
    "sharpness",
    "spectral_density",
    "top_eigenpairs",
    "trace",
]
