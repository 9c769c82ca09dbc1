"""Optimizers as people put them together, read from their code and beside their own steps."""

import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

import igr
from igr.tracing import UnreadableOptimizerError
from tests.quick import quick

PARAMS = {
    "w": jax.random.normal(jax.random.key(0), (4, 3)) / 2,
    "b": jnp.array([0.1, -0.2, 0.3]),
}
X = jax.random.normal(jax.random.key(1), (12, 4))
Y = jax.random.normal(jax.random.key(2), (12, 3))


def loss(p):
    return jnp.mean((jnp.tanh(X @ p["w"] + p["b"]) - Y) ** 2)


def matrices(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def skipping(h):
    """AdamW by hand around, with steps that are not finite left out."""
    inner = optax.adamw(h)

    def update(g, state, params=None):
        good = jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(g)]))
        updates, after = inner.update(g, state, params)
        updates = jax.tree.map(lambda x: jnp.where(good, x, 0), updates)
        return updates, jax.tree.map(lambda a, b: jnp.where(good, a, b), after, state)

    return optax.GradientTransformation(inner.init, update)


def with_average(h):
    """Adam beside an average of params that nothing reads."""
    inner = optax.adam(h)

    def update(g, state, params=None):
        updates, after = inner.update(g, state[0], params)
        moved = optax.apply_updates(params, updates)
        return updates, (after, jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b, state[1], moved))

    return optax.GradientTransformation(lambda p: (inner.init(p), p), update)


def scheduled(h):
    rate = optax.warmup_cosine_decay_schedule(0, h, 10, 1000)
    return optax.inject_hyperparams(optax.adamw)(learning_rate=rate, weight_decay=0.1)


def joined(h):
    parts = [optax.linear_schedule(0, h, 20), optax.exponential_decay(h, 50, 0.5)]
    return optax.adamw(optax.join_schedules(parts, [20]))


TOGETHER = {
    "average of params": (with_average, 1e-3),
    "steps skipped": (skipping, 1e-3),
    "trust ratio": (
        lambda h: optax.chain(
            optax.scale_by_adam(),
            optax.add_decayed_weights(1e-2, mask=matrices),
            optax.scale_by_trust_ratio(),
            optax.scale_by_learning_rate(h),
        ),
        1e-3,
    ),
    "centralized": (lambda h: optax.chain(optax.centralize(), optax.sgd(h, 0.9)), 5e-3),
    "masked decay": (
        lambda h: optax.chain(
            optax.add_decayed_weights(0.1, mask=matrices), optax.sgd(h, 0.9, nesterov=True)
        ),
        5e-3,
    ),
    "rates by group": (
        lambda h: optax.multi_transform(
            {"a": optax.adamw(h), "s": optax.sgd(h * 10, 0.9)}, {"w": "a", "b": "s"}
        ),
        1e-3,
    ),
    "a part frozen": (
        lambda h: optax.multi_transform(
            {"a": optax.adam(h), "f": optax.set_to_zero()}, {"w": "a", "b": "f"}
        ),
        1e-3,
    ),
    "injected rate": (scheduled, 1e-3),
    "injected memory": (
        lambda h: optax.inject_hyperparams(optax.adam)(h, optax.linear_schedule(0.85, 0.95, 200)),
        1e-3,
    ),
    "joined schedules": (joined, 1e-3),
    "clipped if finite": (
        lambda h: optax.apply_if_finite(
            optax.chain(optax.clip_by_global_norm(1.0), optax.adam(h)), 3
        ),
        1e-3,
    ),
    "free of schedules": (lambda h: contrib.schedule_free_sgd(h, b1=0.9, warmup_steps=10), 1e-2),
    "adaptive clipping": (
        lambda h: optax.chain(optax.adaptive_grad_clip(0.01), optax.sgd(h, 0.9)),
        5e-3,
    ),
    "clipped by block": (
        lambda h: optax.chain(
            optax.scale_by_adam(), optax.clip_by_block_rms(1.0), optax.scale_by_learning_rate(h)
        ),
        1e-3,
    ),
    "normalized": (lambda h: optax.chain(contrib.normalize(), optax.sgd(h, 0.9)), 1e-3),
    "without nans": (lambda h: optax.chain(optax.zero_nans(), optax.adam(h)), 1e-3),
}


@pytest.mark.parametrize("case", quick(TOGETHER))
def test_the_flow_of_order_one_is_closer(case):
    """Than that of order 0, to the steps of the optimizer itself once its memories have filled."""
    make, h = case
    seen = igr.compare(loss, PARAMS, h, 60, (0, 1), optimizer=make, sharpness=False, burn_in=200)
    far, near = (seen.distance[p][-1] / seen.travelled[-1] for p in (0, 1))
    assert far < 0.1
    assert near < far / 2, (far, near)


@pytest.mark.filterwarnings("ignore:.*seed.*is deprecated")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: optax.chain(optax.add_noise(0.1, 0.55, key=0), optax.sgd(h)), "draws at random"),
        (lambda h: optax.chain(optax.apply_every(4), optax.sgd(h)), "only every so many steps"),
        (lambda h: optax.chain(optax.adam(h), contrib.reduce_on_plateau()), "asks for 'value'"),
        (lambda h: optax.chain(optax.clip(0.05), optax.adam(h)), "smooth=1e-2"),
    ],
)
def test_the_others_say_why_not(make, says):
    with pytest.raises(UnreadableOptimizerError, match=says):
        igr.from_optax(make, params=PARAMS)
