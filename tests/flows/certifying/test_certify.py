"""Right descriptions are certified against optax, wrong ones are found out."""

import jax.numpy as jnp
import optax
import pytest

import igr


@pytest.mark.parametrize(
    "case", ["polynomial", pytest.param("tanh_network", marks=pytest.mark.slow)]
)
def test_optax_momentum(case, request):
    certificate = igr.certify(
        igr.methods.nesterov(0.5),
        lambda h: optax.sgd(h, 0.5, nesterov=True),
        *request.getfixturevalue(case),
    )
    assert certificate.holds
    assert certificate.expected == {0: 2, 1: 3}
    for order, slope in certificate.observed.items():
        assert abs(slope - (order + 2)) < 0.1
    lines = str(certificate).splitlines()
    assert lines[0] == "Nesterov (beta = 1/2): certified"
    assert lines[2].split()[:3] == ["0", f"{certificate.observed[0]:.2f}", "2"]


@pytest.mark.slow
def test_optax_adam_with_its_second_moment_kept(polynomial):
    certificate = igr.certify(
        igr.methods.adam(0.5, 0.9, 0.1),
        lambda h, rates: optax.adam(h, 0.5, 1 - rates["nu"], 0.1),
        *polynomial,
    )
    assert certificate.holds
    for order, slope in certificate.observed.items():
        assert abs(slope - (order + 2)) < 0.1, slope.errors


def test_an_epsilon_in_the_wrong_place_is_found_out(polynomial):
    certificate = igr.certify(
        igr.methods.rmsprop(0.5, 0.1),
        lambda h: optax.rmsprop(h, 0.5, 0.1, eps_in_sqrt=False),
        *polynomial,
        order=0,
    )
    assert not certificate.holds
    assert abs(certificate.observed[0] - 1) < 0.1
    assert "NOT certified" in str(certificate)
    assert "<- too low" in str(certificate)


def test_a_mistake_at_the_next_order_only(polynomial):
    """Nesterov and heavy ball share their flow, not its correction."""
    certificate = igr.certify(
        igr.methods.heavy_ball(0.5), lambda h: optax.sgd(h, 0.5, nesterov=True), *polynomial
    )
    assert certificate.reached == {0: True, 1: False}


def test_an_optimizer_and_no_description(polynomial):
    """The right reading is certified on its own slowed code, one with another beta is not."""
    half = igr.observed_order(lambda h: optax.sgd(h, 0.5), *polynomial, 1)
    assert abs(half - 3) < 0.1
    with pytest.raises(TypeError, match="steps are taken: leave optimizer= out"):
        igr.certify(lambda h: optax.sgd(h, 0.5), lambda h: optax.sgd(h, 0.5), *polynomial)
    with pytest.raises(ValueError, match="together, or neither"):
        igr.certify(lambda h: optax.sgd(h, 0.5), value_fn=polynomial.value_fn)
    with pytest.raises(ValueError, match="method is described already"):
        igr.observed_order(igr.methods.heavy_ball(0.5), *polynomial, 1, keep=())
    with pytest.raises(TypeError, match="whose step is fixed"):
        igr.certify(optax.sgd(0.1))


def test_bad_input(polynomial):
    method = igr.methods.heavy_ball(0.5)
    with pytest.raises(TypeError, match=r"lambda h: optax\.sgd\(h\).*whose step is fixed"):
        igr.certify(method, optax.sgd(0.1, 0.5), *polynomial)
    with pytest.raises(TypeError, match="function of the learning rate; got None"):
        igr.certify(method, None, *polynomial)
    with pytest.raises(TypeError, match="method must be one of igr"):
        igr.certify("momentum", lambda h: optax.sgd(h), *polynomial)
    with pytest.raises(ValueError, match="order must be at least 0"):
        igr.certify(method, lambda h: optax.sgd(h), *polynomial, order=-1)
    with pytest.raises(ValueError, match="must return a scalar"):
        igr.certify(method, lambda h: optax.sgd(h), lambda p: p, jnp.ones(2))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda h, rates: optax.adam(
                optax.constant_schedule(h), 0.5, b2=1 - rates["nu"], eps=0.1
            ),
            marks=pytest.mark.slow,
        ),
        lambda h, rates: optax.inject_hyperparams(optax.adam)(h, 0.5, b2=1 - rates["nu"], eps=0.1),
    ],
)
def test_an_optimizer_with_several_counts(polynomial, make):
    method = igr.methods.adam(0.5, 0.9, 0.1)
    assert igr.certify(method, make, *polynomial, order=0).holds
