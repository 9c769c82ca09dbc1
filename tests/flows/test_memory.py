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


def copies(f, *args):
    """Arguments, temporaries and results over the size of the parameters."""
    found = jax.jit(f).lower(*(args or (PARAMS,))).compile().memory_analysis()
    one = sum(x.size * 4 for x in PARAMS.values())
    total = found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes
    return total / one


@pytest.mark.parametrize(
    "method",
    [
        methods.gradient_descent(),
        methods.heavy_ball(0.9),
        methods.adam(),
        methods.rule(lambda m, theta: CLIP(m, theta), {"m": methods.ema(0.9)}, name="clipped"),
    ],
    ids=lambda method: method.name,
)
def test_a_field_of_order_one_holds_six_copies(method):
    field = igr.vector_field(modified_equation(method, 1), value_fn, 0.1)
    state = (PARAMS, {y: PARAMS for y in method.kept}) if method.kept else PARAMS
    assert copies(lambda s: field(100.0, s, None), state) <= 6


@pytest.mark.slow
def test_a_flow_of_order_one_holds_twenty_copies_beside_its_start():
    field = igr.vector_field(modified_equation(methods.gradient_descent(), 1), value_fn, 0.1)
    assert copies(lambda p: igr.flow(field, p, 1.0).ys) <= 21


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize(("method", "beyond"), [("lanczos", 20), ("subspace", 8)])
def test_an_eigen_solver_holds_its_basis(method, beyond, k):
    """Parameters and result included."""

    def solve(p):
        return top_eigenpairs(hessian_product(value_fn, p), p, k, method=method)

    assert copies(solve) <= k + beyond
