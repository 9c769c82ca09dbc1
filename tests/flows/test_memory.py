"""What 10^7 parameters cost in memory, read from the compiled program: nothing is run."""

import jax
import jax.numpy as jnp
import optax
import pytest

import igr
from igr.backward_error import methods, modified_equation
from igr.curvature import hessian_product, top_eigenpairs
from igr.flows import rules

WIDTH = 1_290
CLIP = rules.stateless(optax.clip_by_global_norm(1.0))
PARAMS = {
    f"w{i}": jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32) for i in range(6)
}  # 9,984,600 parameters


def value_fn(params):
    x = jnp.ones((2, WIDTH), jnp.float32)  # few examples: what is counted are vectors of parameters
    for w in params.values():
        x = jnp.tanh(x @ w)
    return jnp.mean(x**2)


def copies(f):
    """Arguments, temporaries and results over the size of the parameters."""
    found = jax.jit(f).lower(PARAMS).compile().memory_analysis()
    one = sum(x.size * 4 for x in PARAMS.values())
    total = found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes
    return total / one


@pytest.mark.parametrize(
    "method",
    [
        methods.gradient_descent(),
        methods.heavy_ball(0.9),
        methods.rule(lambda m, theta: CLIP(m, theta), {"m": methods.ema(0.9)}),
    ],
    ids=["gradient descent", "heavy ball", "clipped"],
)
def test_a_field_of_order_one_holds_six_copies(method):
    field = igr.vector_field(modified_equation(method, 1), value_fn, 0.1)
    assert copies(lambda p: field(0.0, p, None)) <= 6


@pytest.mark.slow
@pytest.mark.parametrize(("method", "beyond"), [("lanczos", 20), ("subspace", 8)])
def test_an_eigen_solver_holds_its_basis(method, beyond):
    k = 3  # parameters and result included

    def solve(p):
        return top_eigenpairs(hessian_product(value_fn, p), p, k, method=method)

    assert copies(solve) <= k + beyond
