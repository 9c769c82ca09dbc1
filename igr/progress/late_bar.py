"""Progress bars with the time left that appear once a call has taken some seconds.

A program on the device moves its bar itself, by calls to the host; so rarely that they cost it
nothing to speak of, and a short one makes none at all.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Jaxpr
from jaxtyping import Array
from tqdm import tqdm

from igr.checks import Number
from igr.progress import expected
from igr.progress.expected import units_a_tick

PATIENCE = 3.0  # seconds before a bar is shown

_LOCK = threading.Lock()
_IDENTITIES = itertools.count()
_WAITING: dict[int, Callable[[], tqdm]] = {}  # bars of programs that have not begun
_SHOWN: dict[int, tqdm] = {}
_FORM = "{desc} {percentage:.0f}%|{bar}| [{elapsed}<{remaining}]"


def bar_options(progress: bool | None) -> dict[str, Any]:
    """Options of `tqdm` for a bar shown at once (True), never, or after some seconds (None)."""
    return {"disable": progress is False, "delay": 0 if progress else PATIENCE}


@contextlib.contextmanager
def counting_bar(what: str, most: int, progress: bool | None) -> Iterator[Callable[[], Any]]:
    """A context with a function to call after each of at most `most` units, which moves a bar."""
    with tqdm(total=most, desc=what, **bar_options(progress)) as bar:
        yield bar.update


def new_bar(what: str, progress: bool | None) -> np.ndarray:
    """The number of a new bar, which a program takes as an argument.

    Args:
      what: the name of the bar.
      progress: as in `bar_options`.
    """
    identity = next(_IDENTITIES)
    with _LOCK:
        # Made where the program begins, or compiling it would count as a part of the time.
        _WAITING[identity] = lambda: tqdm(
            total=1.0, desc=what, bar_format=_FORM, **bar_options(progress)
        )
    return np.asarray(identity, np.int32)


def close(bar: Any) -> None:
    """Closes a bar after the end of its program."""
    with _LOCK:
        shown = _SHOWN.pop(int(bar), None)
        if int(bar) in _WAITING:
            shown = _WAITING.pop(int(bar))()
        if shown is not None:
            shown.update(1.0 - shown.n)
            shown.close()


class Ticking(NamedTuple):
    """A bar for a program of a known number of units.

    Attributes:
      bar: from `new_bar`.
      units: the number of units in all.
      every: the number of units between two moves of the bar.
    """

    bar: Any
    units: int
    every: int

    def tick(self, done: Any) -> None:
        """Within a program: moves the bar to `done` units."""
        jax.debug.callback(show, self.bar, done / self.units)

    def show(self, done: Any, share: Any) -> None:
        """Within a program, after each unit: moves the bar to a share of the whole if it is due."""
        jax.lax.cond(
            done % self.every == 0,
            lambda: jax.debug.callback(show, self.bar, share),
            lambda: None,
        )

    def finish(self, last: Array) -> None:
        """Within a program: closes the bar once the scalar `last` is known."""
        jax.debug.callback(_close, self.bar, last)


def scan(
    bar: Ticking | None,
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    length: int,
    *,
    first: Any = 0,
    size: int = 1,
) -> tuple[Any, Any]:
    """`jax.lax.scan` that moves a bar between stretches of the loop.

    The bar is not moved within `body`, which is then the same program with a bar and without, with
    the same rounding.

    Args:
      bar: the bar, or None.
      body: as for `jax.lax.scan`.
      carry: as for `jax.lax.scan`.
      xs: as for `jax.lax.scan`.
      length: as for `jax.lax.scan`.
      first: the number of units done before.
      size: the number of units in a round of the body.
    """
    if bar is None or length < 4:
        return jax.lax.scan(body, carry, xs, length=length)
    # A loop of a single round would be merged with what is about it.
    stretch = min(max(bar.every // size, 2), length)
    while length % stretch == 1:
        stretch += 1
    whole, rest = divmod(length, stretch)

    def several(carry: Any, at: tuple[Any, Any]) -> tuple[Any, Any]:
        count, inputs = at
        bar.tick(first + count * stretch * size)
        return jax.lax.scan(body, carry, inputs, length=stretch)

    cut = whole * stretch
    shaped = jax.tree.map(lambda x: x[:cut].reshape(whole, stretch, *x.shape[1:]), xs)
    carry, ys = jax.lax.scan(several, carry, (jnp.arange(whole), shaped), length=whole)
    ys = jax.tree.map(lambda y: y.reshape(cut, *y.shape[2:]), ys)
    if rest:
        left = jax.tree.map(lambda x: x[cut:], xs)
        carry, more = jax.lax.scan(body, carry, left, length=rest)
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, more)
    return carry, ys


def mapped(bar: Ticking | None, fn: Callable[[Any], Any], xs: Any, chunk: int = 1) -> Any:
    """`jax.lax.map` over a leading axis that moves a bar between stretches of the loop.

    Args:
      bar: the bar, whose units are the entries of that axis; or None.
      fn: as for `jax.lax.map`.
      xs: as for `jax.lax.map`.
      chunk: the number of entries taken at once.
    """
    if bar is None:
        return jax.lax.map(fn, xs, batch_size=None if chunk == 1 else chunk)
    if chunk == 1:
        length = len(jax.tree.leaves(xs)[0])
        return scan(bar, lambda _, x: (None, fn(x)), None, xs, length)[1]
    whole, rest = divmod(len(jax.tree.leaves(xs)[0]), chunk)
    cut = whole * chunk
    parts = jax.tree.map(lambda x: x[:cut].reshape(whole, chunk, *x.shape[1:]), xs)
    several = jax.vmap(fn)
    ys = scan(bar, lambda _, x: (None, several(x)), None, parts, whole, size=chunk)[1]
    ys = jax.tree.map(lambda y: y.reshape(cut, *y.shape[2:]), ys)
    if rest:
        more = several(jax.tree.map(lambda x: x[cut:], xs))
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, more)
    return ys


def ticking(
    what: str, progress: bool | None, units: int, seconds: Number, least: Number = 0.0
) -> Ticking | None:
    """A bar for units of the given duration; None for a short program, or if progress is False.

    Args:
      what: the name of the bar.
      progress: as in `bar_options`.
      units: the largest number of units of work.
      seconds: the time that one of them is expected to take.
      least: the expected seconds in all below which there is no bar unless progress is True,
        because a program that calls the host is compiled anew by every process.
    """
    if progress is False:
        return None
    every = units_a_tick(units, seconds)
    if progress is None and (every >= units or units * seconds < least):
        return None
    return Ticking(new_bar(what, progress), units, every)


def between_or_within(bar: Ticking | None, size: int) -> tuple[Ticking | None, Ticking | None]:
    """The bar as a pair: for `scan` between rounds of `size` units, or within them; one is None.

    It moves within rounds if these have more units than lie between two moves, and more than 4.
    """
    within = bar is not None and size > max(bar.every, 4)
    return (None, bar) if within else (bar, None)


@contextlib.contextmanager
def search_bar(
    what: str,
    progress: bool | None,
    units: int,
    of_one: Jaxpr,
    inputs: Any,
    times: int = 1,
) -> Iterator[Ticking | None]:
    """A context with a bar for a search of at most so many units, or None; closed at its end.

    Args:
      what: the name of the bar.
      progress: as in `bar_options`.
      units: the largest number of units of work.
      of_one: the program whose duration counts.
      inputs: the inputs of the search, a pytree; if it holds tracers there is no bar.
      times: how often that program runs in a unit.
    """
    bar = None
    if not under_transformation(inputs):
        seconds = times * expected.expected_seconds(of_one)
        bar = ticking(what, progress, units, seconds, expected.WORTH)
    try:
        yield bar
    finally:
        if bar is not None:
            close(bar.bar)


def under_transformation(*trees: Any) -> bool:
    """Whether there are tracers among the leaves, in which case a program has no bar."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(trees))


def _close(bar: Any, last: Any) -> None:
    del last
    close(bar)


def show(bar: Any, share: Any) -> None:
    """On the host: moves a bar to a share of the whole."""
    identity, at = int(bar), float(share)
    with _LOCK:
        if identity in _WAITING:
            _SHOWN[identity] = _WAITING.pop(identity)()
        shown = _SHOWN.get(identity)
        if shown is not None and at > shown.n:  # calls may come out of order
            shown.update(at - shown.n)
