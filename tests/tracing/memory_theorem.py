"""The h^0 and h^1 terms of any optimizer that forgets, by differentiating its real updates.

With theta[n+1] = theta[n] - h Psi(theta[n], theta[n-1], ..), everything remembered unrolled, and
Main(theta) = Psi(theta, theta, ..),

    F_0 = -Main,    F_1 = -sum_k dPsi/dtheta[n-k] . k Main - (1/2) Main' Main

(Cattaneo and Shigida 2025). No description of the optimizer enters.
"""

import jax
import jax.numpy as jnp


def loss(x):
    """Smooth, and coupling its three parameters."""
    a, b, c = x
    even = jnp.cosh(a) + b**2 / 2 + 3 * c**4 / 10
    return even + a * b**2 / 3 + 7 * jnp.sin(a * b) / 10 + a * c


POINT = jnp.array([0.7, -0.9, 0.6])


def first_two_terms(transformation, history=600, at=POINT):
    """F_0 and F_1 at a point, for a transformation made with the learning rate 1.

    Args:
      transformation: its memory must have faded after `history` steps.
      history: the steps unrolled.
      at: the params, three of them.
    """

    def psi(positions):  # the oldest first

        def step(state, position):
            update, state = transformation.update(jax.grad(loss)(position), state, position)
            return state, -update

        return jax.lax.scan(step, transformation.init(positions[0]), positions)[1][-1]

    def main(theta):
        return psi(jnp.broadcast_to(theta, (history, *theta.shape)))

    direction = main(at)
    lags = jnp.arange(history - 1, -1, -1.0)[:, None]
    standing = jnp.broadcast_to(at, (history, *at.shape))
    displaced = jax.jvp(psi, (standing,), (lags * direction,))[1]
    return -direction, -displaced - jax.jvp(main, (at,), (direction,))[1] / 2
