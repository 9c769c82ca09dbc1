"""A solver for stochastic equations whose noise is small, such as SGD's, of size sqrt(h).

The weak error of Euler's method with step dt is of order dt at a fixed time, however small the
noise: it comes from the drift. With Heun's rule for the drift, and Euler's for the noise, the weak
error is of order dt^2 + h dt (Milstein and Tretyakov 1997, Numerical methods in the
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
    """Heun's rule for the drift and Euler's for the noise of an Ito equation.

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
        """The order of convergence without noise, 2."""
        del terms
        return 2

    def strong_order(self, terms: PyTree) -> float:
        """The strong order of convergence, 0.5, for noise of any size."""
        del terms
        return 0.5

    def init(self, terms: PyTree, t0: Any, t1: Any, y0: PyTree, args: Any) -> None:
        """The solver's state before the first step: None."""

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
        """One step from t0 to t1, as diffrax calls it: y1 and its interpolation data."""
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
        """The drift and the diffusion at (t0, y0), as a pair."""
        drift, diffusion = terms.terms
        return drift.vf(t0, y0, args), diffusion.vf(t0, y0, args)
