"""Runs a traced program with zeros added to some products, and records their activations."""

from __future__ import annotations

from typing import Any

import jax
import jax.extend.core as jex
from jaxtyping import Array

from igr.convolutions import evaluated
from igr.per_example.matmuls import Path, Product, scan_arguments


class ProbedProgram:
    """Runs a program with a probe, zeros, added to the output of each of some products.

    The derivative by a probe is the cotangent of that output.

    Attributes:
        products: path of an equation -> the product.
        probes: path -> the zeros to add to its output.
        noted: path -> the activation of the product, once the program has run.
    """

    def __init__(self, products: dict[Path, Product], probes: dict[Path, Any]) -> None:
        self.products, self.probes = products, probes
        self.noted: dict[Path, Any] = {}

    def __call__(
        self, jaxpr: jex.Jaxpr, consts: Any, args: list[Any], path: Path = ()
    ) -> list[Any]:
        """The outputs of the program, or of the part of it at `path`."""
        values: dict[Any, Array] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))

        def value(atom: Any) -> Any:
            return atom.val if isinstance(atom, jex.Literal) else values[atom]

        for index, eqn in enumerate(jaxpr.eqns):
            here = (*path, index)
            outputs = self._evaluate(jaxpr, eqn, [value(v) for v in eqn.invars], here)
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [value(v) for v in jaxpr.outvars]

    def _evaluate(
        self, jaxpr: jex.Jaxpr, eqn: jex.JaxprEqn, operands: list[Any], here: Path
    ) -> list[Any]:
        inside = [path for path in self.products if path[: len(here)] == here and path != here]
        if inside and eqn.primitive.name == "scan":
            return self._scan(eqn, operands, here, inside)
        if inside:
            inner = eqn.params["jaxpr"]
            return self(inner.jaxpr, inner.consts, operands, here)
        outputs = evaluated(jaxpr, eqn, operands)
        product = self.products.get(here)
        if product is None:
            return outputs
        self.noted[here] = operands[1 - product.operand]
        return [outputs[0] + self.probes[here]]

    def _scan(
        self, eqn: jex.JaxprEqn, operands: list[Any], here: Path, inside: list[Path]
    ) -> list[Any]:
        """The outputs of a scan whose steps have probes and record activations."""
        body = eqn.params["jaxpr"]
        first, kept = scan_arguments(eqn)
        consts, carry, xs = (
            operands[:first],
            operands[first : first + kept],
            operands[first + kept :],
        )

        def step(carry: list[Any], now: tuple[list[Any], dict[Path, Any]]) -> Any:
            xs, probes = now
            run = ProbedProgram(self.products, probes)
            outputs = run(body.jaxpr, body.consts, [*consts, *carry, *xs], here)
            return outputs[:kept], (outputs[kept:], run.noted)

        probes = {path: self.probes[path] for path in inside}
        carry, (ys, noted) = jax.lax.scan(
            step,
            carry,
            (xs, probes),
            length=eqn.params["length"],
            reverse=eqn.params["reverse"],
            unroll=eqn.params["unroll"],
        )
        self.noted.update(noted)
        return [*carry, *ys]
