"""How an eigenvalue is searched for: options of `igr.curvature.top_eigenpairs` and its kin."""

from __future__ import annotations

from typing import TypedDict

from jaxtyping import PRNGKeyArray

from igr.checks import Count, Number


class SearchOptions(TypedDict, total=False):
    """When a search for eigenvalues ends, and what it draws; None is as if not given.

    Attributes:
        tol: The relative error to reach in each value, 1e-3 if not given; rounding, 10 eps times
            the largest magnitude, counts as reached.
        max_products: The most products to spend, 100 (k + 1) for k eigenpairs if not given; when
            they are spent the result says `converged=False`.
        key: For random starts, `jax.random.key(0)` if not given.
    """

    tol: Number | None
    max_products: Count | None
    key: PRNGKeyArray | None


class EigenpairsOptions(SearchOptions, total=False):
    """What `igr.curvature.top_eigenpairs` takes beside the options of every search.

    Attributes:
        basis_size: The size of the Lanczos basis, at least k + 2 (or the number of parameters);
            k + 14 if not given, for k > 1 the number of parameters up to 128.
        check_symmetric: Whether to compare <u, Av> with <Au, v> first, for one random pair, at the
            price of two products; False if not given.
    """

    basis_size: Count | None
    check_symmetric: bool | None
