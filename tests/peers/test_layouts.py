"""Parameters and data spread over four devices, on axes of either kind: numbers, types, no gather.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more.
"""

import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from igr import curvature, diagnostics, penalties, per_example, transforms

pytestmark = pytest.mark.slow
SPECS = {"w": P("x", "y"), "v": P("y", "x")}
SIZES = {"w": (8, 12), "v": (12, 4)}

# The rules, with parameters whose two axes are both spread.
RULES = {
    "egr": transforms.egr(0.1, 0.3, 0.9),
    **{
        metric: transforms.metric_sgd(0.1, 0.02, metric)
        for metric in (
            "hessian", "absolute_hessian", "absolute_distance", "absolute_shrinkage",
            "absolute_product",
        )
    },
    "selective_l2_sgd": transforms.selective_l2_sgd(0.1, 0.02, 0.3),
    "selective of all": transforms.selective_l2_sgd(0.1, 0.02, 0.3, layers="all"),
    "l2_stopped_sgd": transforms.l2_stopped_sgd(0.1, 0.02, 1),
    "l2_stopped_selective_sgd": transforms.l2_stopped_selective_sgd(0.1, 0.02, 1, 0.3),
    "drift_adjusted": transforms.drift_adjusted(),
}  # fmt: skip


def network(params, x, mesh):
    """Its products say how their results lie, where the axes are explicit."""

    def lying(*axes):
        explicit = mesh is not None and AxisType.Explicit in mesh.axis_types
        return NamedSharding(mesh, P(*axes)) if explicit else None

    hidden = jnp.tanh(jnp.einsum("ni,ij->nj", x, params["w"], out_sharding=lying(None, "y")))
    return jnp.einsum("ni,ij->nj", hidden, params["v"], out_sharding=lying(None, "x"))


def stepped(rule, params, x, mesh):
    loss = lambda p: jnp.mean((network(p, x, mesh) - 1) ** 2)
    state = rule.init(params)
    for _ in range(2):
        updates, state = rule.update(jax.grad(loss)(params), state, params, value_fn=loss)
        params = optax.apply_updates(params, updates)
    return params


