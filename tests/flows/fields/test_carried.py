"""The field by differences of whole steps, against matrices."""

import jax
import jax.numpy as jnp
import numpy as np

import igr
from igr.flows.fields.by_differences.carried import carried_field, rooted, squared
from igr.flows.run import optimizer_of

A = np.array([[2.0, 0.6], [0.6, 1.0]])


def test_on_a_quadratic_it_is_a_matrix():
    """Heavy ball is z -> S z on (x, memory); F = (S - 1)(1 - (S - 1)/2)/h."""
    h, beta = 0.1, 0.5
    method = igr.methods.heavy_ball(beta)
    optimizer = optimizer_of(method, h)
    empty = optimizer.init(jnp.zeros(2))
    field = jax.jit(carried_field(method, lambda x: x @ jnp.asarray(A) @ x / 2, h))

    def flat(z):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(z)])

    # The memory is beta d, with d = g + memory: the step is x - h d.
    step = np.block([[np.eye(2) - h * A, -h * np.eye(2)], [beta * A, beta * np.eye(2)]])
    delta = step - np.eye(4)
    wanted = delta @ (np.eye(4) - delta / 2) / h
    for z in np.eye(4):
        memory = jax.tree.unflatten(jax.tree.structure(empty), [jnp.asarray(z[2:])])
        found = field(0.0, (jnp.asarray(z[:2]), memory), None)
        np.testing.assert_allclose(flat(found), wanted @ z, atol=1e-12)


def test_a_unit_that_comes_on_moves_as_the_optimizer_moves():
    """With nothing in its second moment the field is bounded as the steps are, and not 1/eps."""
    h = 0.01
    method = igr.methods.adam(0.9, 0.999)
    loss = lambda x: jnp.sum(jax.nn.relu(x))
    memory = rooted(
        optimizer_of(method, h).init(jnp.zeros(3))._replace(count=jnp.asarray(100.0)), {"nu"}
    )
    field = carried_field(method, loss, h, {"nu"})
    at = jnp.array([1e-4, -1e-4, 0.3])
    velocity, remembered = field(1.0, (at, memory), None)
    assert np.all(np.abs(velocity) < 10)
    assert velocity[1] == 0
    assert np.all(np.asarray(remembered.kept["nu"]) >= 0)
    start = jnp.array([0.04, 0.0, 0.09])
    again = squared(rooted(memory._replace(kept={"nu": start}), {"nu"}), {"nu"})
    np.testing.assert_allclose(again.kept["nu"], start, rtol=1e-12)
