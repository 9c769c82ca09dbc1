"""What flows hold beside params, in copies of them, read from the compiled programs.

A function that is one program is only compiled; one that steers several from the host is run, and
every program that it compiles is read on the way. Each limit is what the docstring says.
"""

import inspect
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import igr
from igr import compiled, flows
from igr.backward_error import methods, modified_equation

SIDE, M = 500, 4
keys = jax.random.split(jax.random.key(0), 3)
PARAMS = {  # 252,500
    "w": jax.random.normal(keys[0], (SIDE, SIDE), jnp.float32) / SIDE**0.5,
    "b": jnp.zeros(SIDE, jnp.float32),
    "v": jax.random.normal(keys[1], (SIDE, 4), jnp.float32) / SIDE**0.5,
}
BYTES = sum(x.nbytes for x in PARAMS.values())
BATCH = jax.random.normal(keys[2], (8, SIDE), jnp.float32), jnp.arange(8) % 4
BATCHES = jax.tree.map(lambda x: x.reshape(M, 2, *x.shape[1:]), BATCH)
GD, MOMENTUM = methods.gradient_descent(), methods.heavy_ball(0.9)


def example_loss(params, example):
    x, y = example
    logits = jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def batch_loss(params, batch):
    return jnp.mean(jax.vmap(lambda e: example_loss(params, e))(batch))


def value_fn(params):
    return batch_loss(params, BATCH)


def step_fn(params):
    return jax.tree.map(lambda x, g: x - 0.1 * g, params, jax.grad(value_fn)(params))


def held(program):
    """Temporaries and results of a compiled program, in copies of params."""
    found = program.memory_analysis()
    return (found.temp_size_in_bytes + found.output_size_in_bytes) / BYTES


def of(make, state=PARAMS):
    """What a field holds; it is made when that is asked for, not when tests are collected."""
    return lambda: held(jax.jit(lambda s: make()(1.0, s, None)).lower(state).compile())


def derived(method, order, state=PARAMS, loss=value_fn, **options):
    return of(
        lambda: igr.vector_field(modified_equation(method, order), loss, 0.1, **options), state
    )


def two_phases():
    field = flows.two_phase_field(GD, value_fn, 0.1)
    return of(lambda: field, jax.eval_shape(field.start, PARAMS))()


def noise_of_sampled(t, params, args):
    field = flows.sampled_field(GD, batch_loss, 0.1, BATCHES)
    return field.diffusion(t, params, args).mv(jnp.ones(M, jnp.float32))


def noise_of_sgd(t, params, args):
    return sgd_field().diffusion(t, params, args).mv(jnp.ones(8, jnp.float32))


def steps_of_signs():
    sign = methods.rule(lambda g: jax.tree.map(jnp.sign, g))
    return flows.stochastic_rule_field(sign, batch_loss, 0.1, BATCHES)


def noise_of_signs(t, params, args):
    return steps_of_signs().diffusion(t, params, args).mv(jnp.ones(M, jnp.float32))


def path(make):
    walk = lambda p: flows.stochastic_flow(make(), p, 0.4, key=jax.random.key(0)).ys
    return lambda: held(jax.jit(walk).lower(PARAMS).compile())


def sgd_field():
    equation = modified_equation(methods.sgd_with_replacement(4), 1)
    return flows.stochastic_field(equation, example_loss, 0.1, BATCH)


def slope_of_modified_value():
    value = flows.modified_value_fn(modified_equation(GD, 1), value_fn, 0.1)
    return held(jax.jit(jax.grad(value)).lower(PARAMS).compile())


def plain_run():
    run = lambda p: igr.run(optax.adam(0.1), value_fn, p, 4, record_every=4).params
    return held(jax.jit(run).lower(PARAMS).compile())


FEW = {"w": jnp.ones((40, 5), jnp.float32)}  # 200 parameters, whose covariance is 200 x 200


def few_loss(params, example):
    return jnp.sum(jnp.tanh(example[0][:40] @ params["w"])) ** 2


def spread(make):
    """Of an equation of mean and covariance, in matrices of the covariance's size."""

    def most():
        state = FEW, jnp.zeros((200, 200), jnp.float32)
        found = jax.jit(lambda s: make()(0.0, s, None)).lower(state).compile()
        return held(found) * BYTES / (4 * 200**2)

    return most


