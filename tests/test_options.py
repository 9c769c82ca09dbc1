"""Options that functions share: their names, their defaults, and what is said of unknown ones."""

import functools
import inspect
from typing import Any, TypedDict, Unpack

import diffrax
import pytest

import igr
from igr.flows import rules
from igr.options import check_known, names_of, with_defaults


class Search(TypedDict, total=False):
    tol: float | None
    key: Any


class WiderSearch(Search, total=False):
    width: int | None


def search(start, *rest, speed=1, **options: Unpack[WiderSearch]):
    return with_defaults(search, options, tol=0.5, width=3)


def written(start, **options: "Unpack[Search]"):
    del start, options


@functools.wraps(written)
def decorated(*args, **kwargs):
    return written(*args, **kwargs)


class Searching:
    def __init__(self, start, **options: Unpack[Search]):
        self.given = start, options

    def once(self, start, **options: Unpack[Search]):
        return self.given, start, options

    def __call__(self, start, **options: "Unpack[Search]"):
        return self.given, start, options


def anything(start, **others: Any):
    return start, others


NAMES = {
    "inherited": (search, ["start", "speed", "tol", "key", "width"]),
    "as text": (written, ["start", "tol", "key"]),
    "decorated": (decorated, ["start", "tol", "key"]),
    "partial": (functools.partial(written, 1), ["tol", "key"]),
    "class": (Searching, ["start", "tol", "key"]),
    "method": (Searching(1).once, ["start", "tol", "key"]),
    "object": (Searching(1), ["start", "tol", "key"]),
    "no options": (anything, ["start"]),
    "lambda": (lambda params, batch, key: key, ["params", "batch", "key"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_what_can_be_called(name):
    function, names = NAMES[name]
    assert names_of(function) == names


def test_defaults_stand_for_what_is_none_or_not_there():
    assert search(1) == {"tol": 0.5, "width": 3}
    assert search(1, tol=None, width=0, key=False) == {"tol": 0.5, "width": 0, "key": False}


@pytest.mark.parametrize(
    ("given", "nearest"), [("tool", "tol"), ("sped", "speed"), ("widht", "width"), ("k", "key")]
)
def test_an_unknown_name_is_told_with_the_nearest(given, nearest):
    with pytest.raises(TypeError, match=f"^search has no argument '{given}'; .* is '{nearest}'.$"):
        check_known(search, {"tol": 1, given: 2})


PARTS = (
    igr, igr.methods, igr.flows, igr.curvature, igr.diagnostics, igr.per_example, igr.penalties,
    igr.transforms, igr.plots,
)  # fmt: skip
PUBLIC = {name: getattr(part, name) for part in PARTS for name in part.__all__}
PUBLIC |= {x.__name__: x for x in vars(rules).values() if inspect.isfunction(x)}
MOST = 10
MORE = {"muon": "the arguments of optax.contrib.muon"}


def arguments(function):
    return inspect.signature(function).parameters.values()


WITH_OPTIONS = {
    name: thing
    for name, thing in PUBLIC.items()
    if (inspect.isfunction(thing) or name == "Monitor")
    and set(names_of(thing)) > {p.name for p in arguments(thing) if p.kind is not p.VAR_KEYWORD}
}


def test_the_walk_finds_those_with_options():
    assert {"flow", "compare", "stochastic_flow", "Monitor"} <= set(WITH_OPTIONS)
    assert {"top_eigenpairs", "sharpness", "sgd_stability"} <= set(WITH_OPTIONS)


def test_no_function_has_more_than_ten_arguments_beside_its_options():
    assert {"gradient_descent", "run", "egr", "muon", "spectrum"} <= set(PUBLIC)
    called = {name: thing for name, thing in PUBLIC.items() if inspect.isfunction(thing)}
    called["Monitor"] = igr.Monitor
    named = {
        name: sum(p.kind is not p.VAR_KEYWORD for p in arguments(thing))
        for name, thing in called.items()
    }
    assert {name for name, count in named.items() if count > MOST} == set(MORE)


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_unknown_names_are_refused_before_anything_is_read(name):
    """All else that the function is given would fail too, at the first look."""
    function = WITH_OPTIONS[name]
    needed = {p.name: object() for p in arguments(function) if p.default is p.empty}
    needed.pop(next(p.name for p in arguments(function) if p.kind is p.VAR_KEYWORD))
    with pytest.raises(TypeError, match=f"^{name} has no argument 'no_such_option'; the nearest"):
        function(**needed, no_such_option=1)


def test_flows_take_what_diffrax_takes():
    """But for what they give themselves, and for what diffrax has kept from an older version."""
    theirs = set(inspect.signature(diffrax.diffeqsolve).parameters)
    theirs -= {"terms", "t0", "t1", "y0", "discrete_terminating_event"}
    assert set(igr.flows.DiffeqsolveOptions.__annotations__) == theirs
