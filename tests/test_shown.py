"""Every result shows itself in a few lines, whatever arrays it holds, and as a table in HTML."""

import dataclasses
import importlib
import inspect
import pkgutil
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr.curvature import sharpness, top_eigenpairs
from igr.shown import cut, described, short, table, table_of

LARGE = {"w": np.ones((40, 30)), "b": [np.ones(500)]}


def public_results():
    """All classes with fields that a user can be given: what the packages of igr export."""
    found = {}
    packages = [m.name for m in pkgutil.walk_packages(igr.__path__, "igr.") if m.ispkg]
    for name in ("igr", *packages):
        package = importlib.import_module(name)
        for exported in getattr(package, "__all__", ()):
            one = getattr(package, exported)
            if isinstance(one, type) and (hasattr(one, "_fields") or dataclasses.is_dataclass(one)):
                found[one.__qualname__] = one
    return found


RESULTS = public_results()


def test_help_shows_types_as_they_are_written():
    functions = {
        f"{package.__name__}.{name}": inspect.signature(getattr(package, name))
        for package in (igr, igr.flows, igr.transforms, igr.penalties, igr.curvature,
                        igr.diagnostics, igr.per_example, igr.plots)
        for name in package.__all__
        if inspect.isfunction(getattr(package, name))
    }  # fmt: skip
    assert "igr.transforms.egr" in functions
    assert not [n for n, s in functions.items() if re.search(r"typing\.|collections\.abc", str(s))]


def filled(kind):
    """One of its kind, with a large array or a pytree of such in every field."""
    if hasattr(kind, "_fields"):
        return kind(*[np.ones((50, 40)) if i % 2 else LARGE for i in range(len(kind._fields))])
    made = object.__new__(kind)
    for i, field in enumerate(dataclasses.fields(kind)):
        object.__setattr__(made, field.name, LARGE if i % 2 else np.ones((50, 40)))
    return made


def test_the_version_is_listed():
    assert "__version__" in dir(igr)


def test_the_walk_finds_what_there_is():
    assert {"Eigenpairs", "SpectralDensity", "Trajectory", "Certificate", "Coherence",
            "KernelSpectrum", "SGDRegion", "FieldAlong"} <= set(RESULTS)  # fmt: skip


# What is symbolic has no arrays; a certificate and an equation are shown below, a comparison with
# its own tests.
@pytest.mark.parametrize(
    "kind",
    [k for k in RESULTS.values() if not k.__module__.startswith("igr.backward_error")
     and k.__name__ not in ("Certificate", "Description", "Comparison", "Reading")],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_results_do_not_flood_the_screen(kind):
    shown = repr(filled(kind))
    assert len(shown) < 600
    assert not re.search(r"rray\(\[|\[1., 1., |\n", shown)
    assert kind.__name__ in shown


@pytest.mark.parametrize("kind", [k for k in RESULTS.values() if hasattr(k, "_fields")],
                         ids=lambda kind: kind.__name__)  # fmt: skip
def test_named_tuples_are_tables_in_notebooks(kind):
    shown = filled(kind)._repr_html_()
    assert shown.count("<tr>") == len(kind._fields)
    assert len(shown) < 200 * (len(kind._fields) + 1)


@pytest.mark.slow
def test_eigenpairs_show_their_numbers():
    params = {"a": jnp.ones(30), "b": jnp.ones((2, 20))}
    product = lambda v: {"a": 3 * v["a"], "b": 2 * v["b"]}
    pairs = top_eigenpairs(product, params, 2)
    assert repr(pairs).startswith("Eigenpairs(values=[3, 3], vectors=pytree of 2 arrays, 140 numb")


def test_real_results_show_their_numbers():
    loss = lambda p: 1.5 * p["a"] @ p["a"] + jnp.sum(p["b"] ** 2)
    params = {"a": jnp.ones(30), "b": jnp.ones((2, 20))}
    assert "value=3, vector=pytree of 2 arrays, 70 numbers, converged=True" in repr(
        sharpness(loss, params)
    )


def test_a_monitor_shows_its_rows():
    monitor = igr.Monitor(["slope"], 2, example_loss_fn=lambda w, x: jnp.sum((w - x) ** 2))
    assert repr(monitor) == "<Monitor of slope: 0 rows>"
    for _ in range(60):
        monitor(jnp.zeros(2), jnp.ones((3, 2)))
    assert repr(monitor) == "<Monitor of slope: 30 rows, the last of step 58>"
    shown = monitor._repr_html_()
    assert shown.count("<tr>") == 1 + 20 + 1  # the head, first and last ten, what is left out
    assert "<td>58</td><td>2.828</td>" in shown


@pytest.mark.slow
def test_a_certificate_shows_its_slopes():
    found = igr.certify(
        igr.methods.gradient_descent(), lambda h: __import__("optax").sgd(h),
        lambda w: jnp.sum(jnp.cosh(w)), jnp.array([0.4, 0.7]), order=0,
    )  # fmt: skip
    assert re.fullmatch(r"<Certificate of gradient descent: slopes \d\.\d\d at order 0; "
                        r"holds: True>", repr(found))  # fmt: skip
    assert "<td>0</td>" in found._repr_html_()


def test_equations_of_high_order_are_cut():
    equation = igr.modified_equation(igr.methods.heavy_ball(0.9), 6)
    assert len(str(equation)) > 2000
    assert len(repr(equation)) < 600
    assert repr(equation).endswith("…>")


def test_what_is_traced_or_sharded_or_odd_is_shown_by_its_shape():
    seen = []
    jax.eval_shape(lambda x: seen.append(described(x)), jnp.ones(3))
    assert seen == ["float64[3]"]
    assert described(jax.ShapeDtypeStruct((2,), jnp.float32)) == "float32[2]"
    assert described(jax.random.key(0)).startswith("key<")
    assert described(jnp.array([1, 2])) == "[1, 2]"
    assert described(jnp.array(1.5, jnp.bfloat16)) == "1.5"
    assert described(np.array([True])) == "[True]"
    assert described({}) == "{}"
    assert described(np.array(["a" * 300])) == "<U300[1]"
    assert described("<b>" * 300) == cut(repr("<b>" * 300), 120)


def test_html_is_escaped():
    class Made(tuple):
        _fields = ("name",)
        __repr__ = short
        _repr_html_ = table

    assert "&lt;b&gt;" in Made(["<b>"])._repr_html_()
    assert "&lt;b&gt;" in table_of({"<b>": ["<i>"]}, "<u>")
    assert not re.search("<[biu]>", table_of({"<b>": ["<i>"]}, "<u>"))