def moments():
    equation = modified_equation(methods.sgd_with_replacement(4), 1)
    return flows.moments_field(equation, few_loss, 0.1, BATCH)


def spread_of_sampled():
    loss = lambda p, b: jnp.mean(jax.vmap(lambda e: few_loss(p, e))(b))
    return flows.spread_field(flows.sampled_field(GD, loss, 0.1, BATCHES))


def along_a_run():
    """Beside the iterates, in copies of all of them."""
    trajectory = igr.run(optax.sgd(0.1), value_fn, PARAMS, 7)
    of = lambda p: flows.modified_field_along(trajectory._replace(params=p), 1).field
    return held(jax.jit(of).lower(trajectory.params).compile()) / 8


def run_in_epochs():
    orders = jnp.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    epochs = lambda p: flows.run_epochs(optax.adam(0.1), batch_loss, p, BATCHES, orders)
    return held(jax.jit(epochs).lower(PARAMS).compile())


def steered(work):
    """The most that any of the programs holds that `work` runs."""

    def most():
        seen = []

        def call(self, arrays):
            if any(isinstance(x, jax.core.Tracer) for x in arrays):
                return self._run(arrays)
            program = self._run.lower(arrays).compile()
            seen.append(held(program.compiled))
            return program(arrays)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled._Call, "__call__", call)
            patch.setattr(compiled, "_PROGRAMS", compiled._Recent(compiled.PROGRAMS_KEPT))
            work()
        return max(seen)

    return most


def two_phase_flow(method=GD, **options):
    return steered(
        lambda: flows.two_phase_flow(
            method, value_fn, PARAMS, 0.01, 0.03, record_every=3, progress=False, **options
        )
    )


def central_flow(k, **options):
    return steered(
        lambda: flows.central_flow(
            value_fn, PARAMS, 0.01, 0.02, k, record_every=2, progress=False, **options
        )
    )


def compared(**options):
    return steered(
        lambda: igr.compare(
            value_fn, PARAMS, 0.1, 4, (0, 1), record_every=4, progress=False, **options
        )
    )


def compared_over_batches(runs):
    return steered(
        lambda: igr.compare(
            batch_loss, PARAMS, 0.1, None, (0, 1), epochs=2, batches=BATCHES, runs=runs,
            key=jax.random.key(0), sharpness=False, progress=False,
        )
    )  # fmt: skip


