import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.diagnostics import accuracy, loss_surface_slope, noise_robustness


@pytest.mark.slow
def test_every_draw_is_the_measure_of_noisy_parameters():
    """With the noise read off the parameters, loss, slope and accuracy by numpy."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(20, 2))), jnp.asarray(rng.normal(size=20))
    params = {"w": jnp.array([1.0, -2.0]), "count": jnp.arange(3), "name": "net"}
    value_fn = lambda p: jnp.mean((x @ p["w"] - y) ** 2) / 2
    measure = lambda p: {
        "w": (p["w"][0], p["w"][1]),
        "loss": value_fn(p),
        "slope": loss_surface_slope(value_fn, p),
        "accuracy": accuracy(lambda p, x: p["w"] * x, p, x, jnp.zeros(20, int)),
        "count": jnp.sum(p["count"]),
    }
    sigmas = [0.0, 0.5, 2.0]
    found = noise_robustness(measure, params, sigmas, draws=7, chunk=3, key=jax.random.key(1))
    w = np.stack(found.values["w"], -1)
    assert w.shape == (3, 7, 2)
    residual = np.einsum("nd,lkd->lkn", x, w) - y
    np.testing.assert_allclose(found.values["loss"], np.mean(residual**2, -1) / 2)
    slope = np.linalg.norm(residual @ np.array(x) / 20, axis=-1)
    np.testing.assert_allclose(found.values["slope"], slope)
    scaled = w[:, :, None] * np.array(x)
    share = np.mean(scaled[..., 0] >= scaled[..., 1], axis=-1)
    np.testing.assert_allclose(found.values["accuracy"], share)
    assert np.all(found.values["count"] == 3)
    np.testing.assert_allclose(found.mean["loss"], np.mean(residual**2, (1, 2)) / 2)
    np.testing.assert_allclose(found.deviation["slope"], np.std(slope, axis=1, ddof=1), atol=1e-15)
    noise = w / np.array(params["w"]) - 1
    np.testing.assert_array_equal(noise[0], 0)
    np.testing.assert_allclose(noise[2], 4 * noise[1], rtol=1e-12)  # the same draws, larger
    assert len(np.unique(noise[1])) == 14


def test_the_noise_is_standard_normal():
    found = noise_robustness(lambda w: w[0], jnp.array([2.0]), [1.5], draws=4000, chunk=4000)
    noise = (np.array(found.values[0]) / 2 - 1) / 1.5
    for power, moment, error in ((1, 0, 1), (2, 1, 2**0.5), (4, 3, 96**0.5)):
        assert abs(np.mean(noise**power) - moment) < 3 * error / 4000**0.5
    assert np.isnan(noise_robustness(lambda w: w[0], jnp.ones(1), [1.0], draws=1).deviation)


@pytest.mark.slow
def test_low_precision_stays():
    found = noise_robustness(lambda w: w[0], jnp.ones(1, jnp.float16), [0.5], draws=2)
    assert found.values.dtype == jnp.float16


def test_errors():
    loss, w = lambda w: jnp.sum(w), jnp.ones(2)
    with pytest.raises(ValueError, match=r"finite numbers from 0 on; got \[0.1, -1\]"):
        noise_robustness(loss, w, [0.1, -1])
    for bad in (0.1, [], [np.nan], ["a"]):
        with pytest.raises(ValueError, match=r"sigmas must be a vector"):
            noise_robustness(loss, w, bad)
    with pytest.raises(ValueError, match=r"at least one floating array"):
        noise_robustness(loss, jnp.arange(2), [0.1])
    with pytest.raises(ValueError, match=r"scalar or a pytree of scalars; it returned shape \(2,"):
        noise_robustness(lambda w: {"a": w}, w, [0.1])
    with pytest.raises(ValueError, match=r"draws must be at least 1; got 0"):
        noise_robustness(loss, w, [0.1], draws=0)
    with pytest.raises(TypeError, match=r"chunk must be an integer; got 2\.5"):
        noise_robustness(loss, w, [0.1], chunk=2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"labels must be 2 integers.*shape \(3,\), int"):
        accuracy(lambda w, x: w * x, w, jnp.eye(2), jnp.arange(3))
    with pytest.raises(ValueError, match=r"apply_fn must return a vector.*shape \(\)"):
        accuracy(lambda w, x: w @ x, w, jnp.eye(2), jnp.arange(2))
