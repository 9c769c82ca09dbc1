"""What a step of each rule costs, as ratios in one process: `python -m benchmarks transforms`.

MLP 784-256-256-10 (269,322 parameters) in float32; penalties and decays at 2,048 examples, robust
aggregation at 128. Runs unchanged on a GPU.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.network import examples, network
from igr import transforms
from igr.per_example import grouped_gradients, per_example_gradients

Row = tuple[str, float, str, str]


def rows() -> list[Row]:
    """Every measurement as (name, measured, unit, target)."""
    return [*_steps(), *_winsorization(), *_median_of_means()]


def _steps() -> list[Row]:
    params, batch = network(jax.random.key(0), gain=1.0), examples(jax.random.key(1), 2048)
    rules = {
        "plain SGD": optax.with_extra_args_support(optax.sgd(0.1)),
        "EGR": transforms.egr(0.1, 0.1),
        "Metric": transforms.metric_sgd(0.1, 1e-4),
        "Selective L2": transforms.selective_l2_sgd(0.1, 1e-4, 0.1),
    }
    steps = {name: _jitted_step(rule, params) for name, rule in rules.items()}
    times = _seconds({name: (lambda s=s: s(params, batch)) for name, s in steps.items()}, 15)
    plain = times.pop("plain SGD")
    return [(f"{name} step", t / plain, "plain steps", "<= 3.2") for name, t in times.items()]


def _winsorization() -> list[Row]:
    params, batch = network(jax.random.key(0), gain=1.0), examples(jax.random.key(1), 128)
    gradient = jax.jit(jax.grad(_mean_loss))
    each = jax.jit(lambda p, b: per_example_gradients(_example_loss, p, b))
    gradients = each(params, batch)
    rule = transforms.winsorize(10)
    ours = jax.jit(lambda g: rule.update(g, rule.init(params))[0])
    fused = jax.jit(lambda p, b: transforms.winsorized_gradient(_example_loss, p, b, 10))
    plain = jax.jit(lambda g: jax.tree.map(_winsorized_by_percentile, g))
    result, reference = ours(gradients), plain(gradients)
    times = _seconds(
        {
            "gradient": lambda: gradient(params, batch),
            "each": lambda: each(params, batch),
            "ours": lambda: ours(gradients),
            "fused": lambda: fused(params, batch),
        },
        9,
    )
    times |= _seconds({"plain": lambda: plain(gradients)}, 3)
    temporaries = _temporaries(ours, gradients)
    without = _temporaries(fused, params, batch)
    one_pass = fused(params, batch)
    whole = times["each"] + times["plain"]
    return [
        ("per-example gradients, all kept", times["each"] / times["gradient"], "gradients", ""),
        ("winsorize c=10", times["ours"] / times["gradient"], "gradients", ""),
        ("winsorize c=10", times["ours"] / times["plain"], "of jnp.percentile", "<= 0.2"),
        ("winsorize c=10, temporaries", temporaries / 1e6, "MB", ""),
        ("winsorize c=10, error", _error(result, gradients), "eps of the largest", "<= 20"),
        ("winsorized gradient, fused", times["fused"] / times["gradient"], "gradients", ""),
        ("winsorized gradient, fused", times["fused"] / whole, "of jnp.percentile", "<= 0.1"),
        ("winsorized gradient, temporaries", without / 1e6, "MB", "< 10"),
        ("winsorized gradient, error", _error(one_pass, gradients), "eps of the largest", "<= 20"),
        ("the same by jnp.percentile", _error(reference, gradients), "eps of the largest", ""),
    ]


def _median_of_means() -> list[Row]:
    params, batch = network(jax.random.key(0), gain=1.0), examples(jax.random.key(1), 128)
    gradient = jax.jit(jax.grad(_mean_loss))
    rule = transforms.median_of_means(8)

    @jax.jit
    def ours(p, b):
        return rule.update(grouped_gradients(_example_loss, p, b, 8), rule.init(p), p)[0]

    times = _seconds(
        {"gradient": lambda: gradient(params, batch), "ours": lambda: ours(params, batch)}, 30
    )
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return [
        ("median of 8 means", times["ours"] / times["gradient"], "gradients", "<= 3"),
        (
            "median of 8 means, peak",
            _temporaries(ours, params, batch) / one,
            "gradients held",
            "<= 10",
        ),
    ]


def _winsorized_by_percentile(g: jax.Array) -> jax.Array:
    low, high = jnp.percentile(g, jnp.array([10.0, 90.0]), axis=0)
    return jnp.mean(jnp.clip(g, low, high), axis=0)


def _error(result: Any, gradients: Any) -> float:
    """The largest error against numpy in float64.

    In units of eps times the largest value of the same coordinate.
    """
    worst = 0.0
    for r, g in zip(jax.tree.leaves(result), jax.tree.leaves(gradients), strict=True):
        exact = np.asarray(g, np.float64).reshape(g.shape[0], -1)[:, :20_000]
        low, high = np.percentile(exact, [10, 90], axis=0)
        expected = np.clip(exact, low, high).mean(axis=0)
        scale = np.abs(exact).max(axis=0) + np.finfo(np.float32).tiny
        error = np.abs(np.asarray(r, np.float64).reshape(-1)[:20_000] - expected) / scale
        worst = max(worst, float(error.max()) / float(np.finfo(np.float32).eps))
    return worst


def _jitted_step(rule: optax.GradientTransformationExtraArgs, params: Any) -> Callable[..., Any]:
    state = rule.init(params)

    @jax.jit
    def step(params, batch):
        value_fn = lambda p: _mean_loss(p, batch)  # noqa: E731
        value, gradient = jax.value_and_grad(value_fn)(params)
        updates, _ = rule.update(gradient, state, params, value_fn=value_fn)
        return value, optax.apply_updates(params, updates)

    return step


def _example_loss(params: Any, example: Any) -> jax.Array:
    x, y = example
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    logits = x @ params[-1]["w"] + params[-1]["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def _mean_loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean(jax.vmap(_example_loss, (None, 0))(params, batch))


def _temporaries(jitted: Any, *args: Any) -> float:
    """The bytes that the compiled program holds beside its arguments and its result."""
    analysis = jitted.lower(*args).compile().memory_analysis()
    return float("nan") if analysis is None else float(analysis.temp_size_in_bytes)


def _seconds(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median time of each piece of work, run in turns so that all see the same machine."""
    for run in work.values():
        jax.block_until_ready(run())
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, run in work.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}
