"""Two players run as they are written down, beside the flow of their equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr import methods
from igr.flows.fields import players
from igr.flows.fields.trees import field_coefficients


def first_loss(z):
    theta, phi = z
    return jnp.sum(jnp.cosh(theta["w"])) + theta["w"][0] * phi[1] ** 2 + phi[0] * theta["w"][1]


def second_loss(z):
    theta, phi = z
    return jnp.sum(jnp.sin(phi) ** 2) - phi[0] * theta["w"][1] ** 2 - phi[1] * theta["w"][0]


LOSSES = first_loss, second_loss


@pytest.fixture(scope="module")
def start():
    return {"w": jnp.array([0.6, -0.3])}, jnp.array([0.4, 0.9])


def descend(z, player, rate):
    slope = jax.grad(LOSSES[player])(z)[player]
    moved = jax.tree.map(lambda x, g: x - rate * g, z[player], slope)
    return (moved, z[1]) if player == 0 else (z[0], moved)


def at_once(z, h):
    return descend(z, 0, 0.5 * h)[0], descend(z, 1, 2 * h)[1]


def in_turns(z, h):
    z = descend(z, 0, 0.5 * h)
    return descend(descend(z, 1, 2 * h), 1, 2 * h)


ROUNDS = {
    "at once": (methods.simultaneous((0.5, 2)), at_once),
    "in turns": (methods.alternating((0.5, 2), (1, 2)), in_turns),
}


SLOW = [pytest.param(p, marks=pytest.mark.slow) for p in (0, 2)]


@pytest.mark.parametrize("order", [1, *SLOW])
@pytest.mark.parametrize("name", ROUNDS)
def test_one_round_against_the_flow(start, name, order):
    method, play = ROUNDS[name]
    equation = igr.modified_equation(method, order)

    @jax.jit
    def error(h):
        field = igr.vector_field(equation, LOSSES, h)

        def moved(z, slope, c):
            return jax.tree.map(lambda a, b: a + c * h / 4 * b, z, slope)

        def quarter(z, _):
            k1 = field(0.0, z, None)
            k2 = field(0.0, moved(z, k1, 1 / 2), None)
            k3 = field(0.0, moved(z, k2, 1 / 2), None)
            k4 = field(0.0, moved(z, k3, 1), None)
            mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
            return moved(z, mean, 1), None

        end, _ = jax.lax.scan(quarter, start, length=4)
        apart = jax.tree.map(jnp.subtract, end, play(start, h))
        return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(apart)))

    slope = jnp.log2(error(0.004) / error(0.002))
    assert abs(slope - (order + 2)) < 0.1, slope


@pytest.mark.parametrize("order", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_at_once_is_one_method_on_the_joint_field(start, order):
    """The two ways to the same numbers; in turns there is but one."""
    fields = {}
    for name, (method, _) in ROUNDS.items():
        found = field_coefficients(igr.modified_equation(method, order))[0]
        fields[name] = players._over_the_joint_field(found)
    assert fields["in turns"] is None
    equation = igr.modified_equation(methods.simultaneous((0.5, 2)), order)
    one = jax.jit(lambda z: igr.vector_field(equation, LOSSES, 0.1)(0.0, z, None))(start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(players, "_over_the_joint_field", lambda coefficients: None)
        by_colours = igr.vector_field(equation, LOSSES, 0.1)
    two = jax.jit(lambda z: by_colours(0.0, z, None))(start)
    assert fields["at once"] is not None
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_structure_and_bad_input(start):
    equation = igr.modified_equation(methods.alternating(), 1)
    got = igr.vector_field(equation, LOSSES, 0.1)(0.0, start, None)
    assert jax.tree.structure(got) == jax.tree.structure(start)
    with pytest.raises(TypeError, match="pair of losses, one for each player"):
        igr.vector_field(equation, first_loss, 0.1)
    with pytest.raises(TypeError, match="has one loss"):
        igr.vector_field(igr.modified_equation(methods.gradient_descent(), 0), LOSSES, 0.1)
