"""What penalties cost, in gradients of the plain loss: `python -m benchmarks penalties`.

MLP 784-256-256-10 and the same with 200 classes, batch 128, float32, random images. The unit of a
network is the gradient of its own mean cross-entropy; times are those of all cores together. A
penalty's gradient is that of the penalty alone; what a training step gains by sharing the forward
pass with the loss is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measure import Row, median_seconds
from benchmarks.network import WIDTHS, example_loss, logits, network
from igr import penalties

BATCH = 128
CLASSES = (10, 200)
REPEATS = 15


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    cost = {classes: _costs(classes) for classes in CLASSES}
    few, many = (cost[classes] for classes in CLASSES)
    yield Row("tr K by one probe", few["probe"], "gradients", "<= 1.6")
    yield Row("tr K by one probe, its gradient", few["probe'"], "gradients", "<= 4")
    yield Row("tr K exactly", few["trace"], "gradients", "<= 3")
    yield Row("tr K exactly, its gradient", few["trace'"], "gradients")
    yield Row("log det K for 128 x 10 outputs, its gradient", few["logdet'"], "gradients")
    for name, target in (
        ("double_backprop", "<= 4"),
        ("spectral_penalty", "<= 4"),
        ("spectral_penalty, an example", "<= 4"),
        ("spectral_penalty, spherical", "<= 4"),
        ("loss_gradient_penalty", ""),
        ("loss_gradient_penalty by inputs", ""),
        ("confidence_penalty", ""),
        ("frobenius_penalty", ""),
        ("jacobian_penalty", ""),
    ):
        yield Row(f"{name}, its gradient", few[name], "gradients", target)
        if name in many:
            what = f"{name}, its gradient, 200 classes"
            yield Row(what, many[name], "gradients", target)
    growth = {name: many[name] / few[name] for name in many if name in few}
    yield Row("spectral_penalty, 200 classes", growth["spectral_penalty"], "of 10", "<= 1.25")
    yield Row("double_backprop, 200 classes", growth["double_backprop"], "of 10", "<= 1.25")
    yield Row("frobenius_penalty, 200 classes", growth["frobenius_penalty"], "of 10", ">= 5")


def _costs(classes: int) -> dict[str, float]:
    """Times in gradients, by name; a prime is a gradient."""
    params = network(jax.random.key(0), (*WIDTHS[:-1], classes))
    x = jax.random.uniform(jax.random.key(1), (BATCH, WIDTHS[0]))
    y = jax.random.randint(jax.random.key(2), (BATCH,), 0, classes)
    key = jax.random.key(3)

    def of_network(penalty: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return lambda p, x, y, key: penalty(logits, p, x, **options)

    def of_loss(penalty: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return lambda p, x, y, key: penalty(example_loss, p, x, y, **options)

    def drawn(penalty: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return lambda p, x, y, key: penalty(logits, p, x, key=key, **options)

    probe = drawn(penalties.gradient_similarity_trace, method="random_signs")
    gradients = {
        "gradient": lambda p, x, y, key: jnp.mean(
            jax.vmap(lambda x, y: example_loss(p, (x, y)))(x, y)
        ),
        "double_backprop": of_loss(penalties.double_backprop),
        "spectral_penalty": drawn(penalties.spectral_penalty),
        "spectral_penalty, spherical": drawn(penalties.spectral_penalty, spherical=True),
        "spectral_penalty, an example": drawn(penalties.spectral_penalty, draw="example"),
        "frobenius_penalty": of_network(penalties.frobenius_penalty),
    }
    values = {}
    if classes == CLASSES[0]:
        trace = of_network(penalties.gradient_similarity_trace)
        values = {"probe": probe, "trace": trace}
        gradients |= {
            "probe'": probe,
            "trace'": trace,
            "logdet'": of_network(penalties.gradient_similarity_logdet, ridge=1.0),
            "loss_gradient_penalty": of_loss(penalties.loss_gradient_penalty),
            "loss_gradient_penalty by inputs": of_loss(
                penalties.loss_gradient_penalty, by="inputs"
            ),
            "confidence_penalty": of_network(penalties.confidence_penalty),
            "jacobian_penalty": of_network(penalties.jacobian_penalty),
        }
    work = {name: jax.jit(jax.grad(fn)) for name, fn in gradients.items()}
    work |= {name: jax.jit(fn) for name, fn in values.items()}
    seconds = median_seconds(
        {name: partial(fn, params, x, y, key) for name, fn in work.items()},
        REPEATS,
        clock=time.process_time,
    )
    unit = seconds.pop("gradient")
    return {name: value / unit for name, value in seconds.items()}
