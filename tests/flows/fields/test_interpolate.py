"""The interpolating field against maps whose logarithm is known."""

import jax.numpy as jnp
import numpy as np

import igr


def test_a_linear_map_has_the_series_of_its_logarithm():
    ratio, h = 0.8, 0.5
    for order in range(6):
        series = -sum((1 - ratio) ** j / j for j in range(1, order + 2))
        field = igr.interpolating_field(lambda p: {"x": ratio * p["x"], "n": p["n"]}, order, h)
        got = field(0.0, {"x": jnp.array([2.0]), "n": jnp.array(4)})
        np.testing.assert_allclose(got["x"], 2.0 * series / h, rtol=1e-13)
        assert got["n"] == 0


def test_agrees_with_the_derived_field_to_its_order(tanh_network):
    """Two routes to the same field: their difference at order p falls like h^(p+1)."""
    import jax

    value_fn, params = tanh_network
    for order in (1, 2):
        apart = []
        for h in (0.02, 0.01):
            step = lambda p, h=h: jax.tree.map(lambda x, g: x - h * g, p, jax.grad(value_fn)(p))
            equation = igr.modified_equation(igr.methods.gradient_descent(), order)
            a = igr.vector_field(equation, value_fn, h)(0.0, params)["out"]
            b = igr.interpolating_field(step, order, h)(0.0, params)["out"]
            apart.append(np.linalg.norm(a - b))
        assert abs(np.log2(apart[0] / apart[1]) - (order + 1)) < 0.15
