"""Runs on batches, against loops in numpy and expectations by enumeration."""

from itertools import permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr

A = np.array([0.5, 2.0, 1.0])
B = np.array([1.0, -1.0, 0.5])
H = 0.05


def loss(w, batch):
    a, b = batch
    return jnp.sum(a * (w - b) ** 2 / 2)


def step(w, k):
    return w - H * A[k] * (w - B[k])


def over(method=None, **options):
    given = {"orders": (0, 1), "batches": (jnp.array(A), jnp.array(B)), "method": method, **options}
    return igr.compare(loss, jnp.array([2.0]), H, **given)


def test_a_fixed_order_of_batches():
    seen = over(igr.methods.cyclic_sgd((2, 0, 1)), epochs=4, sharpness=False)
    w, points = 2.0, [2.0]
    for _ in range(4):
        for k in (2, 0, 1):
            w = step(w, k)
        points.append(w)
    np.testing.assert_array_equal(seen.step, [0, 3, 6, 9, 12])
    np.testing.assert_allclose(seen.discrete.params[:, 0], points, rtol=1e-12)
    assert seen.standard_error == {}
    assert 10 * seen.distance[1][-1] < seen.distance[0][-1]


@pytest.mark.slow
def test_the_mean_over_random_orders():
    """On a quadratic the mean of an epoch is that over all six orders, whatever went before."""
    seen = over(epochs=3, runs=64, key=jax.random.key(1))
    mean, points = 2.0, [2.0]
    for _ in range(3):
        ends = []
        for order in permutations(range(3)):
            w = mean
            for k in order:
                w = step(w, k)
            ends.append(w)
        mean = np.mean(ends)
        points.append(mean)
    apart = np.abs(seen.discrete.params[:, 0] - np.array(points))
    assert (apart <= 4 * seen.standard_error[1] + 1e-15).all()
    assert 0 < seen.standard_error[1][-1] < 0.01
    assert 5 * seen.distance[1][-1] < seen.distance[0][-1]
    sharp = np.mean(A)  # the batch sharpness of scalar quadratics, the mean of their curvatures
    np.testing.assert_allclose(seen.sharpness, sharp, rtol=1e-10)


def mean_with_momentum(h, epochs, beta):
    """The mean of (w, v, 1) after each epoch: a power of the mean over all orders of their map."""
    total = np.zeros((3, 3))
    for order in permutations(range(3)):
        epoch = np.eye(3)
        for k in order:
            v = np.array([A[k], beta, -A[k] * B[k]])
            epoch = np.array([np.array([1, 0, 0]) - h * v, v, [0, 0, 1]]) @ epoch
        total += epoch / 6
    return [np.linalg.matrix_power(total, n) @ [2.0, 0, 1] for n in range(epochs + 1)]


@pytest.mark.slow
def test_the_mean_with_momentum():
    """The equation that knows the batches, read from the optimizer or named."""
    h, beta, filling, epochs = 0.02, 0.5, 9, 6  # 0.5^27 = 1e-8
    of = {"epochs": epochs, "runs": 64, "key": jax.random.key(1), "sharpness": False}

    def over(method=None, **options):
        batches = jnp.array(A), jnp.array(B)
        given = {"orders": (0, 1), "batches": batches, "method": method, **of}
        return igr.compare(loss, jnp.array([2.0]), h, **given, **options)

    seen = over(optimizer=lambda h: optax.sgd(h, momentum=beta))
    exact = np.array(mean_with_momentum(h, filling + epochs, beta))[filling:, 0]
    assert seen.start_up == "burn-in of 27 steps"
    apart = np.abs(seen.discrete.params[:, 0] - exact)
    assert (apart <= 4 * seen.standard_error[1] + 1e-15).all()
    # The flows start at the run's own mean; how far off that was decays at twice the mean of A.
    off = (seen.flows[1][0, 0] - exact[0]) * np.exp(-2 * np.mean(A) * seen.time[-1])
    ends = {p: abs(flow[-1, 0] - off - exact[-1]) for p, flow in seen.flows.items()}
    assert 7 * ends[1] < ends[0]
    named = over(igr.methods.reshuffled_sgd(3, momentum=beta))
    np.testing.assert_allclose(named.flows[1], seen.flows[1], rtol=1e-6)
    with pytest.raises(ValueError, match=r"steps differ by .* from those of gradient"):
        over(igr.methods.reshuffled_sgd(3), optimizer=optax.sgd(h, momentum=beta))


@pytest.mark.slow
def test_the_mean_with_replacement():
    seen = over(igr.methods.sgd_with_replacement(2), steps=4, runs=2000, key=jax.random.key(0))
    mean = 2.0
    for _ in range(4):
        mean = np.mean(
            [(step(mean, i) + step(mean, j)) / 2 for i, j in product(range(3), repeat=2)]
        )
    assert abs(seen.discrete.params[-1, 0] - mean) < 4 * seen.standard_error[0][-1]


@pytest.mark.slow
def test_a_schedule_that_ends_before_the_comparison_begins():
    make = lambda h: optax.sgd(optax.linear_schedule(h, 0.0, 4), momentum=0.5)
    with pytest.raises(ValueError, match=r"stands still after the burn-in of 6 .* as given"):
        over(epochs=1, key=jax.random.key(0), optimizer=make, burn_in=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1, "batches": (jnp.ones(3), jnp.ones(2)), "key": 0}, "batches"),
        ({"epochs": 1}, "key is needed"),
        ({"epochs": 1, "steps": 3, "key": 0}, "give epochs, or steps"),
        ({"key": 0}, "give epochs, or steps"),
        ({"steps": 4, "key": 0}, "steps must be whole epochs of 3 steps; got 4"),
        ({"epochs": 1, "method": igr.methods.reshuffled_sgd(2)}, "leading axis of 2"),
        ({"epochs": 1, "method": igr.methods.cyclic_sgd(3), "runs": 4}, "all runs are the same"),
        ({"epochs": 1, "key": 0, "orders": ("central",)}, "flows must be orders, counts"),
        ({"steps": 1, "batches": None, "runs": 4}, "runs is for runs on batches"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        over(**options)
