"""The steps that are drawn, against the metrics by finite differences and by hand."""

from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np

from paper_figures.metric_vectors import (
    FISHER,
    HESSIAN,
    INPUTS,
    L2,
    TEACHER,
    claims,
    regularizing_step,
)

AT = np.array([0.8, -1.3])


def outputs(a, b):
    return np.tanh(b * np.tanh(a * INPUTS))


def loss(at):
    return np.mean((outputs(*at) - outputs(*TEACHER)) ** 2) / 2


def test_steps():
    e = 1e-4 * np.eye(2)
    jacobian = np.stack([outputs(*AT + d) - outputs(*AT - d) for d in e], axis=1) / 2e-4
    fisher = jacobian.T @ jacobian / len(INPUTS)
    hessian = np.array(
        [
            [loss(AT + p + q) - loss(AT + p - q) - loss(AT - p + q) + loss(AT - p - q) for p in e]
            for q in e
        ]
    )
    hessian /= 4e-8
    expected = {FISHER: -fisher @ AT, HESSIAN: -hessian @ AT, L2: -AT}
    for name, step in expected.items():
        np.testing.assert_allclose(jax.jit(regularizing_step(name))(jnp.array(AT)), step, rtol=1e-5)


def test_claims_on_steps_made_up():
    """A metric that pulls the smaller parameter alone, and one that is L2."""
    at = np.array([[3.0, 3.0], [3.0, -3.0], [3.0, 0.5], [-0.5, 3.0]])
    sparse = -at * (np.abs(at) == np.abs(at).min(axis=1, keepdims=True)) - 1e-3 * at
    steps = {FISHER: sparse, HESSIAN: -at, L2: -at}
    ends = {FISHER: at * [[1, 0]] + 1e-3, HESSIAN: at / 2, L2: 1e-3 * at}
    held = defaultdict(list)
    for claim in claims(at, steps, sparse, ends):
        held[claim.claim.split(":")[0]].append(claim.holds)
    assert held["L2 regularization always points towards the origin"] == [True]
    assert not any(held[HESSIAN])
    assert held[FISHER][:2] == [True, True]
    assert held[FISHER][3:] == [True, True]
