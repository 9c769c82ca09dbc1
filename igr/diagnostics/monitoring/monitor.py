"""A monitor: measures of a network, taken every so many steps of any training loop."""

import inspect
import operator
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray, PyTree
from rich.console import Console

from igr.backward_error import methods
from igr.backward_error.protocols import Method
from igr.checks import Number, check_count, check_step
from igr.compiled import Traced, traced
from igr.diagnostics.monitoring.met_sharpness import limits, watched
from igr.diagnostics.monitoring.named_measures import NAMED, NamedMeasures, named, scalars
from igr.diagnostics.monitoring.records import CSVFile, LiveTable, sink
from igr.meshes import on_any_mesh
from igr.pytrees import combine, num_examples, partition, trained_part
from igr.shown import cut, short, table, table_of


class Cost(NamedTuple):
    """What a monitor has cost.

    Attributes:
        seconds: Spent on measuring and reporting, compilation not counted.
        compile_seconds: Of the calls that compiled: one for each shape of batch.
        run_seconds: From the first call to the last.
        share: seconds / (run_seconds - compile_seconds); NaN before the second call.
    """

    seconds: float
    compile_seconds: float
    run_seconds: float
    share: float

    __repr__ = short
    _repr_html_ = table

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of {self.run_seconds:.3g} s, and {self.compile_seconds:.3g} s to "
            "compile"
        )


