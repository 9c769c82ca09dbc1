"""Parameters sharded over 2 x 2 devices, against one device: numbers, and what is gathered.

The number of virtual CPU devices is fixed when JAX starts, so this file runs itself once more. XLA
writes every program it compiles there to a folder, where its collectives are read.
"""

import json
import math
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import igr
from igr.backward_error import methods, modified_equation
from igr.curvature import hessian_product, spectral_density, top_eigenpairs, trace
from igr.flows import rules

# No two arrays that are gathered on purpose (activations, rows of a basis) have these shapes.
SIZES = {"w": (12, 20), "v": (20, 28)}
SPECS = {"w": P("x", "y"), "v": P("y", "x")}
EXAMPLES = 6


class Problem(NamedTuple):
    value_fn: Any
    example_loss_fn: Any
    batch_loss: Any
    batch: Any


def problem(batch, mesh=None):
    """A network whose products say how their results are sharded where the mesh asks for it."""

    def product(subscripts, x, w, *axes):
        layout = None if mesh is None else NamedSharding(mesh, P(*axes))
        return jnp.einsum(subscripts, x, w, out_sharding=layout)

    def example_loss_fn(params, example):
        x, y = example
        hidden = jnp.tanh(product("i,ij->j", x, params["w"], "y"))
        out = jnp.tanh(product("i,ij->j", hidden, params["v"], "x"))
        return jnp.sum((out - y) ** 2)

    def batch_loss(params, batch):
        return jnp.mean(jax.vmap(lambda e: example_loss_fn(params, e))(batch))

    return Problem(lambda p: batch_loss(p, batch), example_loss_fn, batch_loss, batch)


def field(params, of):
    found = igr.vector_field(modified_equation(methods.gradient_descent(), 1), of.value_fn, 0.1)
    return jax.jit(lambda p: found(0.0, p, None))(params)


def adam_field(params, of):
    found = igr.vector_field(modified_equation(methods.adam(), 1), of.value_fn, 0.01)
    kept = {"nu": jax.tree.map(lambda x: 1e-3 + x**2, params)}
    return jax.jit(lambda p, nu: found(1.0, (p, nu), None))(params, kept)


def muon_field(params, of):
    found = igr.vector_field(modified_equation(rules.muon(keep=()), 1), of.value_fn, 0.01)
    return jax.jit(lambda p: found(0.0, p, None))(params)


def clipped_field(params, of):
    clip = rules.stateless(optax.clip_by_global_norm(0.1))
    method = methods.rule(lambda m, theta: clip(m, theta), {"m": methods.ema(0.9)})
    found = igr.vector_field(modified_equation(method, 1), of.value_fn, 0.01)
    return jax.jit(lambda p: found(0.0, p, None))(params)


def flow(params, of):
    found = igr.vector_field(modified_equation(methods.gradient_descent(), 1), of.value_fn, 0.1)
    return igr.flow(found, params, 0.3, dt0=0.1).ys


def compare(params, of):
    found = compared(of.value_fn, params, 0.1, 4, (0, 1), sharpness=False)
    return found.distance[0], found.distance[1], found.travelled, found.flows[1]


def adam_compare(params, of):
    method = methods.adam()
    found = compared(of.value_fn, params, 0.01, 3, (0,), method, burn_in=50, sharpness=False)
    return found.distance[0], found.travelled, found.remainder, found.correction


def batch_compare(params, of):
    """Mini-batches reshuffled in every epoch, and examples drawn for every step."""
    batches = jax.tree.map(lambda x: x.reshape(2, 3, -1), of.batch)
    options = {"runs": 2, "key": jax.random.key(0), "sharpness": False}
    found = compared(
        of.batch_loss, params, 0.02, orders=(0, 1), batches=batches, epochs=2, **options
    )
    drawn = compared(
        of.example_loss_fn, params, 0.02, orders=(0,), method=methods.sgd_with_replacement(2),
        batches=of.batch, steps=3, **options,
    )  # fmt: skip
    return found.distance[0], found.distance[1], found.correction, drawn.distance[0]


def players_compare(params, of):
    """One player has the first layer, the other the second and the opposite loss."""

    def first(z):
        return of.value_fn({"w": z[0]["w"], "v": z[1]["v"]})

    def second(z):
        return 0.1 * jnp.sum(z[1]["v"] ** 2) - first(z)

    pair = {"w": params["w"]}, {"v": params["v"]}
    results = []
    for method in (methods.simultaneous(), methods.alternating()):
        found = compared((first, second), pair, 0.05, 3, (0, 1), method)
        results.append((found.distance[0], found.distance[1], found.correction, found.flows[1]))
    return results


def two_phases(params, of):
    found = igr.flows.two_phase_flow(
        methods.gradient_descent(), of.value_fn, params, 0.1, 0.2, progress=False
    )
    return found.ys, found.amplitude


def central(params, of):
    found = igr.flows.central_flow(of.value_fn, params, 0.1, 0.2, 1, progress=False)
    return found.ys, found.eigenvalues


