"""What a modified vector field costs, against one gradient of the same loss in the same process.

Two tanh MLPs of 100,000 parameters on 1,024 inputs, in float32: 784-120-60-10, the shape of MNIST,
where most weights sit in the first layer, whose input has no derivative; and 64-280-280-10, the
shape of scikit-learn's digits, where most sit between hidden layers, the worst case for higher
derivatives. On a CPU the time is that of the process on all cores, which no other work on the
machine disturbs. Memory is read from the compiled program: temporaries beyond params and result.
On 16 inputs the activations are small beside the parameters, so that what is counted there are
vectors of the parameters' size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.measure import Row, median_seconds
from benchmarks.network import examples, network
from igr import flows
from igr.backward_error import methods, modified_equation

NETWORKS = {"MNIST": (784, 120, 60, 10), "digits": (64, 280, 280, 10)}
_TARGETS = {0: "", 1: "<= 3.5", 2: "<= 8", 3: "", 4: "<= 20"}
_ADAM_TARGETS = {0: "<= 1.5", 1: "<= 5", 2: "<= 15"}
_STEP = 0.01


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    for shape, widths in NETWORKS.items():
        yield from _rows(shape, widths)
    yield from _two_players(NETWORKS["digits"])


def _two_players(widths: tuple[int, ...]) -> Iterator[Row]:
    """Two networks, each on a loss of the outputs of both."""
    x, _ = examples(jax.random.key(1), 256, widths)
    pair = tuple(network(jax.random.key(seed), widths, gain=1.0) for seed in (0, 2))

    def first(z: Any) -> jax.Array:
        return jnp.mean(jnp.sum(_outputs(z[0], x) * jnp.tanh(_outputs(z[1], x)), axis=-1))

    def second(z: Any) -> jax.Array:
        return jnp.mean(jnp.sum((_outputs(z[0], x) - _outputs(z[1], x)) ** 2, axis=-1))

    def gradients(z: Any) -> Any:
        own = jax.grad(lambda theta: first((theta, z[1])))(z[0])
        return own, jax.grad(lambda phi: second((z[0], phi)))(z[1])

    unit = _operations(jax.jit(gradients), pair)
    for how, method in {
        "at once": methods.simultaneous(),
        "in turns": methods.alternating(),
    }.items():
        for order in (1, 2, 3):
            equation = modified_equation(method, order)
            field = flows.vector_field(equation, (first, second), _STEP)
            ratio = _operations(jax.jit(lambda z, f=field: f(0.0, z, None)), pair) / unit
            what = f"two players {how}: operations of the field of order {order}"
            yield Row(what, ratio, "gradients of both")


def _rows(shape: str, widths: tuple[int, ...]) -> Iterator[Row]:
    params = network(jax.random.key(0), widths, gain=1.0)
    batch = examples(jax.random.key(1), 1024, widths)
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    work: dict[str, Any] = {"gradient": jax.jit(_gradient)} | {
        f"order {order}": jax.jit(_field(order)) for order in _TARGETS
    }
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    calls = {name: _on(f, params, batch) for name, f in work.items()}
    seconds = median_seconds(calls, 15, clock=clock)
    for order, target in _TARGETS.items():
        ratio = seconds[f"order {order}"] / seconds["gradient"]
        what = f"{shape}: field of order {order}, {number:,} parameters"
        yield Row(what, ratio, "gradients", target)
    operations = {name: _operations(f, params, batch) for name, f in work.items()}
    for order in _TARGETS:
        ratio = operations[f"order {order}"] / operations["gradient"]
        yield Row(f"{shape}: operations of the field of order {order}", ratio, "gradients")
    adam = {f"order {order}": jax.jit(_adam_field(order)) for order in _ADAM_TARGETS}
    calls = {"gradient": calls["gradient"]} | {
        name: _on(f, params, batch) for name, f in adam.items()
    }
    seconds = median_seconds(calls, 15, clock=clock)
    for order, target in _ADAM_TARGETS.items():
        ratio = seconds[f"order {order}"] / seconds["gradient"]
        what = f"{shape}: field of Adam, second moment kept, order {order}"
        yield Row(what, ratio, "gradients", target)
    yield from _rule_rows(shape, calls["gradient"], params, batch, clock)
    step = jax.jit(_interpolating)
    calls = {"gradient": calls["gradient"], "step": _on(step, params, batch)}
    seconds = median_seconds(calls, 15, clock=clock)
    ratio = seconds["step"] / seconds["gradient"]
    yield Row(f"{shape}: interpolating field of order 1", ratio, "gradients")
    few = examples(jax.random.key(1), 16, widths)
    for name, f in work.items():
        temporaries = f.lower(params, few).compile().memory_analysis().temp_size_in_bytes
        target = "<= 30" if name == "order 4" else ""
        yield Row(f"{shape}: temporaries of {name}", temporaries / (4 * number), "params", target)


def _rule_rows(
    shape: str, gradient: Callable[[], Any], params: Any, batch: Any, clock: Callable[[], float]
) -> Iterator[Row]:
    """Momentum clipped by its global norm, a rule that is code: by Taylor mode."""
    clip = flows.rules.stateless(optax.clip_by_global_norm(0.1))
    method = methods.rule(lambda m, theta: clip(m, theta), {"m": methods.ema(0.9)})
    work: dict[str, Any] = {
        f"order {order}": _on(jax.jit(_field(order, method)), params, batch) for order in (0, 1, 2)
    }
    work["rule"] = _on(jax.jit(clip), params, params)
    seconds = median_seconds({"gradient": gradient, **work}, 15, clock=clock)
    for order, target in {0: "", 1: "<= 3.5", 2: ""}.items():
        ratio = (seconds[f"order {order}"] - seconds["rule"]) / seconds["gradient"]
        what = f"{shape}: field of clipped momentum, order {order}, the rule once taken off"
        yield Row(what, ratio, "gradients", target)


def loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The mean cross-entropy of the tanh network."""
    x, labels = batch
    logits = _outputs(params, x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _outputs(params: Any, x: jax.Array) -> jax.Array:
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def _gradient(params: Any, batch: Any) -> Any:
    return jax.grad(loss)(params, batch)


def _field(order: int, method: Any = None) -> Callable[[Any, Any], Any]:
    equation = modified_equation(methods.gradient_descent() if method is None else method, order)
    return lambda params, batch: flows.vector_field(equation, lambda p: loss(p, batch), _STEP)(
        0.0, params, None
    )


def _adam_field(order: int) -> Callable[[Any, Any], Any]:
    equation = modified_equation(methods.adam(), order)

    def field(params: Any, batch: Any) -> Any:
        kept = {"nu": jax.tree.map(lambda x: 1e-4 + 1e-3 * x**2, params)}
        f = flows.vector_field(equation, lambda p: loss(p, batch), _STEP)
        return f(1.0, (params, kept), None)

    return field


def _interpolating(params: Any, batch: Any) -> Any:
    def step(p: Any) -> Any:
        return jax.tree.map(lambda x, g: x - _STEP * g, p, _gradient(p, batch))

    return flows.interpolating_field(step, 1, _STEP)(0.0, params, None)


def _operations(f: Any, *args: Any) -> float:
    """Floating-point operations as the compiler counts them: a cost without noise."""
    analysis = f.lower(*args).compile().cost_analysis()
    return float(analysis["flops"])


def _on(f: Callable[..., Any], params: Any, batch: Any) -> Callable[[], Any]:
    return lambda: f(params, batch)