def of_one(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def closing_over(fn):
    """A function over a batch, of a loss that closes over weights that are not trained."""

    def run(params, x, frozen):
        return fn(lambda p, x: jnp.sum(of_one(p, frozen * x) ** 2), params, x)

    return run


def over_all(fn):
    """A function of a loss that closes over the data."""

    def run(params, x, frozen):
        return fn(lambda p: jnp.mean(jnp.sum(of_one(p, frozen * x) ** 2, axis=-1)), params)

    return run


CLOSING = {
    "per_example_gradients": closing_over(per_example.per_example_gradients),
    "grouped_gradients": closing_over(lambda f, p, x: per_example.grouped_gradients(f, p, x, 4)),
    "coherence": closing_over(diagnostics.coherence),
    "coherence in chunks": closing_over(lambda f, p, x: diagnostics.coherence(f, p, x, chunk=8)),
    "stiffness": closing_over(diagnostics.stiffness),
    "batch_sharpness": closing_over(lambda f, p, x: diagnostics.batch_sharpness(f, p, x, 4)),
    "winsorized_gradient": closing_over(
        lambda f, p, x: transforms.winsorized_gradient(f, p, x, 20)
    ),
    "tangent_kernel": closing_over(diagnostics.tangent_kernel),
    "tangent_kernel_trace": closing_over(diagnostics.tangent_kernel_trace),
    "geometric_complexity": closing_over(diagnostics.geometric_complexity),
    "frobenius_penalty": closing_over(penalties.frobenius_penalty),
    "hessian of a batch": closing_over(lambda f, p, x: curvature.hessian_product(f, p, x)(p)),
    "fisher": closing_over(lambda f, p, x: curvature.fisher_product(f, p, x, chunk=4)(p)),
    "sharpness of a batch": closing_over(lambda f, p, x: curvature.sharpness(f, p, x).value),
    "hessian": over_all(lambda f, p: curvature.hessian_product(f, p)(p)),
    "sharpness": over_all(lambda f, p: curvature.sharpness(f, p).value),
    "slope": over_all(diagnostics.loss_surface_slope),
    "root_diagonal_trace": over_all(diagnostics.root_diagonal_trace),
    "egr": over_all(lambda f, p: transforms.egr_value_and_grad(f, 0.1)(p)),
    "metric": over_all(lambda f, p: transforms.metric_value_and_grad(f, 0.1)(p)),
}


class Model:
    """A network that keeps an array in an attribute."""

    def __init__(self, frozen):
        self.frozen = frozen

    def apply(self, params, x):
        return of_one(params, self.frozen * x)

    def loss(self, params, x):
        return jnp.sum(self.apply(params, x) ** 2)

    __call__ = loss


def with_a_rule(frozen):
    """A function with a derivative of its own, which closes over the array as it does."""

    @jax.custom_vjp
    def multiplied(x):
        return frozen * x

    multiplied.defvjp(lambda x: (frozen * x, None), lambda _, g: (g * frozen,))
    return lambda p, x: jnp.sum(of_one(p, multiplied(x)) ** 2)


def closing(model):
    return lambda p, x: model.loss(p, x)


HELD = {
    "bound method": lambda f: Model(f).loss,
    "object": Model,
    "method in a closure": lambda f: closing(Model(f)),
    "compiled": lambda f: jax.jit(lambda p, x: jnp.sum(of_one(p, f * x) ** 2)),
    "compiled method": lambda f: jax.jit(Model(f).loss),
    "rematerialized": lambda f: jax.checkpoint(lambda p, x: jnp.sum(of_one(p, f * x) ** 2)),
    "namespace": lambda f: closing(SimpleNamespace(loss=Model(f).loss)),
    "rule of its own": with_a_rule,
}


def held(kind, fn):
    """A function over a batch, of a loss that holds weights that are not trained in some way."""
    return lambda params, x, frozen: fn(HELD[kind](frozen), params, x)


for _kind in HELD:
    CLOSING[f"stiffness, {_kind}"] = held(_kind, diagnostics.stiffness)
    CLOSING[f"grouped gradients, {_kind}"] = held(
        _kind, lambda f, p, x: per_example.grouped_gradients(f, p, x, 4)
    )


@pytest.fixture(scope="module")
def found(on_four_devices):
    return on_four_devices(__file__)


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_spread_parameters(found, name, axes):
    result = found[axes][name]
    assert not isinstance(result, str), result
    assert result["difference"] < 1e-9
    assert result["layout kept"]
    assert result["gathered"] == []


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
@pytest.mark.parametrize("name", CLOSING)
def test_what_a_loss_closes_over_may_lie_on_the_mesh(found, name, axes):
    result = found[axes][str(("closing over", name))]
    assert not isinstance(result, str), result
    assert result < 1e-7


def main():
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    params = {k: jnp.asarray(rng.normal(size=s) / 3) for k, s in SIZES.items()}
    x, frozen = jnp.asarray(rng.normal(size=(16, 8))), jnp.asarray(rng.normal(size=8))
    expected = {
        name: jax.jit(lambda p, x, rule=rule: stepped(rule, p, x, None))(params, x)
        for name, rule in RULES.items()
    }
    expected |= {("closing over", k): run(params, x, frozen) for k, run in CLOSING.items()}
    results = {}
    for axes in ("Auto", "Explicit"):
        results[axes] = on_mesh(getattr(AxisType, axes), params, x, frozen, expected)
    print(json.dumps({k: {str(name): v for name, v in r.items()} for k, r in results.items()}))


def on_mesh(kind, params, x, frozen, expected):
    square = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind,) * 2)
    line = jax.make_mesh((4,), ("d",), axis_types=(kind,))
    spread = {k: jax.device_put(p, NamedSharding(square, SPECS[k])) for k, p in params.items()}
    everywhere = jax.device_put(x, NamedSharding(square, P()))
    results = {}
    for name, rule in RULES.items():
        results[name] = or_error(
            lambda r=rule: moved(r, spread, everywhere, square), expected[name]
        )
    replicated = jax.device_put((params, frozen), NamedSharding(line, P()))
    split = jax.device_put(x, NamedSharding(line, P("d")))
    for name, run in CLOSING.items():
        key = "closing over", name

        def called(run=run):
            with jax.set_mesh(line):
                return {"found": run(replicated[0], split, replicated[1])}

        result = or_error(called, expected[key])
        results[key] = result if isinstance(result, str) else result["difference"]
    return results


def moved(rule, params, x, mesh):
    with jax.set_mesh(mesh):
        run = jax.jit(
            lambda p, x: stepped(rule, p, x, mesh),
            out_shardings={k: p.sharding for k, p in params.items()},
        )
        program = run.lower(params, x).compile()
        found = program(params, x)
    return {
        "found": found,
        "layout kept": all(found[k].sharding == params[k].sharding for k in params),
        "gathered": gathered(program.as_text()),
    }


def gathered(text):
    """The all-gathers whose result is a parameter, whole or as one vector.

    (That of a part of one, along one axis, is the network's own.)
    """
    whole = {f"{a},{b}" for a, b in SIZES.values()} | {str(a * b) for a, b in SIZES.values()}
    return [s for s in re.findall(r"= \(?\w+\[([\d,]*)\]\S* all-gather", text) if s in whole]


def or_error(run, expected):
    try:
        result = run()
    except Exception as error:  # one that fails does not hide the others
        return f"{type(error).__name__}: {error}"[:600]
    pairs = zip(jax.tree.leaves(result.pop("found")), jax.tree.leaves(expected), strict=True)
    result["difference"] = max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs
    )
    return result


if __name__ == "__main__":
    main()
