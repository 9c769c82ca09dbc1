"""What measures on the host says so where it is called inside of a transformation."""

import jax
import jax.numpy as jnp
import optax
import pytest

import igr

W = jnp.array([1.0, -0.5])


def loss(w, scale=1.0):
    return scale * jnp.sum(jnp.cosh(w))


CALLS = {
    "compare": lambda h, scale: igr.compare(lambda w: loss(w, scale), W, h, 3, (0,)),
    "certify": lambda h, scale: igr.certify(
        igr.methods.gradient_descent(), lambda s: optax.sgd(s * h), lambda w: loss(w, scale), W
    ),
    "observed_order": lambda h, scale: igr.observed_order(
        igr.methods.gradient_descent(), lambda w: loss(w, scale), W * h, 1
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_said(name):
    call = CALLS[name]
    message = f"{name} must have numbers that are known, for it measures on the host; got traced"
    for traced in (lambda x: call(x, 1.0), lambda x: call(0.1, x)):
        with pytest.raises(TypeError, match=message):
            jax.jit(traced)(0.1)


def test_an_error_of_the_loss_itself_stays_as_it_is():
    def branches(w):
        return jnp.sum(w**2) if w[0] > 0 else jnp.sum(w**4)

    with pytest.raises(jax.errors.TracerBoolConversionError):
        igr.compare(branches, W, 0.1, 3, (0,))
