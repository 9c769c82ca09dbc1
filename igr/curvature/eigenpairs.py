"""The extreme eigenvalues of a symmetric product, with their eigenvectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Unpack, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from igr.checks import Count, check_choice, check_count, check_step, is_traced
from igr.compiled import compiled, traced
from igr.curvature.lanczos import lanczos
from igr.curvature.operator import wide_product
from igr.curvature.options import EigenpairsOptions
from igr.curvature.ritz import RitzPairs
from igr.curvature.subspace import subspace
from igr.curvature.vectors import (
    Divided,
    cast_like,
    generic_vector,
    inner,
    norm,
    require_like,
    scaled,
    size,
    widened,
    with_row,
    working_dtype,
)
from igr.meshes import on_any_mesh
from igr.options import with_defaults
from igr.progress.late_bar import Ticking, search_bar
from igr.pytrees import require_trained, trained_part
from igr.shown import short, table

SMALL = 128  # parameters: below, the whole space is cheap, and shows repeated eigenvalues
WARM_NOISE = 0.1  # how much of a warm start is random, so that it can turn elsewhere

Method = Literal["lanczos", "subspace"]
Which = Literal["magnitude", "largest", "smallest"]


class Eigenpairs(NamedTuple):
    """Eigenpairs of a symmetric matrix, those asked for first, with bounds on their errors.

    Attributes:
        values: Signed eigenvalues, shape (k,).
        vectors: Orthonormal eigenvectors: a pytree with the structure of the parameters and a
            leading axis of k, None where a leaf is not floating; the `initial` of a next call.
        residuals: |A q - value q|, shape (k,). Some eigenvalue lies within it.
        errors: The bounds on the error of the values by which the solver stopped, shape (k,).
        converged: Whether every error came below the tolerance.
        products: The number of products spent.
    """

    values: Float[Array, " k"]
    vectors: PyTree
    residuals: Float[Array, " k"]
    errors: Float[Array, " k"]
    converged: Bool[Array, ""]
    products: Int[Array, ""]

    __repr__ = short
    _repr_html_ = table


def top_eigenpairs(
    product: Callable[[PyTree], PyTree],
    params: PyTree,
    k: Count,
    *,
    method: Method = "lanczos",
    which: Which = "magnitude",
    initial: PyTree | None = None,
    progress: bool | None = None,
    **options: Unpack[EigenpairsOptions],
) -> Eigenpairs:
    """The k extreme eigenvalues of a symmetric matrix A given by its product v -> Av.

    An eigenvalue counts as found when its error bound is below `tol` times its size. The bound is
    min(r, r^2 / gap), with r = |A q - value q| the residual and the gap that to the nearest other
    eigenvalue known, less the residual of that one; the angle of the vector is of the order
    r / gap. For vectors as good as the values, or close eigenvalues told apart, ask for a smaller
    `tol`.

    "lanczos" needs the fewest products (some 60 for the top ten of a network) and the memory of
    basis_size + 1 vectors and some four more: with the default basis and the parameters k + 20. A
    single start vector shows one copy of an exactly repeated eigenvalue. So where k > 1 and the
    basis does not hold the whole space, a second start with the pairs deflated looks for other
    copies before anything counts as converged: 1.5 log(n) products more, or as many as tell the
    next eigenvalue from the last of the k, and about as many again for every copy it finds; it
    has the rest of the basis for it, and room for 8 vectors at least. "subspace" is the
    simultaneous power iteration of the Metric dissertation, mended; it needs several times the
    products, in the memory of k + 2 vectors and some five more (k + 8 with the parameters; one more
    where the loss scans stacked layers, whose gradients are added up from zeros), sees repeated
    eigenvalues (k of them), and starts best from the vectors of a call before.

    Works inside jit and vmap. `product` is traced at every call, so that what it reads may change
    between calls; arrays it closes over are arguments of the compiled program.

    Args:
        product: Linear and symmetric, on pytrees with the structure of the floating part of
            `params` (None for other leaves).
        params: The pytree whose floating leaves give the shapes and dtypes of vectors. Only these
            are read.
        k: The number of eigenpairs, at most the number of parameters.
        method: "lanczos" or "subspace".
        which: The eigenvalues largest in "magnitude", or (Lanczos only) the algebraically
            "largest" or "smallest".
        initial: Where to start: a vector, or vectors with a leading axis of k, as
            `Eigenpairs.vectors` has.
        progress: Whether to show a bar with the time left; once it has taken some seconds if not
            given. There is none under a transformation such as jit or vmap.
        **options: `EigenpairsOptions`: the relative error to reach, `tol`, the most products to
            spend, `max_products`, a `key` for random starts, the `basis_size` of Lanczos, and
            `check_symmetric`.

    Returns:
        `Eigenpairs`: values, vectors, residuals, errors, converged, products.

    Raises:
        ValueError: If an argument is out of its range, `params` has no floating leaf, `initial`
            does not have its structure, or the product is found not to be symmetric (inside jit,
            equinox's runtime error).
        TypeError: If there is no option of a name that is given.

    >>> import jax.numpy as jnp
    >>> scale = jnp.array([1.0, -4.0, 3.0, 0.5])
    >>> found = top_eigenpairs(lambda v: scale * v, jnp.zeros(4), 2)
    >>> print(found.values.round(3), bool(found.converged))
    [-4.  3.] True

    References:
        Lanczos: Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue
        problems" (2000). Subspace: Metric regularization, section 3.9, Algorithm 1; Zhou and
        Saad, "A Chebyshev-Davidson algorithm for large symmetric eigenproblems" (2007).
    """
    asked = with_defaults(top_eigenpairs, options, tol=1e-3, check_symmetric=False)
    like = require_trained(params)
    n = size(like)
    k = check_count("k", k, 1, n, ", the number of parameters")
    check_choice("method", method, get_args(Method))
    check_choice("which", which, get_args(Which))
    if method == "subspace" and which != "magnitude":
        raise ValueError(
            f"which={which!r} needs method='lanczos': power iteration finds magnitudes."
        )
    tol = check_step("tol", asked["tol"])
    width = min(k + 2, n)
    basis_size = n if k > 1 and n <= SMALL else k + 14
    if "basis_size" in asked:
        basis_size = check_count(f"basis_size (for k = {k})", asked["basis_size"], width)
    max_products = asked.get("max_products", 100 * (k + 1))
    if "max_products" in asked and not is_traced(max_products):
        max_products = check_count(f"max_products (for k = {k})", max_products, width)
    if initial is not None:
        initial = trained_part(initial, "initial")
        if [leaf.ndim for leaf in jax.tree.leaves(initial)] == [
            leaf.ndim for leaf in jax.tree.leaves(like)
        ]:
            initial = jax.tree.map(lambda x: x[None], initial)
            require_like("initial", initial, like, (1,))
        else:
            require_like("initial", initial, like, (k,))
    key = asked["key"] if "key" in asked else jax.random.key(0)
    seed = jax.random.bits(key, dtype=jnp.uint32)
    product = traced(product, like)
    if asked["check_symmetric"]:
        product = _checked(product, like, seed)
    # As arrays, so that other limits reuse the compiled program.
    limits = jnp.asarray(tol, working_dtype(like)), jnp.asarray(max_products, jnp.int32)
    most = 1 if is_traced(max_products) else int(max_products)
    inputs = product, like, initial, seed, limits
    with search_bar("eigenpairs", progress, most, product.program.jaxpr, inputs) as bar:
        if method == "lanczos":
            found = _lanczos(
                product, like, k, min(basis_size, n), which, limits, initial, seed, bar
            )
        else:
            found = _subspace(product, like, k, *limits, initial, seed, bar)
        if bar is not None:
            jax.block_until_ready(found.products)
    return Eigenpairs(
        values=found.values,
        vectors=found.vectors,
        residuals=found.residuals,
        errors=found.errors,
        converged=found.converged,
        products=found.products + (2 if asked["check_symmetric"] else 0),
    )


@compiled
@on_any_mesh(like=1)
def _lanczos(
    product: Callable[[PyTree], PyTree],
    like: PyTree,
    k: int,
    basis_size: int,
    which: str,
    limits: tuple[Float[Array, ""], Int[Array, ""]],
    initial: PyTree | None,
    seed: UInt32[Array, ""],
    bar: Ticking | None,
) -> RitzPairs:
    """Lanczos within limits, a tolerance and a number of products."""
    tol, max_products = limits
    start = generic_vector(seed, widened(like))
    if initial is not None:
        # The sum of the vectors holds each of them; a little of everything else lets the rest in.
        known = jax.tree.map(lambda x: jnp.sum(x, 0), widened(initial))
        # What a call on parameters that were not finite left behind is no place to start from.
        finite = jnp.isfinite(norm(known))
        known = jax.tree.map(lambda x: jnp.where(finite, x, 0), known)
        noise = WARM_NOISE * norm(known) / norm(start)
        start = jax.tree.map(jnp.add, known, scaled(jnp.where(noise > 0, noise, 1), start))
    found = lanczos(
        wide_product(product, like),
        start,
        k,
        basis_size=basis_size,
        which=which,
        tol=tol,
        max_products=max_products,
        seed=seed,
        bar=bar,
    )
    return found._replace(vectors=cast_like(found.vectors, like))


@compiled
@on_any_mesh(like=1)
def _subspace(
    product: Callable[[PyTree], PyTree],
    like: PyTree,
    k: int,
    tol: Float[Array, ""],
    max_products: Int[Array, ""],
    initial: PyTree | None,
    seed: UInt32[Array, ""],
    bar: Ticking | None,
) -> RitzPairs:
    width = min(k + 2, size(like))
    wide = widened(like)

    def drawn(j: Any, basis: PyTree) -> PyTree:
        return with_row(basis, j, generic_vector(seed + jnp.asarray(j, seed.dtype), wide))

    # One vector at a time: memory is the point of this method.
    blocks = (
        jax.tree.map(lambda x, m=m: jnp.zeros((m, *x.shape), x.dtype), wide) for m in (k, width - k)
    )
    start = jax.lax.fori_loop(0, width, drawn, Divided(*blocks))
    if initial is not None:
        # A vector that is not finite, left by parameters that were not, is no place to start from.
        finite = [
            jnp.all(jnp.isfinite(x), tuple(range(1, x.ndim))) for x in jax.tree.leaves(initial)
        ]
        usable = jnp.all(jnp.stack(finite), 0)

        def warm(s: Array, x: Array) -> Array:
            drawn = s[: len(x)]
            here = usable.reshape(-1, *[1] * (x.ndim - 1))
            return s.at[: len(x)].set(jnp.where(here, x.astype(s.dtype), drawn))

        first = jax.tree.map(warm, start.first, initial)
        start = start._replace(first=first)
    found = subspace(
        wide_product(product, like),
        start,
        k,
        tol=tol,
        max_products=max_products,
        seed=seed,
        bar=bar,
    )
    return found._replace(vectors=cast_like(found.vectors, like))


def _checked(product: Callable[[PyTree], PyTree], like: PyTree, seed: UInt32[Array, ""]) -> Any:
    """The product, after a look at whether it is symmetric."""
    u, v = (
        scaled(1 / norm(x), x)
        for x in (generic_vector(seed + jnp.uint32(i), widened(like)) for i in (1, 2))
    )
    wide = wide_product(product, like)
    au, av = wide(u), wide(v)
    difference = jnp.abs(inner(u, av) - inner(au, v))
    narrow = max(jnp.finfo(leaf.dtype).eps for leaf in jax.tree.leaves(like))
    allowed = 100 * float(narrow) * (norm(au) + norm(av))
    if not is_traced(difference):
        if difference > allowed:
            raise ValueError(
                f"product is not symmetric: <u, Av> and <Au, v> differ by {difference:.3g} for "
                f"random unit u and v, where rounding explains {allowed:.3g}."
            )
        return product
    return eqx.error_if(product, difference > allowed, "product is not symmetric")
