"""What is measured on a GPU, each piece a generator of rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax

import igr
from benchmarks.gpu.transformer import SHAPES, decoder, loss_of, sequences
from benchmarks.gpu.worker import Skipped
from benchmarks.measure import Row, median_seconds
from benchmarks.network import WIDTHS, example_loss, examples, logits, network
from igr import transforms
from igr.backward_error import methods, modified_equation
from igr.curvature import hessian_product, top_eigenpairs
from igr.diagnostics import coherence, stiffness, tangent_kernel_trace
from igr.flows.newton_schulz import newton_schulz
from igr.per_example import grouped_gradients, per_example_gradients

STEP = 1e-3
_FIELD_TARGETS = {("GD", 1): "<= 3.5"}


class Card:
    """A device with its own limits, which rows are given as shares of.

    Args:
      tiny: whether everything is of a size that a CPU does in a minute.
    """

    def __init__(self, tiny: bool):
        self.tiny = tiny
        self.flops = float("nan")  # of a product in bf16, per second
        self.bytes = float("nan")  # copied, per second
        self._repeats = 2 if tiny else 5

    def about(self) -> dict[str, Any]:
        """The device's name and the versions of what runs on it."""
        device = jax.devices()[0]
        return {
            "device": device.device_kind,
            "platform": device.platform,
            "jax": jax.__version__,
            "optax": optax.__version__,
            "tiny": self.tiny,
        }

    def pieces(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """The pieces by name, the most valuable first."""
        large = "tiny" if self.tiny else "10^8"
        middle = "tiny" if self.tiny else "10^7"
        small = "tiny" if self.tiny else "10^6"
        found = {
            "limits": self.limits,
            "run": lambda: self.run(middle),
            "fields-large-bf16": lambda: self.fields(
                large, jnp.bfloat16, (1,) if self.tiny else (1, 0)
            ),
            "fields-large-f32": lambda: self.fields(large, jnp.float32, (1, 0)),
            "compare-large": lambda: self.compare(large, batch=1),
            "compare": lambda: self.compare(small),
            "curvature": lambda: self.curvature(middle),
            "robust": self.robust,
            "per-example": self.per_example,
            "monitor": self.monitor,
            "seeds": self.seeds,
            "fields-middle": lambda: self.fields(middle, jnp.float32, (1, 2, 0)),
            "fields-small": lambda: self.fields(small, jnp.float32, (1, 2, 0)),
            "fields-large-2": lambda: self.fields(large, jnp.bfloat16, (2,)),
            "fields-large-2-f32": lambda: self.fields(large, jnp.float32, (2,)),
            "torch": self.torch,
        }
        if self.tiny:  # where all sizes are one, once is enough
            for name in ("fields-large-f32", "fields-small", "fields-large-2", "compare"):
                del found[name]
            del found["fields-large-2-f32"]
            found["fields-middle"] = lambda: self.fields(middle, jnp.float32, (0,))
        return found

    def limits(self) -> Iterator[Row]:
        """What the card can do: a product in bf16, a copy."""
        n = 256 if self.tiny else 8_192
        x = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16)
        seconds = self._seconds(jax.jit(lambda a: a @ a), x)
        self.flops = 2 * n**3 / seconds
        yield Row(f"product of {n} x {n} in bf16", self.flops / 1e12, "TFLOP/s")
        y = jnp.zeros(2**16 if self.tiny else 2**29, jnp.float32)
        seconds = self._seconds(jax.jit(lambda a: a + 1), y)
        self.bytes = 2 * y.nbytes / seconds
        yield Row(f"reading and writing {y.nbytes / 1e6:.3g} MB", self.bytes / 1e9, "GB/s")

    def run(self, size: str) -> Iterator[Row]:
        """`igr.run` beside a bare scan of the same step."""
        params, value_fn, number = self._network(size, jnp.float32)
        optimizer = optax.adamw(STEP)
        steps = 5 if self.tiny else 300  # a call traces for some 30 ms, however many there are

        @jax.jit
        def bare(params: Any) -> Any:
            def step(carry: Any, _: None) -> Any:
                p, state = carry
                value, gradient = jax.value_and_grad(value_fn)(p)
                updates, state = optimizer.update(gradient, state, p)
                return (optax.apply_updates(p, updates), state), value

            return jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)

        seconds = median_seconds(
            {
                "bare": lambda: bare(params),
                "run": lambda: (
                    igr.run(optimizer, value_fn, params, steps, record_every=steps).value
                ),
                "call": lambda: igr.run(optimizer, value_fn, params, 1).value,
            },
            self._repeats,
            settle=False,
        )
        what = f"igr.run, {steps} AdamW steps, {number:,} parameters"
        yield Row(what, seconds["run"] / seconds["bare"], "bare scans", "<= 1.1")
        yield Row(f"{what}: a step", 1e3 * seconds["run"] / steps, "ms")
        operations = 6 * number * SHAPES[size].tokens * steps
        yield self._share(f"{what}: a step", operations, seconds["run"])
        yield Row("igr.run, a call for one step", 1e3 * seconds["call"], "ms")

    def fields(self, size: str, dtype: Any, orders: tuple[int, ...]) -> Iterator[Row]:
        """Fields in gradients, their memory in copies of the parameters."""
        params, value_fn, number = self._network(size, dtype)
        name = f"{number:,} parameters in {jnp.dtype(dtype).name}"
        gradient = jax.jit(jax.grad(value_fn)).lower(params).compile()
        unit = self._seconds(gradient, params)
        yield Row(f"gradient, {name}", 1e3 * unit, "ms")
        yield self._share(f"gradient, {name}", 6 * number * SHAPES[size].tokens, unit)
        for order in orders:
            for which, method in _methods().items():
                field = igr.vector_field(modified_equation(method, order), value_fn, STEP)
                state: Any = params
                if method.kept:
                    kept = jax.tree.map(lambda x: jnp.full_like(x, 1e-4), params)
                    state = params, {y: kept for y in method.kept}
                function = jax.jit(lambda s, f=field: f(100 * STEP, s, None))
                compiled = function.lower(state).compile()
                what = f"field of {which}, order {order}, {name}"
                seconds = self._seconds(compiled, state)
                yield Row(what, seconds / unit, "gradients", _FIELD_TARGETS.get((which, order), ""))
                extra = _copies(compiled, params) - _copies(gradient, params)
                yield Row(f"{what}: memory beyond a gradient's", extra, "copies of the parameters")

    def compare(self, size: str, batch: int | None = None) -> Iterator[Row]:
        """200 AdamW steps beside their flow, compilation included.

        Records of params and second moments of the run and of both flows are kept: four at the
        size where each is half a gigabyte. There the solver has two stages and a tolerance of
        1e-3, for `compare` bounds its steps by those of the optimizer.
        """
        params, value_fn, number = self._network(size, jnp.float32, batch)
        steps = 4 if self.tiny else 200
        more: dict[str, Any] = {}
        if batch is not None:
            more = {"solver": diffrax.Heun(), "record_every": steps // 4, "rtol": 1e-3}
        start = time.perf_counter()
        # On a GPU a product of float32 is else one of fewer digits, which the flow would resolve.
        with jax.default_matmul_precision("highest"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a flow that stopped early is a row that says so
            found = igr.compare(
                value_fn,
                params,
                1e-4,
                steps,
                (0, 1),
                methods.adamw(0.9, 0.999, 1e-8, weight_decay=0.1),
                optimizer=optax.adamw(1e-4, weight_decay=0.1),
                sharpness=False,
                burn_in=2 if self.tiny else 100,
                max_steps=2_000,
                progress=False,
                **more,
            )
        what = f"compare, {steps} AdamW steps, {number:,} parameters"
        yield Row(what, time.perf_counter() - start, "s")
        for order, distance in found.distance.items():
            if order in found.failures:
                raise RuntimeError(found.failures[order])
            last = int(np.flatnonzero(np.isfinite(distance))[-1])
            if last == 0:
                raise RuntimeError(f"the flow of order {order} left the finite numbers at once")
            share = 100 * float(distance[last] / found.travelled[last])
            after = f"order {order} after {found.step[last]} steps"
            yield Row(f"{what}: {after}", share, "% of the way from the run")

    def curvature(self, size: str) -> Iterator[Row]:
        """Hessian products, Lanczos and subspace iteration."""
        params, value_fn, number = self._network(size, jnp.float32)
        gradient = self._seconds(jax.jit(jax.grad(value_fn)), params)
        vector = jax.tree.map(jnp.ones_like, params)
        product = jax.jit(lambda p, v: hessian_product(value_fn, p)(v))
        seconds = self._seconds(product, params, vector)
        what = f"{number:,} parameters"
        yield Row(f"Hessian product, {what}", seconds / gradient, "gradients", "<= 2.2")
        operations = 12 * number * SHAPES[size].tokens
        yield self._share(f"Hessian product, {what}", operations, seconds)
        for method in ("lanczos", "subspace"):
            spent = 6 if self.tiny else 40

            def solve(p: Any, method: Any = method, spent: int = spent) -> Any:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return top_eigenpairs(
                        hessian_product(value_fn, p), p, 3, method=method, tol=1e-3,
                        max_products=spent,
                    )  # fmt: skip

            solver = jax.jit(solve).lower(params).compile()
            products = int(solver(params).products)
            whole = self._seconds(solver, params)
            overhead = 100 * (whole / (products * seconds) - 1)
            target = "<= 20" if method == "lanczos" else ""
            yield Row(f"{method}, {products} products, {what}", whole, "s")
            yield Row(f"{method}: beyond its products, {what}", overhead, "%", target)
            copies = _copies(solver, params)
            yield Row(f"{method}: memory, {what}", copies, "copies of the parameters")

    def robust(self) -> Iterator[Row]:
        """Winsorized gradients and the median of means."""
        params, batch, gradient = self._mlp()
        winsorize, median = transforms.winsorize(10), transforms.median_of_means(8)

        @jax.jit
        def clipped(p: Any, b: Any) -> Any:
            each = per_example_gradients(example_loss, p, b)
            return winsorize.update(each, winsorize.init(p), p)[0]

        @jax.jit
        def middle(p: Any, b: Any) -> Any:
            return median.update(grouped_gradients(example_loss, p, b, 8), median.init(p), p)[0]

        size = sum(x.nbytes for x in jax.tree.leaves(params))
        of_examples = len(batch[1])
        for what, f, held in (
            ("winsorize, c = 10", clipped, of_examples), ("median of 8 means", middle, 8)
        ):  # fmt: skip
            seconds = self._seconds(f, params, batch)
            yield Row(what, seconds / gradient, "gradients")
            share = 100 * 2 * held * size / seconds / self.bytes
            yield Row(
                f"{what}: what it holds, written and read once", share, "% of the card's copy"
            )

    def per_example(self) -> Iterator[Row]:
        """Coherence, stiffness and tr K by factors."""
        params, batch, gradient = self._mlp()
        work = {
            "coherence": lambda p, b: coherence(example_loss, p, b),
            "stiffness": lambda p, b: stiffness(example_loss, p, b),
            "tr K": lambda p, b: tangent_kernel_trace(logits, p, b[0]),
        }
        for what, f in work.items():
            yield Row(what, self._seconds(jax.jit(f), params, batch) / gradient, "gradients")

    def monitor(self) -> Iterator[Row]:
        """What a monitor takes of a run."""
        params, batch, _ = self._mlp()
        steps, every = (6, 3) if self.tiny else (2_000, 50)
        optimizer = optax.sgd(1e-2)
        monitor = igr.Monitor(
            ["slope", "coherence", "tangent_kernel_trace"],
            every=every,
            example_loss_fn=example_loss,
            apply_fn=logits,
        )

        @jax.jit
        def step(p: Any, state: Any, b: Any) -> Any:
            updates, state = optimizer.update(jax.grad(_mean_loss)(p, b), state)
            return optax.apply_updates(p, updates), state

        state = optimizer.init(params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that coherence falls under its limit
            for i in range(steps):
                monitor(params, batch, i)
                params, state = step(params, state, batch)
            jax.block_until_ready(params)
        yield Row(
            f"monitor of slope, coherence and tr K every {every} steps",
            100 * monitor.cost.share,
            "% of the run",
            "<= 5",
        )

    def seeds(self) -> Iterator[Row]:
        """64 runs at once beside one."""
        _, batch, _ = self._mlp()
        number, steps = (4, 3) if self.tiny else (64, 200)
        optimizer = optax.adam(STEP)

        def train(key: jax.Array) -> Any:
            params = network(key, self._widths)
            return igr.run(optimizer, lambda p: _mean_loss(p, batch), params, steps,
                           record_every=steps).value  # fmt: skip

        keys = jax.random.split(jax.random.key(7), number)
        one = self._seconds(jax.jit(train), keys[0])
        many = self._seconds(jax.jit(jax.vmap(train)), keys)
        yield Row(f"{number} vmapped seeds, {steps} Adam steps", many / one, "runs")

    def torch(self) -> Iterator[Row]:
        """The peers in PyTorch on the same card, where they are installed."""
        from benchmarks import curvature_peers

        missing = curvature_peers.missing()
        if "torch" not in missing and self.tiny:
            params, batch, _ = self._mlp()
            yield from curvature_peers.at("initialization", params, batch)
        elif "torch" not in missing:
            yield from curvature_peers.rows()
        if missing:
            raise Skipped(f"{', '.join(missing)} not installed")

    @property
    def _widths(self) -> tuple[int, ...]:
        return (12, 8, 4) if self.tiny else WIDTHS

    def _mlp(self) -> tuple[Any, Any, float]:
        """An MLP, a batch, and the seconds of its gradient."""
        params = network(jax.random.key(0), self._widths)
        batch = examples(jax.random.key(1), 16 if self.tiny else 128, self._widths)
        return params, batch, self._seconds(jax.jit(jax.grad(_mean_loss)), params, batch)

    def _share(self, what: str, operations: float, seconds: float) -> Row:
        """What part of the card's product in bf16 the matrix products of some work come to."""
        share = 100 * operations / seconds / self.flops
        return Row(what, share, "% of the card's product in bf16")

    def _network(
        self, size: str, dtype: Any, batch: int | None = None
    ) -> tuple[Any, Callable[[Any], jax.Array], int]:
        """A decoder, its loss on a batch, its own if none is given, and its parameters' number."""
        shape = SHAPES[size] if batch is None else replace(SHAPES[size], batch=batch)
        params = decoder(jax.random.key(0), shape, dtype)
        number = sum(x.size for x in jax.tree.leaves(params))
        return params, loss_of(shape, sequences(jax.random.key(1), shape)), number

    def _seconds(self, f: Callable[..., Any], *args: Any) -> float:
        return median_seconds({"it": lambda: f(*args)}, self._repeats, settle=False)["it"]


def _methods() -> dict[str, Any]:
    return {
        "GD": methods.gradient_descent(),
        "Muon": methods.rule(_orthogonal, {"m": methods.ema(0.95)}, name="Muon, stacked"),
        "Adam": methods.adam(0.9, 0.999, 1e-8),
    }


def _orthogonal(m: Any) -> Any:
    """Muon's rule on stacked matrices; vectors are brought to length one."""

    def direction(x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        if x.ndim > 1 and min(x.shape[-2:]) > 1:
            turned = newton_schulz(x32)
        else:
            turned = x32 / (jnp.linalg.norm(x32) + 1e-8)
        return turned.astype(x.dtype)

    return jax.tree.map(direction, m)


def _mean_loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean(jax.vmap(lambda example: example_loss(params, example))(batch))


def _copies(compiled: Any, params: Any) -> float:
    """Temporaries and results of a compiled program, in bytes over those of params."""
    found = compiled.memory_analysis()
    one = sum(x.nbytes for x in jax.tree.leaves(params))
    if found is None:
        return float("nan")
    return (found.temp_size_in_bytes + found.output_size_in_bytes) / one
