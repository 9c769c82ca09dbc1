"""The vector field of a run's two phases, its even and its odd steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.checks import Count, Number, check_count, check_step, check_value_fn
from igr.curvature import hessian_product, top_eigenpairs
from igr.curvature.tracking import follow_eigenpairs
from igr.curvature.vectors import size
from igr.flows import kinds
from igr.flows.edge.midpoints import step_of
from igr.flows.fields.from_steps.interpolation import interpolating_field
from igr.flows.run import optimizer_of
from igr.pytrees import combine, like_params, partition, same_shapes
from igr.shown import short, table


class TwoPhases(NamedTuple):
    """A run w[n] = a + (-1)^n b, by its middle and its swing.

    Attributes:
      params: a.
      swing: b, like the floating leaves of params.
      memory: the middle and the swing of what the optimizer remembers, by leaf; None where it
        remembers nothing.
      directions: what b is kept in the span of, vectors with a leading axis; None where it is not.
    """

    params: PyTree
    swing: PyTree
    memory: list[tuple[Array, Array]] | None
    directions: PyTree | None

    __repr__ = short
    _repr_html_ = table


def two_phase_field(
    method: Any,
    value_fn: Callable[[PyTree], Array],
    h: Number | Array,
    order: Count = 1,
    directions: Count | None = None,
) -> TwoPhaseField:
    """The vector field whose flow the middle and the swing of a run follow, also past the edge.

    With w[n] = a + (-1)^n b, a step S of the optimizer is one of the two phases a + b and a - b,

        a+ = [S(a + b) + S(a - b)]/2,        b+ = -[S(a + b) - S(a - b)]/2,

    exactly; for gradient descent a+ = a - (h/2) [g(a + b) + g(a - b)] and b+ = -b + (h/2)
    [g(a + b) - g(a - b)]. Along smooth directions the first is near the identity, along those
    with h lambda near 2 the second is, the sign of the oscillation having been taken out; what is
    left is damped. So this step has a modified equation where the one of S has none, and the
    field is that of `interpolating_field`, to any order, for 2 (order + 1) steps of the optimizer
    and no derivative of the gradient. It tells the amplitude |b| too.

    Memory is doubled like params: momenta and second moments swing as well. At order 1 the field
    holds some 9 copies of params; half as many more for each such vector the optimizer remembers.

    Args:
      method: from `igr.methods`; one whose step `igr.run` can take.
      value_fn: the loss E, `params -> scalar`.
      h: the learning rate.
      order: the highest power of the slow change a step that is kept, at least 0.
      directions: if given, b is kept in the span of so many directions, those with the largest
        eigenvalues of the Hessian; they are followed from step to step. For
        methods without a preconditioner. Take enough to cover every h lambda above about three
        quarters of the stability limit. By default b is whole, and no Hessian is met: that is as
        accurate, for less.

    Returns:
      A `TwoPhaseField`: `f(t, phases, args)` on `TwoPhases`, for `igr.flow` and `two_phase_flow`,
      with `start(params)` for the phases to begin with.

    Raises:
      ValueError: if `order` is negative, `h` is not positive and finite, or `directions` is less
        than 1 or, at the start, more than the number of parameters.
      TypeError: if the method cannot be run, or has a preconditioner and `directions` are asked
        for.

    On E = lambda x^2/2 at h lambda = 2 the run swings for ever around 0:

    >>> from igr.backward_error import methods
    >>> field = two_phase_field(methods.gradient_descent(), lambda x: jnp.sum(x**2), 1.0, order=1)
    >>> phases = field.start(jnp.array([3.0]))
    >>> print(phases.params, phases.swing, field(0.0, phases, None).swing)
    [0.] [-3.] [0.]
    """
    check_value_fn(value_fn)
    h = check_step("h", h)
    order = check_count("order", order, 0)
    kinds.check_runnable(method)
    if directions is not None:
        directions = check_count("directions", directions, 1)
        if kinds.preconditioner_of(method.response(), h) is not None:
            raise TypeError(
                f"directions are those of the Hessian, and {method.name} has a preconditioner: "
                "leave directions out, and its swing is followed whole"
            )
    return TwoPhaseField(method, value_fn, h, order, directions)


class TwoPhaseField:
    """See `two_phase_field`."""

    def __init__(
        self,
        method: Any,
        value_fn: Callable[[PyTree], Array],
        h: Number | Array,
        order: int,
        directions: int | None,
    ):
        self.h, self.order, self.directions = h, order, directions
        self._value_fn = value_fn
        self._optimizer = optimizer_of(method, h)
        self._step = step_of(self._optimizer, value_fn)

    def start(self, params: PyTree, state: Any = None) -> TwoPhases:
        """The phases of a run at its second point, from the first three.

        Args:
          params: where the run stands, at time t.
          state: the optimizer's state there; that of a start if not given.

        Returns:
          `TwoPhases` that belong to time t + h, with (w[n-1] + 2 w[n] + w[n+1])/4 for a.
        """
        dynamic, static = partition(params)
        count = size(dynamic)
        if self.directions is not None and self.directions > count:
            raise ValueError(
                f"directions must be at most the number of parameters, {count}; "
                f"got {self.directions}"
            )
        before = (dynamic, self._optimizer.init(dynamic) if state is None else state)
        here = self._step(before, static)
        after = self._step(here, static)
        middle = _floats(lambda a, b, c: (a + 2 * b + c) / 4, before, here, after)
        swing = _floats(lambda b, a: b - a, here, middle)
        found = None
        if self.directions is not None:
            pairs = top_eigenpairs(
                self._product(middle[0], static), middle[0], self.directions, which="largest"
            )
            found = pairs.vectors
        memory = _by_leaf(middle[1], _only_floats(swing[1]))
        return TwoPhases(combine(middle[0], static), swing[0], memory, found)

    def __call__(self, t: Any, phases: TwoPhases, args: Any = None) -> TwoPhases:
        """d/dt of the phases. Directions relax to the sharpest ones within a step or so."""
        tangent = self.held(t, phases, args)
        if phases.directions is None:
            return tangent
        new = self.followed(phases)
        turned = jax.tree.map(
            lambda n, o: (n - o) / self.h,
            _turned_towards(new, phases.directions),
            phases.directions,
        )
        return tangent._replace(directions=turned)

    def held(self, t: Any, phases: TwoPhases, args: Any = None) -> TwoPhases:
        """d/dt of the phases with the directions held."""
        directions = phases.directions
        tangent = self._rate(t, self.confined(phases), directions, orthonormal=False)
        if directions is None:
            return tangent
        return tangent._replace(directions=jax.tree.map(jnp.zeros_like, directions))

    def within(self, phases: TwoPhases, directions: PyTree | None) -> TwoPhases:
        """d/dt of phases without directions, held to some in whose span the swing is already.

        Args:
          phases: as they are after `confined`.
          directions: orthonormal, as `followed` has them: no Gram matrix is needed.
        """
        return self._rate(0.0, phases, directions, orthonormal=True)

    def _rate(
        self, t: Any, phases: TwoPhases, directions: PyTree | None, orthonormal: bool
    ) -> TwoPhases:
        dynamic, static = partition(phases.params)
        memory, memory_swing = self._memory(phases)

        def step(pair: tuple[Any, Any]) -> tuple[Any, Any]:
            middle, swing = pair
            plus = self._step(_floats(jnp.add, middle, swing), static)
            minus = self._step(_floats(jnp.subtract, middle, swing), static)
            even = _floats(lambda p, m: (p + m) / 2, plus, minus)
            odd = _only_floats(_floats(lambda p, m: (m - p) / 2, plus, minus))
            return even, self._confined(odd, directions, orthonormal)

        at = (dynamic, memory), (phases.swing, memory_swing)
        rate = interpolating_field(step, self.order, self.h)(t, at, None)
        (params, memory), (swing, memory_swing) = rate
        return TwoPhases(
            params=like_params(params, phases.params),
            swing=swing,
            memory=_by_leaf(memory, memory_swing),
            directions=None,
        )

    def followed(self, phases: TwoPhases) -> PyTree:
        """The directions after one more round of their search."""
        dynamic, static = partition(phases.params)
        product = self._product(dynamic, static)
        return follow_eigenpairs(product, dynamic, phases.directions).vectors

    def confined(self, phases: TwoPhases) -> TwoPhases:
        """The phases with their swing in the span of their directions."""
        memory, memory_swing = self._memory(phases)
        swing = self._confined((phases.swing, memory_swing), phases.directions)
        return phases._replace(swing=swing[0], memory=_by_leaf(memory, swing[1]))

    def _memory(self, phases: TwoPhases) -> tuple[Any, Any]:
        """The middle and the swing of the optimizer's state, in its structure."""
        dynamic, _ = partition(phases.params)
        state = jax.eval_shape(self._optimizer.init, dynamic)
        structure = jax.tree.structure(state)
        pairs = phases.memory or []
        middle = jax.tree.unflatten(structure, [pair[0] for pair in pairs])
        floats = [jnp.issubdtype(pair[0].dtype, jnp.inexact) for pair in pairs]
        swing = [pair[1] if f else None for pair, f in zip(pairs, floats, strict=True)]
        return middle, jax.tree.unflatten(structure, swing)

    def _product(self, dynamic: PyTree, static: PyTree) -> Callable[[PyTree], PyTree]:
        return hessian_product(lambda p: self._value_fn(combine(p, static)), dynamic)

    def _confined(
        self, swing: tuple[Any, Any], directions: PyTree | None, orthonormal: bool = False
    ) -> tuple[Any, Any]:
        """Params' swing, and each part of the memory's that is like params, in the span."""
        if directions is None:
            return swing

        def is_vector(part: Any) -> bool:
            return same_shapes(part, swing[0])

        return jax.tree.map(
            lambda part: _projected(part, directions, orthonormal) if is_vector(part) else part,
            swing,
            is_leaf=is_vector,
        )


