"""Rules beside every optimizer of optax, on its small problems: they are what they say they add.

A penalty before an optimizer makes it the optimizer of the penalized loss, whose gradient is taken
here by differentiating that loss as it stands; a decay after one takes its share off each step.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igr import transforms

pytestmark = pytest.mark.slow
STEPS, MU = 30, 0.01
OPTIMIZERS = {
    "adabelief": lambda h: optax.adabelief(h),
    "adadelta": lambda h: optax.adadelta(100 * h),
    "adafactor": lambda h: optax.adafactor(h),
    "adagrad": lambda h: optax.adagrad(h),
    "adam": lambda h: optax.adam(h),
    "adamw": lambda h: optax.adamw(h),
    "adamax": lambda h: optax.adamax(h),
    "adamaxw": lambda h: optax.adamaxw(h),
    "adan": lambda h: optax.adan(h),
    "amsgrad": lambda h: optax.amsgrad(h),
    "fromage": lambda h: optax.fromage(h),
    "lamb": lambda h: optax.lamb(h),
    "lars": lambda h: optax.lars(h),
    "lion": lambda h: optax.lion(h),
    "nadam": lambda h: optax.nadam(h),
    "nadamw": lambda h: optax.nadamw(h),
    "noisy_sgd": lambda h: optax.noisy_sgd(h / 100, key=0),
    "novograd": lambda h: optax.novograd(h),
    "optimistic_gradient_descent": lambda h: optax.optimistic_gradient_descent(h / 100),
    "radam": lambda h: optax.radam(h),
    "rmsprop": lambda h: optax.rmsprop(h),
    "rprop": lambda h: optax.rprop(h),
    "sgd": lambda h: optax.sgd(h / 100, 0.9),
    "sign_sgd": lambda h: optax.sign_sgd(h),
    "sm3": lambda h: optax.sm3(h),
    "yogi": lambda h: optax.yogi(h),
}
RATE = 0.01


def parabola(params):
    return sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(params))


def valley(params):
    """Rosenbrock's, of every neighbouring pair of entries."""
    x = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])
    return jnp.sum(10 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


PROBLEMS = {"parabola": parabola, "valley": valley}


def start(dtype=jnp.float64):
    return {"w": jnp.asarray([[0.5, -0.4]], dtype), "b": jnp.asarray([0.3], dtype)}


def penalized(loss):
    def value(params):
        gradient = jax.grad(loss)(params)
        return loss(params) + MU * sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))

    return value


def followed(rule, loss, descended=None, dtype=jnp.float64, steps=STEPS):
    """The params and the state after some steps, in one scan: a state keeps its types in it."""
    descended = loss if descended is None else descended
    rule = optax.with_extra_args_support(rule)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = rule.update(
                jax.grad(descended)(params), state, params, value_fn=loss, value=loss(params)
            )
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, rule.init(params)), length=steps)[0]

    return run(start(dtype))


def close(found, expected, rtol=1e-7):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), found, expected
    )


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_penalty_before_it_makes_it_that_of_the_penalized_loss(name, problem):
    loss = PROBLEMS[problem]
    make = OPTIMIZERS[name]
    found, _ = followed(optax.chain(transforms.add_gradient_norm_penalty(MU), make(RATE)), loss)
    close(found, followed(make(RATE), loss, penalized(loss))[0])
    if name not in ("noisy_sgd", "sm3", "lars"):
        assert penalized(loss)(found) < penalized(loss)(start())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_decay_after_it_takes_its_share_of_the_first_steps(name):
    make, decayed = OPTIMIZERS[name], start()
    alone = optax.with_extra_args_support(make(RATE))
    state = alone.init(decayed)
    for step in range(4):
        updates, state = alone.update(jax.grad(valley)(decayed), state, decayed)
        share = 0.1 if step < 2 else 0.0
        decayed = jax.tree.map(lambda p, u, s=share: p + u - s * p, decayed, updates)
    rule = optax.chain(make(RATE), transforms.decay_until(0.1, 2))
    close(followed(rule, valley, steps=4)[0], decayed)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_params_keep_their_dtype(name, dtype):
    rule = optax.chain(transforms.add_gradient_norm_penalty(MU), OPTIMIZERS[name](RATE))
    params = start(dtype)
    updates, _ = jax.jit(
        lambda p: optax.with_extra_args_support(rule).update(
            jax.grad(parabola)(p), rule.init(p), p, value_fn=parabola
        )
    )(params)
    moved = optax.apply_updates(params, updates)
    assert {x.dtype for x in jax.tree.leaves(moved)} == {jnp.dtype(dtype)}
    assert all(np.all(np.isfinite(np.asarray(x, float))) for x in jax.tree.leaves(moved))


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "sm3"])  # which refuses them itself
def test_complex_parameters_are_refused_by_name(name):
    rule = optax.chain(transforms.add_gradient_norm_penalty(MU), OPTIMIZERS[name](RATE))
    params = start() | {"z": jnp.ones(2, complex)}
    with pytest.raises(ValueError, match=r"complex leaves are not supported: .*'z'"):
        rule.update(params, rule.init(params), params, value_fn=parabola)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop", "lion"])
def test_injected_rates_and_optimizers_by_leaf(name):
    make = getattr(optax, name)
    plain = optax.chain(transforms.add_gradient_norm_penalty(MU), make(RATE))
    expected, _ = followed(plain, valley, steps=5)
    injected = optax.inject_hyperparams(make)(learning_rate=RATE)
    rule = optax.chain(transforms.add_gradient_norm_penalty(MU), injected)
    close(followed(rule, valley, steps=5)[0], expected, rtol=1e-6)
    by_leaf = optax.partition({"a": make(RATE), "b": make(RATE)}, {"w": "a", "b": "b"})
    rule = optax.chain(transforms.add_gradient_norm_penalty(MU), by_leaf)
    close(followed(rule, valley, steps=5)[0], expected)
    every = optax.MultiSteps(make(RATE), 2).gradient_transformation()
    rule = optax.chain(transforms.add_gradient_norm_penalty(MU), every)
    same = optax.MultiSteps(make(RATE), 2).gradient_transformation()
    close(followed(rule, valley, steps=6)[0], followed(same, valley, penalized(valley), steps=6)[0])
