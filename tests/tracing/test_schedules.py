"""Learning rates that end: what is read is held against the optimizer where it still moves."""

from dataclasses import replace

import jax.numpy as jnp
import optax
import pytest

import igr
from igr.flows.certifying import own_steps
from igr.flows.certifying.own_steps import check_own_steps
from igr.tracing import UnreadableOptimizerError, read_optimizer

OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "adam": optax.adam,
    "adamw": lambda rate: optax.adamw(rate, weight_decay=0.1),
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate)),
}
SCHEDULES = {
    "linear": lambda h, n: optax.linear_schedule(h, 0.0, n),
    "warmup_cosine": lambda h, n: optax.warmup_cosine_decay_schedule(0.0, h, min(20, n // 2), n),
    "cosine": optax.cosine_decay_schedule,
    "join": lambda h, n: optax.join_schedules(
        [optax.constant_schedule(h), optax.linear_schedule(h, 0.0, n - n // 2)], [n // 2]
    ),
    "polynomial": lambda h, n: optax.polynomial_schedule(h, 0.0, 2, n),
    "exponential": lambda h, n: optax.exponential_decay(h, n, 0.9),  # Adam forgets by 0.9 too
    "each_step": lambda h, n: optax.exponential_decay(h, 1, 0.1 ** (1 / n)),
    "pieces": lambda h, n: optax.piecewise_constant_schedule(h, {n // 2: 0.1, n: 0.0}),
}


def made(optimizer, schedule, n):
    return lambda h: OPTIMIZERS[optimizer](SCHEDULES[schedule](h, n))


@pytest.mark.parametrize(
    ("optimizer", "schedule", "n"),
    [("sgd", "linear", 30), ("adamw", "linear", 100), ("adam", "exponential", 1000)],
)
def test_what_decays_is_certified(optimizer, schedule, n):
    igr.from_optax(made(optimizer, schedule, n))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_length_is_certified(optimizer, schedule):
    for n in (10, 30, 100, 200, 1000, 10_000):
        igr.from_optax(made(optimizer, schedule, n))


def adam(b1=0.9, b2=0.999, decay=0.1, end=0.0, shift=0, n=100):
    """AdamW whose rate falls to an end in n steps, begun some steps late."""

    def make(h):
        rate = optax.linear_schedule(h, end * h, n)
        return optax.adamw(lambda count: rate(count + shift), b1, b2, weight_decay=decay)

    return make


def descent(end=0.0, shift=0, after=None, n=30, start=1.0):
    """Gradient descent whose rate falls to an end, with a decay of params after a step."""

    def make(h):
        rate = optax.linear_schedule(start * h, end * h, n)
        sgd = optax.sgd(lambda count: rate(count + shift))
        if after is None:
            return sgd
        decay = optax.scale_by_schedule(lambda count: jnp.where(count < after, 1e-4, 0.0))
        return optax.chain(sgd, optax.add_decayed_weights(-h), decay)

    return make


def falling(last, every=1, b=0.9):
    """Adam with a rate that falls by a factor in so many steps, to an end or not."""
    return lambda h: optax.adam(optax.exponential_decay(h, every, b, end_value=last * h))


WRONG = {
    "shifted": (descent(), descent(shift=1)),
    "end": (descent(), descent(end=1e-6)),
    "adam": (adam(), adam(b1=0.90001)),
}
MORE = {
    "long": (descent(n=10_000), descent(n=10_000, shift=1)),
    "length": (descent(n=10_000), descent(n=10_001)),
    "slower": (descent(), descent(start=1.00001)),
    "second": (adam(), adam(b2=0.99899)),
    "decay": (adam(), adam(decay=0.10001)),
    "adam_end": (adam(), adam(end=1e-5)),
    "adam_shifted": (adam(n=30), adam(n=30, shift=1)),
    "adam_late": (adam(n=1000), adam(n=1000, shift=-1)),
    "last_decay": (descent(after=500), descent(after=501)),
    "fall": (falling(1e-2, 1000), falling(1e-2, 1000, 0.9001)),
    "fallen": (falling(1e-2, 1000), falling(1.001e-2, 1000)),
    "same_factor": (falling(1e-2), falling(0.0)),
}


@pytest.mark.parametrize("name", [*WRONG, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE)])
def test_another_reading_is_refused(name):
    """The description of one optimizer, held against the steps of another."""
    right, wrong = (read_optimizer(make) for make in {**WRONG, **MORE}[name])
    assert right.description is not None
    assert wrong.description is not None
    description = replace(wrong.description, dropped=right.description.dropped)
    check_own_steps(right)
    with pytest.raises(UnreadableOptimizerError, match="does not take its steps"):
        check_own_steps(replace(right, method=wrong.method, description=description))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [descent(shift=1), descent(end=1e-5), descent(n=31)])
def test_another_reading_of_coupled_elements_is_refused(wrong, monkeypatch):
    """Of single precision: the count is replayed in double, the optimizer's schedule is not."""
    monkeypatch.setattr(own_steps, "_certified", set())  # where rules are known by their code
    clipped = lambda make: lambda h: optax.chain(optax.clip_by_global_norm(1.0), make(h))
    right, other = (read_optimizer(clipped(make)) for make in (descent(), wrong))
    with pytest.raises(UnreadableOptimizerError, match="does not take its steps"):
        check_own_steps(replace(right, method=other.method))
    check_own_steps(right)


def test_gradients_passed_on_as_they_are_have_no_flow():
    """Before its condition holds optax passes on the gradient itself, of any learning rate."""
    late = lambda h: optax.conditionally_transform(optax.sgd(h), lambda step: step >= 10)
    with pytest.raises(UnreadableOptimizerError, match="in steps 0 to 9 its update does not go"):
        igr.from_optax(late)
    igr.from_optax(lambda h: optax.conditionally_mask(optax.sgd(h), lambda step: step >= 10))