def compared(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so early in Adam's run its flow is not to be trusted
        found = igr.compare(*args, progress=False, **options)
    assert not found.failures, found.failures
    return found


def run(params, of):
    found = igr.run(optax.adam(0.01), of.value_fn, params, 4, record_every=2)
    return found.params, found.value


def lanczos(params, of):
    return pairs(hessian_product(of.example_loss_fn, params, of.batch), params, "lanczos", 120)


def subspace(params, of):
    return pairs(hessian_product(of.value_fn, params), params, "subspace", 1_000)


def pairs(product, params, method, most):
    found = top_eigenpairs(product, params, 2, method=method, tol=1e-8, max_products=most)
    return found.values, jax.tree.map(jnp.abs, found.vectors)


def spectrum(params, of):
    product = hessian_product(of.value_fn, params)
    found = spectral_density(product, params, num_products=5, num_probes=2)
    return found.density, trace(product, params)


def monitor(params, of):
    names = ["slope", "sharpness"]
    watch = igr.Monitor(names, every=1, example_loss_fn=of.example_loss_fn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [watch(params, of.batch, i) for i in range(2)]


def certify(params, of):
    found = igr.certify(methods.gradient_descent(), optax.sgd, of.value_fn, params)
    return [observed.errors for observed in found.observed.values()]


def gathering(params, of):
    """What must be seen."""
    del of
    mesh = params["v"].sharding.mesh
    explicit = AxisType.Explicit in mesh.axis_types
    put = jax.sharding.reshard if explicit else jax.lax.with_sharding_constraint
    return jax.jit(lambda p: put(jnp.sin(p["v"]), NamedSharding(mesh, P())))(params)


FLOWS = (field, adam_field, flow, compare, adam_compare, run, certify)
RULES = (muon_field, clipped_field)
OTHERS = (batch_compare, players_compare)
SOLVERS = (two_phases, central, lanczos, subspace, spectrum, monitor, gathering)
WORK = {f.__name__: f for f in (*FLOWS, *RULES, *OTHERS, *SOLVERS)}
KINDS = ("Auto", "Explicit")
each = pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in KINDS for n in WORK if n != "gathering"]
)


@pytest.fixture(scope="module")
def found(on_four_devices):
    """Of every kind of axes and piece of work; four processes, for each has its time."""
    parts = [
        on_four_devices(__file__, *(f.__name__ for f in fs))
        for fs in (FLOWS, RULES, OTHERS, SOLVERS)
    ]
    return {kind: {k: x for part in parts for k, x in part[kind].items()} for kind in KINDS}


@pytest.mark.slow
@each
def test_same_numbers(found, kind, name):
    assert found[kind][name]["difference"] < 1e-10


@pytest.mark.slow
@each
def test_no_parameter_is_gathered(found, kind, name):
    assert found[kind][name]["programs"] > 0
    assert found[kind][name]["gathered"] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_gathers_a_parameter_is_seen(found, kind):
    assert found[kind]["gathering"]["gathered"]


def gathered(text):
    """The all-gathers of a program whose result is as large as a parameter."""
    sizes = {math.prod(shape) for shape in SIZES.values()}
    results = re.findall(r"= \(?(\w+)\[([\d,]*)\]\S* all-gather", text)
    return [
        f"{dtype}[{shape}]"
        for dtype, shape in results
        if math.prod(int(n) for n in shape.split(",") if n) in sizes
    ]


def main(*names):
    folder = Path(tempfile.mkdtemp())
    os.environ["XLA_FLAGS"] += f" --xla_dump_to={folder} --xla_dump_hlo_as_text"
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=s) / np.sqrt(s[0]) for k, s in SIZES.items()}
    batch = rng.normal(size=(EXAMPLES, 12)), rng.normal(size=(EXAMPLES, 28))
    single = jax.device_put((params, batch), jax.devices()[0])
    results = {kind: {} for kind in KINDS}
    for name in names:
        one = None if name == "gathering" else WORK[name](single[0], problem(single[1]))
        for kind in KINDS:
            mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(getattr(AxisType, kind),) * 2)
            split = {k: jax.device_put(x, NamedSharding(mesh, SPECS[k])) for k, x in params.items()}
            everywhere = jax.device_put(batch, NamedSharding(mesh, P()))
            before = set(folder.glob("*after_optimizations.txt"))
            if kind == "Explicit":
                with jax.set_mesh(mesh):
                    four = WORK[name](split, problem(everywhere, mesh))
            else:
                four = WORK[name](split, problem(everywhere))
            new = [f.read_text() for f in set(folder.glob("*after_optimizations.txt")) - before]
            both = zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=one is not None)
            results[kind][name] = {
                "difference": max((largest(a, b) for a, b in both), default=0.0),
                "programs": len(new),
                "gathered": sorted({g for text in new for g in gathered(text)}),
            }
    print(json.dumps(results))


def largest(a, b):
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())


if __name__ == "__main__":
    main(*sys.argv[1:])
