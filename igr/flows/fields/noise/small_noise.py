"""A solver for equations whose noise is small, as SGD's is: sqrt(h) times something.

The weak error of Euler's method over a step dt is of order dt at a fixed time, and the smallness of
the noise does not help. Only the drift is to blame: taken by Heun's rule, with the noise still by
Euler's, what remains is of order dt^2 + h dt (Milstein and Tretyakov 1997, Numerical methods in the
weak sense for stochastic differential equations with small noise). With dt = h that is h^2, the
order of the equation itself, for two gradients of the drift and one of the noise a step of SGD.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
from jaxtyping import PyTree


class SmallNoiseHeun(diffrax.AbstractItoSolver):
    """Heun's rule for the drift, Euler's for the noise, in the Ito sense.

    For `diffrax.diffeqsolve` with `MultiTerm(drift, noise)`, as `StochasticField.terms` gives it.

        x*  = x + F(x) dt + b(x) dW
        x+  = x + (F(x) + F(x*)) dt / 2 + b(x) dW

    >>> import jax.numpy as jnp
    >>> drift = diffrax.ODETerm(lambda t, x, args: -x)
    >>> still = diffrax.ODETerm(lambda t, x, args: 0 * x)
    >>> terms = diffrax.MultiTerm(drift, still)
    >>> print(SmallNoiseHeun().step(terms, 0.0, 0.5, jnp.array(1.0), None, None, False)[0])
    0.625
    """

    term_structure: ClassVar = diffrax.MultiTerm[tuple[diffrax.AbstractTerm, diffrax.AbstractTerm]]
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = (
        diffrax.LocalLinearInterpolation
    )

    def order(self, terms: PyTree) -> int:
        """Of the drift, where there is no noise."""
        del terms
        return 2

    def strong_order(self, terms: PyTree) -> float:
        """Of paths, whatever the size of the noise."""
        del terms
        return 0.5

    def init(self, terms: PyTree, t0: Any, t1: Any, y0: PyTree, args: Any) -> None:
        """No state."""

    def step(
        self,
        terms: PyTree,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: Any,
        solver_state: None,
        made_jump: Any,
    ) -> tuple[PyTree, None, dict[str, PyTree], None, Any]:
        """One step."""
        del solver_state, made_jump
        drift, diffusion = terms.terms
        dt = drift.contr(t0, t1)
        noise = diffusion.vf_prod(t0, y0, args, diffusion.contr(t0, t1))
        first = drift.vf_prod(t0, y0, args, dt)
        ahead = jax.tree.map(lambda y, f, w: y + f + w, y0, first, noise)
        second = drift.vf_prod(t1, ahead, args, dt)
        y1 = jax.tree.map(lambda y, f, g, w: y + (f + g) / 2 + w, y0, first, second, noise)
        return y1, None, {"y0": y0, "y1": y1}, None, diffrax.RESULTS.successful

    def func(self, terms: PyTree, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """Drift and diffusion."""
        drift, diffusion = terms.terms
        return drift.vf(t0, y0, args), diffusion.vf(t0, y0, args)
