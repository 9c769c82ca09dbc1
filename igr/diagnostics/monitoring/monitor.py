"""A monitor: measures of a network, taken every so many steps of any training loop."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Count, Number, check_count
from igr.diagnostics.monitoring.measuring import Measuring
from igr.diagnostics.monitoring.records import ReportOptions, Reports
from igr.diagnostics.monitoring.watch import Watch
from igr.options import with_defaults
from igr.pytrees import combine, num_examples, partition
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
      Hessian products or more, the dearest of them, and holds some 20 vectors of the size of
      params, where the others hold a few;
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
        **options: `ReportOptions`: where the rows go, a `csv` file and whether to `resume` it,
            loggers to hand them `to`, a live `table`.

    Raises:
        TypeError: If an argument is not of its kind, or there is no option of a name that is given.
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
        every: Count = 1,
        *,
        example_loss_fn: Callable[[PyTree, PyTree], Any] | None = None,
        apply_fn: Callable[[PyTree, Any], Any] | None = None,
        inputs: Callable[[PyTree], PyTree] | None = None,
        learning_rate: Number | Callable[[int], Any] | None = None,
        method: Method | None = None,
        key: PRNGKeyArray | None = None,
        **options: Unpack[ReportOptions],
    ):
        asked = with_defaults(Monitor, options)
        self.every = check_count("every", every, 1)
        self._measuring = Measuring(
            measures,
            jax.random.key(0) if key is None else key,
            example_loss_fn=example_loss_fn,
            apply_fn=apply_fn,
            inputs=inputs,
            learning_rate=learning_rate,
            method=method,
        )
        self._watch = Watch(self._measuring.method, self._measuring.measures)
        self._reports = Reports(**asked)
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
            if step is None and self._reports.resumed:
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
        return self._measuring.alone(params, batch, key, step)

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
        return self._measuring.compilations

    def __repr__(self) -> str:
        measured = ", ".join(self._measuring.columns)
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
        limit = self._watch.limits.get(column.removeprefix("h_"), np.nan)
        limit = limit if column.startswith("h_") and np.isfinite(limit) else None
        return monitor(record, column, limit=limit, ax=ax)

    def close(self) -> None:
        """Ends the live table. Files need no closing."""
        self._reports.close()

    def __enter__(self) -> Monitor:
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
        start, before = time.perf_counter(), self.compilations
        row = self._measuring(params, batch, step)
        compiled = time.perf_counter()
        if self.compilations > before:
            self._compile_seconds += compiled - start
            start = compiled
        if jax.process_index() == 0:
            host = {name: np.asarray(value)[()] for name, value in row.items()}
            self._rows.append((step, host))
            self._reports.write(step, host, f"the monitor: {self.cost}")
        self._seconds += time.perf_counter() - start
        self._watch(step, row)
        return row