class Monitor:
    """Measures a network every so many steps of any training loop.

    Give it the loss and the network once, and call it with what the loop has at hand, optax by
    hand, flax nnx or equinox. All measures are one compiled program; a call that is not due costs
    a comparison.

    The measures it knows by name, with the columns they fill:

    - `loss`, `slope` (|grad E|), `regularizer` (R_IG), `share` (of the implicit penalty in the
      modified loss of `method`);
    - `coherence`: `coherence/alpha` and `coherence/helped`, alpha over its orthogonal limit;
    - `stiffness`: the mean cosine between the gradients of two different examples;
    - `sharpness`: the largest eigenvalue of the Hessian to 1 %, each search started from the last
      vector, and `sharpness/converged`; with a learning rate also `h_sharpness`. It takes some ten
      Hessian products or more: the dearest of them;
    - `batch_sharpness`: g'Hg/|g|^2 of the batch, which SGD holds at 2/h on average over its
      mini-batches; with a learning rate also `h_batch_sharpness`;
    - `tangent_kernel_trace`, `geometric_complexity`: exact for a batch of up to 32 examples; of a
      larger one for 32 that are drawn anew each time, the trace scaled to the batch, unbiased.

    E is the mean of the example losses over the batch that is given.

    A warning is given once when h times sharpness passes the limit of stability of the method,
    once when coherence falls under its orthogonal limit (`coherence/helped` below 1: the gradients
    cancel more than those of unrelated examples would), and once when the sharpness is not found.
    Functions that fill columns of these names, `sharpness` and `coherence/helped`, are watched too;
    and a function that fills `preconditioned_sharpness`, against the limit of a method that
    preconditions, 2 (1 + b1)/(1 - b1) for Adam. Hand the monitor the pair of params and optimizer
    state for it to read:
    `lambda both, batch: preconditioned_sharpness(loss, both[0], adam_preconditioner(both[1]))`,
    of which `.value` is the column.

    Args:
        measures: Names from the list above; or a mapping from columns to such names or to
            functions `(params, batch)`, or `(params, batch, key)` with an argument of that name,
            which return a scalar, or a mapping or NamedTuple of scalars (columns `name/field`).
        every: Measure when the step is a multiple of this.
        example_loss_fn: `(params, example) -> scalar`.
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        inputs: `batch -> x`, what of a batch `apply_fn` takes; by default the first entry of a
            tuple or list, and of an array all.
        learning_rate: h, a number or an optax schedule `step -> h`.
        method: Of `igr.methods`, with numbers for its parameters; gradient descent by default. For
            its limits of stability and `share`. Adam and its like have a limit on h times the
            preconditioned sharpness, and none on h times the sharpness.
        key: For what is drawn at random, folded with the step; `jax.random.key(0)` by default.
        csv: A file to write the rows to. Each is on the disk when the call returns.
        resume: Whether to go on with a `csv` that exists; rows from the first step on that is
            measured are written anew.
        to: Where else to hand the rows to: a function `(step, row)`, a TensorBoard writer (of
            torch, tensorboardX, flax or clu), a Weights & Biases run, or a list of such.
        table: Whether to show a live table in the terminal, or the rich console to show it on.

    Raises:
        TypeError: If an argument is not of its kind.
        ValueError: If there is no measure, a name is not known or lacks what it needs, or `every`
            or the learning rate is not positive.
        FileNotFoundError: If the folder of `csv` is not there.
        FileExistsError: If `csv` is, without `resume`.

    >>> import jax.numpy as jnp
    >>> monitor = Monitor(["slope", "coherence"], every=2,
    ...                   example_loss_fn=lambda w, x: jnp.sum((w - x) ** 2) / 2)
    >>> w, batch = jnp.zeros(2), jnp.array([[1.0, 2.0], [2.0, 1.0]])
    >>> for step in range(4):
    ...     if row := monitor(w, batch):
    ...         print(step, *(f"{name} {value:.3g}" for name, value in row.items()))
    ...     w = w + 0.1 * jnp.mean(batch - w, axis=0)
    0 slope 2.12 coherence/alpha 0.9 coherence/helped 1.8
    2 slope 1.72 coherence/alpha 0.855 coherence/helped 1.71
    """

    def __init__(
        self,
        measures: Sequence[str] | Mapping[str, str | Callable[..., Any]],
        every: int = 1,
        *,
        example_loss_fn: Callable[[PyTree, PyTree], Any] | None = None,
        apply_fn: Callable[[PyTree, Any], Any] | None = None,
        inputs: Callable[[PyTree], PyTree] | None = None,
        learning_rate: Number | Callable[[int], Any] | None = None,
        method: Method | None = None,
        key: PRNGKeyArray | None = None,
        csv: str | os.PathLike | None = None,
        resume: bool = False,
        to: Any = (),
        table: bool | Console = False,
    ):
        self.every = check_count("every", every, 1)
        self._measures = named(measures)
        given = {
            "example_loss_fn": example_loss_fn,
            "apply_fn": apply_fn,
            "learning_rate": learning_rate,
        }
        for name, value in given.items():
            if value is not None and name != "learning_rate" and not callable(value):
                raise TypeError(f"{name} must be a function; got {value!r}.")
            wanted = self._named_that_need(name)
            if value is None and wanted:
                raise ValueError(f"the measures {', '.join(wanted)} need {name}=.")
        if learning_rate is not None and not callable(learning_rate):
            check_step("learning_rate", learning_rate)
        method = methods.gradient_descent() if method is None else method
        if not isinstance(method, Method):
            raise TypeError(
                "method must be one of igr.methods, such as igr.methods.heavy_ball(0.9) or adam(); "
                f"got {method!r}."
            )
        self._method = method
        self._limits = limits(method)
        self._example_loss_fn, self._apply_fn = example_loss_fn, apply_fn
        self._inputs = inputs
        self._learning_rate = learning_rate
        self._key = jax.random.key(0) if key is None else key
        self._sinks = [sink(t) for t in (to if isinstance(to, list | tuple) else [to])]
        self._table = LiveTable(None if table is True else table) if table else None
        self._csv = None if csv is None else CSVFile(csv, resume)
        self._resumed = resume and csv is not None

        self._work = eqx.filter_jit(self._traced)
        self._columns: list[str] = []
        self._traces = 0
        self._vector: PyTree = None
        self._warned: set[str] = set()
        self._rows: list[tuple[int, dict[str, Any]]] = []
        self._next = 0
        self._first: float | None = None
        self._last = 0.0
        self._seconds = self._compile_seconds = 0.0

    def __call__(self, params: PyTree, batch: PyTree, step: int | None = None) -> dict[str, Array]:
        """Measures, if it is time to, and reports.

        Args:
            params: As the functions take them; of flax nnx the state, or for functions of your own
                the module. Before the update that the batch is for, or after it, as you like, but
                always the same.
            batch: A pytree of arrays with a leading example axis, always of the same shapes: other
                shapes compile again.
            step: The number of the step; without it calls are counted, from 0.

        Returns:
            Scalars by column; empty when not due.

        Raises:
            ValueError: If the leaves of batch disagree in their leading axis, a measure returns
                what is not a scalar, or a resumed run does not say at which step it is.
            TypeError: If called inside jit: there use `measure`.
        """
        if self._first is None:
            if step is None and self._resumed:
                raise ValueError("give step= to a monitor with resume=True: where does it go on?")
            self._first = self._last = time.perf_counter()
        step = self._next if step is None else operator.index(step)
        self._next = step + 1
        row = {} if step % self.every else self._measured(params, batch, step)
        self._last = time.perf_counter()
        return row

    def measure(
        self, params: PyTree, batch: PyTree, key: PRNGKeyArray | None = None, step: Any = 0
    ) -> dict[str, Array]:
        """The measures alone: nothing is counted or reported; for use inside jit or scan.

        Args:
            params: As in a call.
            batch: As in a call.
            key: For what is drawn at random; the monitor's own by default.
            step: The step, for a learning rate that is a schedule.

        Returns:
            Scalars by column. The search for the sharpness starts anew.
        """
        key = self._key if key is None else key

        def work(params: PyTree, batch: PyTree, key: PRNGKeyArray) -> dict[str, Array]:
            functions = self._functions_now(params, batch)
            return self._values(functions, params, batch, key, self._step_size(step), None)[0]

        return on_any_mesh(work)(params, batch, key)

    @property
    def cost(self) -> Cost:
        """What the monitor has cost up to now."""
        run = 0.0 if self._first is None else self._last - self._first
        rest = run - self._compile_seconds
        share = self._seconds / rest if self._seconds and rest > 0 else float("nan")
        return Cost(self._seconds, self._compile_seconds, run, share)

    @property
    def compilations(self) -> int:
        """How many times the measures were compiled: once for each shape of batch."""
        return self._traces

    def __repr__(self) -> str:
        measured = ", ".join(self._columns or self._measures)
        rows = len(self._rows)
        until = f", the last of step {self._rows[-1][0]}" if rows else ""
        return cut(f"<Monitor of {measured}: {rows} rows{until}>", 400)

    def _repr_html_(self) -> str:
        return table_of(self.record if self._rows else {}, repr(self))

    @property
    def record(self) -> dict[str, np.ndarray]:
        """What was measured so far: a column each, and `step`."""
        columns = {"step": np.array([step for step, _ in self._rows])}
        names = self._rows[0][1] if self._rows else {}
        return columns | {name: np.array([row[name] for _, row in self._rows]) for name in names}

    def plot(self, column: str | None = None, ax: Any = None) -> Any:
        """Draws a column of the record on matplotlib Axes, see `igr.plots.monitor`.

        Args:
            column: What to draw; `h_sharpness`, with its limit of stability, if there, else the
                first.
            ax: Where to draw.

        Raises:
            ValueError: If nothing was measured yet, or there is no such column.
        """
        from igr.plots import monitor  # matplotlib is only there with the extra `figures`

        record = self.record
        if not self._rows:
            raise ValueError("the monitor has measured nothing yet: there is nothing to plot")
        if column is None:
            column = "h_sharpness" if "h_sharpness" in record else list(record)[1]
        limit = self._limits.get(column.removeprefix("h_"), np.nan)
        limit = limit if column.startswith("h_") and np.isfinite(limit) else None
        return monitor(record, column, limit=limit, ax=ax)

    def close(self) -> None:
        """Ends the live table. Files need no closing."""
        if self._table is not None:
            self._table.close()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _measured(self, params: PyTree, batch: PyTree, step: int) -> dict[str, Array]:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((params, batch))):
            raise TypeError(
                "a Monitor is called from Python, between the steps; inside jit or scan use "
                "monitor.measure(params, batch, key), which returns the same scalars."
            )
        num_examples(batch)
        params = combine(*partition(params))
        jax.block_until_ready((params, batch))  # the steps before are not the monitor's cost
        start, traces = time.perf_counter(), self._traces
        if self._vector is None and "sharpness" in self._names:
            # Zeros, and not None: the first call shall compile what the later ones run.
            self._vector = jax.tree.map(jnp.zeros_like, trained_part(params))

        def work(
            params: PyTree, batch: PyTree, key: PRNGKeyArray, vector: PyTree
        ) -> tuple[list[Array], PyTree]:
            return self._work(
                self._functions_now(params, batch),
                params,
                batch,
                key,
                np.asarray(step, np.uint32),
                self._step_size(step),
                vector,
            )

        values, vector = on_any_mesh(work, like=3)(params, batch, self._key, self._vector)
        # Where the compiler puts the vector is its own choice; other places would compile again.
        if vector is not None:
            self._vector = jax.tree.map(_placed_like, vector, trained_part(params))
        row = dict(zip(self._columns, jax.block_until_ready(values), strict=True))
        compiled = time.perf_counter()
        if self._traces > traces:
            self._compile_seconds += compiled - start
            start = compiled
        if jax.process_index() == 0:
            self._report(step, row)
        self._seconds += time.perf_counter() - start
        self._warn(step, row)
        return row

    def _functions_now(self, params: PyTree, batch: PyTree) -> "_Functions":
        """The functions that were given, as they are now: they may read what has changed."""
        own = {}
        for column, measure in self._measures.items():
            if not isinstance(measure, str):
                keyed = "key" in inspect.signature(measure).parameters
                call = measure if not keyed else lambda p, b, k, f=measure: f(p, b, key=k)
                own[column] = traced(call, params, batch, *([self._key] if keyed else []))
        loss = self._example_loss_fn if self._named_that_need("example_loss_fn") else None
        apply = self._apply_fn if self._named_that_need("apply_fn") else None
        inputs = None if apply is None else self._inputs_of(batch)
        if loss is not None:
            loss = traced(loss, params, _first(batch))
        if apply is not None:
            apply = traced(apply, params, _first(inputs))
        return _Functions(loss, apply, own, inputs)

    def _traced(
        self,
        functions: "_Functions",
        params: PyTree,
        batch: PyTree,
        key: PRNGKeyArray,
        step: Any,
        h: Any,
        vector: PyTree,
    ) -> tuple[list[Array], PyTree]:
        self._traces += 1
        key = jax.random.fold_in(key, step)
        values, vector = self._values(functions, params, batch, key, h, vector)
        self._columns = list(values)  # a dict would come back sorted
        return list(values.values()), vector

    def _values(
        self,
        functions: "_Functions",
        params: PyTree,
        batch: PyTree,
        key: PRNGKeyArray,
        h: Any,
        vector: PyTree,
    ) -> tuple[dict[str, Array], PyTree]:
        named = NamedMeasures(
            params,
            batch,
            functions.inputs,
            key,
            example_loss_fn=functions.example_loss_fn,
            apply_fn=functions.apply_fn,
            method=self._method,
            learning_rate=h,
            vector=vector,
            shared="coherence" in self._names,
        )
        values: dict[str, Array] = {}
        for i, (column, measure) in enumerate(self._measures.items()):
            if isinstance(measure, str):
                found = getattr(named, measure)()
            elif "key" in inspect.signature(measure).parameters:
                found = functions.own[column](params, batch, jax.random.fold_in(key, i))
            else:
                found = functions.own[column](params, batch)
            values |= scalars(column, found)
            if watched(measure, column) and h is not None:
                values["h_" + column] = h * values[column]
        return values, named.vector

    @property
    def _names(self) -> list[str]:
        return [measure for measure in self._measures.values() if isinstance(measure, str)]

    def _named_that_need(self, argument: str) -> list[str]:
        return [name for name in self._names if argument in NAMED[name]]

    def _inputs_of(self, batch: PyTree) -> PyTree:
        if self._inputs is not None:
            return self._inputs(batch)
        if isinstance(batch, list | tuple):
            return batch[0]
        if isinstance(batch, jax.Array | np.ndarray):
            return batch
        raise ValueError(
            "inputs must say what of a batch is the input of apply_fn, such as "
            f"inputs=lambda batch: batch['x']; the batch is {jax.tree.structure(batch)}."
        )

    def _step_size(self, step: Any) -> Array | None:
        h = self._learning_rate
        h = h(step) if callable(h) else h
        return None if h is None else jnp.asarray(h, float)

    def _report(self, step: int, row: Mapping[str, Array]) -> None:
        host = {name: np.asarray(value)[()] for name, value in row.items()}
        self._rows.append((step, host))
        if self._csv is not None:
            self._csv.write(step, host)
        for write in self._sinks:
            write(step, {name: float(value) for name, value in host.items()})
        if self._table is not None:
            self._table.show(step, host, f"the monitor: {self.cost}")

    def _warn(self, step: int, row: Mapping[str, Array]) -> None:
        for column, measure in self._measures.items():
            helped = row.get(column + "/helped", np.nan)
            if "coherence" in (measure, column) and helped < 1:
                self._warn_once(
                    "coherence",
                    f"step {step}: coherence is under its orthogonal limit ({float(helped):.3g} of "
                    "it): the gradients of the examples cancel more than those of unrelated ones.",
                )
            kind = watched(measure, column)
            if kind is None:
                continue
            if not row.get(column + "/converged", True):
                self._warn_once(
                    "converged",
                    f"step {step}: the search for the sharpness did not converge; "
                    f"{float(row[column]):.3g} is a lower bound at best.",
                )
            reached = row.get("h_" + column, np.nan)
            limit = self._limits[kind]
            if reached > limit:
                what = kind.replace("_", " ")
                self._warn_once(
                    "limit of the " + what,
                    f"step {step}: the step size times the {what}, {float(reached):.3g}, has "
                    f"passed {limit:.3g}, the limit of stability of {self._method.name}.",
                )

    def _warn_once(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(message, UserWarning, stacklevel=5)


class _Functions(NamedTuple):
    """What a monitor was given, traced, and the inputs of the batch at hand."""

    example_loss_fn: Traced | None
    apply_fn: Traced | None
    own: dict[str, Traced]
    inputs: PyTree


def _first(batch: PyTree) -> PyTree:
    """The shapes of one example."""

    def shape(x: Any) -> Any:
        if not isinstance(x, jax.Array | np.ndarray):
            return x
        weak = bool(getattr(x, "weak_type", False))
        return jax.ShapeDtypeStruct(x.shape[1:], x.dtype, weak_type=weak)

    return jax.tree.map(shape, batch)


def _placed_like(x: Array, like: Any) -> Array:
    """Where `like` lies; not moved where it lies there, for what was put somewhere stays put."""
    if not isinstance(like, jax.Array) or x.sharding.is_equivalent_to(like.sharding, x.ndim):
        return x
    return jax.device_put(x, like.sharding)