def _projected(vector: PyTree, directions: PyTree, orthonormal: bool = False) -> PyTree:
    """On the span of directions that need not be quite orthonormal, unless it is said they are."""

    def inner(a: PyTree, axes: int) -> Array:
        return jax.tree.reduce(
            jnp.add,
            jax.tree.map(
                lambda q, x: jnp.tensordot(
                    q.reshape(q.shape[0], -1),
                    x.reshape(*x.shape[:axes], -1),
                    (1, axes),
                    precision=jax.lax.Precision.HIGHEST,
                ),
                directions,
                a,
            ),
        )

    dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(directions)))
    weights = inner(vector, 0).astype(dtype)
    if not orthonormal:
        weights = jnp.linalg.solve(inner(directions, 1).astype(dtype), weights)
    return jax.tree.map(
        lambda q, x: jnp.tensordot(weights.astype(q.dtype), q, 1).astype(x.dtype),
        directions,
        vector,
    )


def _turned_towards(new: PyTree, old: PyTree) -> PyTree:
    """Orthonormal vectors with the span of `new` that are nearest to `old`: signs and order."""
    cross = jax.tree.reduce(
        jnp.add,
        jax.tree.map(
            lambda o, n: o.reshape(o.shape[0], -1) @ n.reshape(n.shape[0], -1).T, old, new
        ),
    )
    left, _, right = jnp.linalg.svd(cross.astype(jnp.result_type(cross, jnp.float32)))
    turn = left @ right
    return jax.tree.map(lambda n: jnp.tensordot(turn.astype(n.dtype), n, 1), new)


def _floats(fn: Callable[..., Any], first: PyTree, *others: PyTree) -> PyTree:
    """A function of the floating leaves; the others are those of the first."""
    moving, rest = eqx.partition(first, eqx.is_inexact_array)
    moved = [eqx.filter(tree, eqx.is_inexact_array) for tree in others]
    new = jax.tree.map(lambda x, *ys: fn(x, *ys).astype(x.dtype), moving, *moved)
    return eqx.combine(new, rest)


def _by_leaf(middle: PyTree, swing: PyTree) -> list[tuple[Array, Array]] | None:
    """A state and its swing as pairs; the swing of an integer is itself."""
    swings = jax.tree.leaves(eqx.combine(swing, middle))
    pairs = list(zip(jax.tree.leaves(middle), swings, strict=True))
    return pairs or None


def _only_floats(tree: PyTree) -> PyTree:
    return eqx.filter(tree, eqx.is_inexact_array)
