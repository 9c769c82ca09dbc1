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

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import igr
from igr.backward_error import methods, modified_equation
from igr.curvature import hessian_product, top_eigenpairs

# No two arrays that are gathered on purpose (activations, rows of a basis) have these shapes.
SIZES = {"w": (12, 20), "b": (20,), "v": (20, 28), "u": (28, 4)}
SPECS = {"w": P("x", "y"), "b": P("y"), "v": P("y", "x"), "u": P("x", None)}
EXAMPLES = 6


def apply_fn(params, x):
    hidden = jnp.tanh(x @ params["w"] + params["b"])
    return jnp.tanh(hidden @ params["v"]) @ params["u"]


def example_loss_fn(params, example):
    return jnp.sum((apply_fn(params, example[0]) - example[1]) ** 2)


def on(batch):
    if callable(batch):
        return batch
    return lambda params: jnp.mean(jax.vmap(lambda e: example_loss_fn(params, e))(batch))


def field(params, batch):
    of = igr.vector_field(modified_equation(methods.gradient_descent(), 1), on(batch), 0.1)
    return jax.jit(lambda p: of(0.0, p, None))(params)


def adam_field(params, batch):
    of = igr.vector_field(modified_equation(methods.adam(), 1), on(batch), 0.01)
    kept = {"nu": jax.tree.map(lambda x: 1e-3 + x**2, params)}
    return jax.jit(lambda p, nu: of(1.0, (p, nu), None))(params, kept)


def flow(params, batch):
    of = igr.vector_field(modified_equation(methods.gradient_descent(), 1), on(batch), 0.1)
    return igr.flow(of, params, 0.3, dt0=0.1).ys


def compare(params, batch):
    found = igr.compare(on(batch), params, 0.1, 4, (0, 1), sharpness=False)
    return found.distance, found.travelled


def run(params, batch):
    found = igr.run(optax.adam(0.01), on(batch), params, 4, record_every=2)
    return found.params, found.value


def lanczos(params, batch):
    product = hessian_product(example_loss_fn, params, batch)
    found = top_eigenpairs(product, params, 2, tol=1e-8, max_products=120)
    return found.values, jax.tree.map(jnp.abs, found.vectors)


def monitor(params, batch):
    watch = igr.Monitor(["slope", "sharpness"], every=1, example_loss_fn=example_loss_fn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return watch(params, batch, 0)


def gathering(params, batch):
    """What must be seen."""
    return jax.jit(lambda p: jnp.sort(p["v"].ravel())[:3])(params)


WORK = {f.__name__: f for f in (field, adam_field, flow, compare, run, lanczos, monitor)}


# The same with a mesh of explicit axes, where every array says how it is sharded. What is not here
# is not claimed: diffrax starts its loops from zeros that say nothing.
EXPLICIT = {f"explicit {f.__name__}": f for f in (field, adam_field, run)}


def spoken_of(x, mesh):
    """A loss whose products say how their results are sharded."""

    def sharded(*axes):
        return None if mesh is None else NamedSharding(mesh, P(*axes))

    def value_fn(params):
        hidden = jnp.tanh(jnp.einsum("ni,ij->nj", x, params["w"], out_sharding=sharded(None, "y")))
        out = jnp.einsum("ni,ij->nj", hidden, params["v"], out_sharding=sharded(None, "x"))
        return jnp.mean(out**2)

    return value_fn


@pytest.fixture(scope="module")
def found(on_four_devices):
    return on_four_devices(__file__)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WORK, *EXPLICIT])
def test_same_numbers(found, name):
    assert found[name]["difference"] < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WORK, *EXPLICIT])
def test_no_parameter_is_gathered(found, name):
    assert found[name]["programs"] > 0
    assert found[name]["gathered"] == []


@pytest.mark.slow
def test_what_gathers_a_parameter_is_seen(found):
    assert found["gathering"]["gathered"]


def gathered(text):
    """The all-gathers of a program whose result is as large as a parameter of two axes or more."""
    sizes = {math.prod(shape) for shape in SIZES.values() if len(shape) > 1}
    results = re.findall(r"= \(?(\w+)\[([\d,]*)\]\S* all-gather", text)
    return [
        f"{dtype}[{shape}]"
        for dtype, shape in results
        if math.prod(int(n) for n in shape.split(",") if n) in sizes
    ]


def main():
    folder = Path(tempfile.mkdtemp())
    os.environ["XLA_FLAGS"] += f" --xla_dump_to={folder} --xla_dump_hlo_as_text"
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=s) / np.sqrt(s[0]) for k, s in SIZES.items()}
    batch = rng.normal(size=(EXAMPLES, 12)), rng.normal(size=(EXAMPLES, 4))
    single = jax.device_put((params, batch), jax.devices()[0])
    results = {}
    for name in sys.argv[1:] or [*WORK, *EXPLICIT, "gathering"]:
        work = {**WORK, **EXPLICIT, "gathering": gathering}[name]
        explicit = name in EXPLICIT
        kind = AxisType.Explicit if explicit else AxisType.Auto
        mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind,) * 2)
        names = ("w", "v") if explicit else params
        split = {k: jax.device_put(params[k], NamedSharding(mesh, SPECS[k])) for k in names}
        everywhere = jax.device_put(batch, NamedSharding(mesh, P()))
        if explicit:
            one = work({k: single[0][k] for k in names}, spoken_of(single[1][0], None))
        else:
            one = work(*single)
        before = set(folder.glob("*after_optimizations.txt"))
        if explicit:
            with jax.set_mesh(mesh):
                four = work(split, spoken_of(everywhere[0], mesh))
        else:
            four = work(split, everywhere)
        new = [f.read_text() for f in set(folder.glob("*after_optimizations.txt")) - before]
        both = zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True)
        results[name] = {
            "difference": max(
                float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max()) for a, b in both
            ),
            "programs": len(new),
            "gathered": sorted({g for text in new for g in gathered(text)}),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