FEW_COPIES = 6  # which no docstring has to name
ADAM = (PARAMS, {"nu": PARAMS})
# By name: how many copies of params are held beside them, the most that may be, whose docstring
# says so, and in which words.
TABLE = {
    "order 1": (derived(GD, 1), 5, igr.vector_field, "six copies"),
    "order 1 of Adam": (derived(methods.adam(), 1, ADAM), 4, igr.vector_field, "six copies"),
    "differences": (
        derived(GD, 1, derivatives="differences"), 5, igr.vector_field, "six copies",
    ),
    "order 2 in epochs": (
        derived(methods.reshuffled_sgd(M), 2, loss=batch_loss, batches=BATCHES),
        11.1, flows.reshuffled_field, "in 11 copies",
    ),
    "order 2": (derived(GD, 2), 3, igr.vector_field, "four for gradient descent"),
    "order 2 of momentum": (derived(MOMENTUM, 2), 3, igr.vector_field, "and momentum"),
    "order 2 of Adam": (derived(methods.adam(), 2, ADAM), 6, igr.vector_field, "eight for Adam"),
    "modified loss": (slope_of_modified_value, FEW_COPIES, None, ""),
    "interpolating": (
        of(lambda: igr.interpolating_field(step_fn, 3, 0.1)),
        4, igr.interpolating_field, "order copies",
    ),
    "reshuffled, order 0": (
        of(lambda: flows.reshuffled_field(GD, batch_loss, 0.1, BATCHES, order=0)),
        M + 2, flows.reshuffled_field, "m copies",
    ),
    "reshuffled, order 1": (
        of(lambda: flows.reshuffled_field(MOMENTUM, batch_loss, 0.1, BATCHES)),
        6 * M + 2, flows.reshuffled_field, "6 m",
    ),
    "reshuffled Adam, order 1": (
        of(lambda: flows.reshuffled_field(methods.adam(), batch_loss, 0.1, BATCHES), ADAM),
        17 * M + 2, flows.reshuffled_field, "17 m for Adam",
    ),
    "sampled, order 1": (
        of(lambda: flows.sampled_field(MOMENTUM, batch_loss, 0.1, BATCHES).drift),
        6 * M + 2, flows.sampled_field, "6 m",
    ),
    "noise of sampled": (
        of(lambda: noise_of_sampled), 2 * M + 2, flows.sampled_field, "2 m",
    ),
    "noise of SGD": (
        of(lambda: noise_of_sgd), 4, flows.stochastic_field, "No gradient of a single example",
    ),
    "drift of SGD": (of(lambda: sgd_field().drift), 5, igr.vector_field, "six copies"),
    "a path of SGD": (path(sgd_field), 4 + 2.1, flows.stochastic_flow, "Four copies"),
    "moments": (spread(moments), 5, flows.moments_field, "five matrices"),
    "spread": (spread(spread_of_sampled), 6, flows.spread_field, "six matrices"),
    "drift of signs": (
        of(lambda: steps_of_signs().drift), 2 * M + 2, flows.stochastic_rule_field, "2 m copies",
    ),
    "noise of signs": (
        of(lambda: noise_of_signs), 2 * M + 2, flows.stochastic_rule_field, "2 m copies",
    ),
    "a path of signs": (path(steps_of_signs), 4 + 2 * M, flows.stochastic_flow, "Four copies"),
    "along a run": (along_a_run, 5, flows.modified_field_along, "four copies"),
    "run": (plain_run, 2 * 2 + 5, igr.run, "twice over"),
    "run in epochs": (run_in_epochs, 3 + 5.1, flows.run_epochs, "params once an epoch"),
    "two phases": (two_phases, 9, flows.two_phase_field, "9 copies"),
    "two-phase flow": (two_phase_flow(), 17, flows.two_phase_flow, "17 copies"),
    "two-phase flow of momentum": (
        two_phase_flow(MOMENTUM), 26, flows.two_phase_flow, "9 more",
    ),
    "two-phase flow in 4 directions": (
        two_phase_flow(directions=4), 17 + 24, flows.two_phase_flow, "6 k",
    ),
    "central flow in 1": (central_flow(1), 21, flows.central_flow, "at least 21"),
    "central flow in 3": (central_flow(3), 33, flows.central_flow, "33 copies"),
    "central flow of RMSProp": (
        central_flow(3, decay=0.9), 60, flows.central_flow, "60 copies",
    ),
    "compare": (compared(), 21 + 2, igr.compare, "21 copies"),
    "compare Adam": (
        compared(optimizer=optax.adamw), 2 * 21 + 2, igr.compare, "and of each kept state",
    ),
    "compare over batches": (
        compared_over_batches(8), 3 * 8 + 11, igr.compare, "three copies of params",
    ),
    "certify": (
        steered(lambda: igr.certify(GD, optax.sgd, value_fn, PARAMS)),
        24, igr.observed_order, "24 copies",
    ),
}  # fmt: skip

OTHERWISE = {
    "flow": "in test_memory and in compare",
    "certify": "several of observed_order, one after the other",
    "modified_value_fn": "modified loss",
    "from_optax": "reads at small params of its own",
    "optimizer_of": "a transformation, which run runs",
    "reached": "reads a solution",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_copies_of_params_are_few_or_named(name):
    work, most, function, says = TABLE[name]
    assert work() <= most
    if function is not None:
        assert re.search(says, " ".join(function.__doc__.split()))


def test_every_function_of_flows_is_in_the_table():
    named = {function.__name__ for _, _, function, _ in TABLE.values() if function is not None}
    for name in flows.__all__:
        thing = getattr(flows, name)
        if inspect.isfunction(thing):
            assert name in named | set(OTHERWISE)


def test_programs_that_are_steered_are_seen():
    most = steered(lambda: igr.run(optax.sgd(0.1), value_fn, PARAMS, 8, record_every=1))
    assert 9 <= most() <= 2 * 9 + 4  # nine records, and those without the last
