"""A progress bar with the time left, that shows itself once a call has taken some seconds.

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
    """For `tqdm`: a bar at once, never, or, if None, once it has taken some seconds."""
    return {"disable": progress is False, "delay": 0 if progress else PATIENCE}


@contextlib.contextmanager
def counting_bar(what: str, most: int, progress: bool | None) -> Iterator[Callable[[], Any]]:
    """A bar over calls of what it hands out, of which there are `most` at the most."""
    with tqdm(total=most, desc=what, **bar_options(progress)) as bar:
        yield bar.update


def new_bar(what: str, progress: bool | None) -> np.ndarray:
    """The number of a bar for a program, to which it is an argument.

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
    """Takes a bar away, its program being over."""
    with _LOCK:
        shown = _SHOWN.pop(int(bar), None)
        if int(bar) in _WAITING:
            shown = _WAITING.pop(int(bar))()
        if shown is not None:
            shown.update(1.0 - shown.n)
            shown.close()


class Ticking(NamedTuple):
    """A bar for a program that goes through so many units.

    Attributes:
      bar: from `new_bar`.
      units: how many there are.
      every: how many the bar stands still.
    """

    bar: Any
    units: int
    every: int

    def tick(self, done: Any) -> None:
        """In a program: so many are done."""
        jax.debug.callback(show, self.bar, done / self.units)

    def show(self, done: Any, share: Any) -> None:
        """In a program, after each unit: moves the bar to a share of the whole, now and then."""
        jax.lax.cond(
            done % self.every == 0,
            lambda: jax.debug.callback(show, self.bar, share),
            lambda: None,
        )

    def finish(self, last: Array) -> None:
        """In a program: closes the bar once the scalar `last` is known."""
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
    """`jax.lax.scan`, and ticks of a bar between stretches of it.

    Between them, and not in `body`: that is then the same program with a bar and without, which
    rounds alike.

    Args:
      bar: the bar, or None.
      body: as for `jax.lax.scan`.
      carry: as for `jax.lax.scan`.
      xs: as for `jax.lax.scan`.
      length: as for `jax.lax.scan`.
      first: the units done before.
      size: the units that a round of the body goes through.
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
    """`jax.lax.map` over a leading axis, and ticks of a bar between stretches of it.

    Args:
      bar: the bar, whose units are the entries of that axis; or None.
      fn: as for `jax.lax.map`.
      xs: as for `jax.lax.map`.
      chunk: how many entries are taken at once.
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
    """A bar for so many units of so many seconds each; None for a short program, or with False.

    Args:
      what: the name of the bar.
      progress: as in `bar_options`.
      units: how many units of work there are, at the most.
      seconds: what one of them is expected to take.
      least: how many seconds all of them are to take, or there is no bar unless it is asked for: a
        program that calls the host is compiled anew by every process.
    """
    if progress is False:
        return None
    every = units_a_tick(units, seconds)
    if progress is None and (every >= units or units * seconds < least):
        return None
    return Ticking(new_bar(what, progress), units, every)


def between_or_within(bar: Ticking | None, size: int) -> tuple[Ticking | None, Ticking | None]:
    """The bar for `scan` between rounds of so many units, or the one within them: where it moves.

    It moves within rounds if these take longer than it stands still, and are not too short for it.
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
    """A bar for a search of so many units at the most, taken away at the end of the block.

    Args:
      what: the name of the bar.
      progress: as in `bar_options`.
      units: how many units of work there are, at the most.
      of_one: the program of one unit.
      inputs: of the search, a pytree. Where there are tracers among them there is no bar.
      times: how often that program is run in a unit.
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
    """Whether there are tracers among the leaves: then a program has no bar."""
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
