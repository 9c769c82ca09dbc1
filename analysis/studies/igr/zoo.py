"""Every optimizer of optax that can be read: what it follows, and whether that is so (ours)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

import igr
from analysis.data import Classification, digits
from analysis.models.tanh_network import cross_entropy, tanh_network
from analysis.scale import Scale
from analysis.sweep import Study
from igr.backward_error.protocols import UnansweredError
from igr.flows.from_optax import read_beside


class Optimizer(NamedTuple):
    """An optimizer of optax.

    Attributes:
        make: The transformation, by learning rate.
        jumps: Whether signs, maxima or conditions in it have to be smoothed.
    """

    make: Callable[..., optax.GradientTransformation]
    jumps: bool = False


SMOOTH = 1e-2  # x/sqrt(x^2 + 0.01) for the sign of x
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(optax.sgd),
    "sgd, momentum 0.9": Optimizer(lambda h: optax.sgd(h, momentum=0.9)),
    "optimistic_gradient_descent": Optimizer(optax.optimistic_gradient_descent),
    "adam": Optimizer(optax.adam),
    "adamw": Optimizer(optax.adamw),
    "nadam": Optimizer(optax.nadam),
    "nadamw": Optimizer(optax.nadamw),
    "adabelief": Optimizer(optax.adabelief),
    "adan": Optimizer(optax.adan),
    "rmsprop": Optimizer(optax.rmsprop),
    "radam": Optimizer(optax.radam),
    "optimistic_adam": Optimizer(lambda h: optax.optimistic_adam(h)),
    "optimistic_adam_v2": Optimizer(lambda h: optax.optimistic_adam_v2(h)),
    "adagrad": Optimizer(optax.adagrad),
    "adadelta": Optimizer(optax.adadelta),
    "yogi": Optimizer(optax.yogi, jumps=True),
    "amsgrad": Optimizer(optax.amsgrad, jumps=True),
    "adamax": Optimizer(optax.adamax, jumps=True),
    "adamaxw": Optimizer(optax.adamaxw, jumps=True),
    "lion": Optimizer(optax.lion, jumps=True),
    "sign_sgd": Optimizer(optax.sign_sgd, jumps=True),
    "signum": Optimizer(optax.signum, jumps=True),
    "acprop": Optimizer(contrib.acprop),
    "ademamix": Optimizer(contrib.ademamix),
    "simplified_ademamix": Optimizer(contrib.simplified_ademamix),
    "adopt": Optimizer(contrib.adopt, jumps=True),
    "madgrad": Optimizer(contrib.madgrad),
    "cocob": Optimizer(lambda h: contrib.cocob(h), jumps=True),
    "schedule_free_sgd": Optimizer(contrib.schedule_free_sgd),
    "schedule_free_adamw": Optimizer(contrib.schedule_free_adamw),
    "adafactor": Optimizer(optax.adafactor),
    "fromage": Optimizer(optax.fromage),
    "lamb": Optimizer(optax.lamb),
    "lars": Optimizer(optax.lars),
    "novograd": Optimizer(optax.novograd),
    "sm3": Optimizer(optax.sm3),
    "muon": Optimizer(contrib.muon),
    "prodigy": Optimizer(contrib.prodigy),
    "dadapt_adamw": Optimizer(contrib.dadapt_adamw),
    "dog": Optimizer(contrib.dog),
    "dowg": Optimizer(contrib.dowg),
    "mechanize": Optimizer(lambda h: contrib.mechanize(optax.sgd(h))),
}
KINDS = {"LinearMethod": "trees", "ElementwiseMethod": "terms", "RuleMethod": "rule"}


@dataclass(frozen=True)
class Cell:
    """One optimizer.

    Attributes:
        optimizer: One of `OPTIMIZERS`.
        learning_rate: At which the sizes of the terms are taken.
        steps: After which they are.
        examples: Digits, from the first on.
        seed: Of the weights.
    """

    optimizer: str
    learning_rate: float = 1e-3
    steps: int = 50
    examples: int = 360
    seed: int = 0


def study(scale: Scale) -> Study:
    """Each of them, in double precision.

    Args:
        scale: The same cells at every scale: a slope does not depend on the network's size.
    """
    del scale
    return Study("igr-zoo", run, tuple(Cell(name) for name in OPTIMIZERS))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """What an optimizer follows.

    Returns:
        `kind`, `memories` and `kept` as text, `order_0` and `order_1` as they are printed, `loss`,
        the modified loss or why there is none, `slopes` of the one-step error at orders 0 and 1,
        `stability_limit`, of h times the (preconditioned) curvature, nan where it has no meaning,
        and `ratio`, |F1|/|F0| on the tanh network.
    """
    make, jumps = OPTIMIZERS[cell.optimizer]
    smooth = SMOOTH if jumps else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        method = igr.from_optax(make, smooth=smooth, certify=False)
        certificate = igr.certify(make, smooth=smooth)
        ratio = _ratio(cell, make, smooth)
    equation = igr.modified_equation(method, 1)
    response = method.response()
    fading, steps = method.memory()
    return {
        "kind": KINDS[type(method).__name__],
        "memories": f"b = {fading:g}" if fading else "last value" if steps else "none",
        "kept": ", ".join(method.kept),
        "order_0": str(equation.truncate(0)),
        "order_1": str(equation),
        "loss": _loss(equation),
        "slopes": [float(certificate.observed[p]) for p in (0, 1)],
        "stability_limit": float("nan") if response is None else response.stability_limit(),
        "ratio": ratio,
        "source": "scikit-learn's digits",
    }


def _loss(equation: Any) -> str:
    try:
        return str(equation.modified_loss())
    except igr.NotAGradientError as error:
        return f"none: {error}"
    except UnansweredError as error:
        return f"not known: {error}"


def _ratio(cell: Cell, make: Callable[..., Any], smooth: float | None) -> float:
    """|F1|/|F0| after some steps of the optimizer, or of the method where that is smoothed."""
    data = digits()
    some = Classification(data.x[: cell.examples], data.y[: cell.examples], data.num_classes)
    loss, params = cross_entropy(some), tanh_network(some, jax.random.key(cell.seed))
    h = cell.learning_rate
    if smooth is None:
        method, optimizer = read_beside(make, params, h)
    else:
        method = igr.from_optax(make, params=params, smooth=smooth, certify=False)
        optimizer = igr.flows.optimizer_of(method, h)

    @jax.jit
    def descend(params: Any, state: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=cell.steps)[0]

    params, state = descend(params, optimizer.init(params))
    at = (params, state.kept) if method.kept else params
    equation = igr.modified_equation(method, 1)

    def field(eq: Any) -> Any:
        found = igr.vector_field(eq, loss, h)(cell.steps * h, at, None)
        return found[0] if method.kept else found

    zeroth, first = field(equation.truncate(0)), field(equation)
    size = optax.tree.norm(zeroth)
    return float(
        optax.tree.norm(optax.tree.sub(first, zeroth)) / (h * jnp.where(size > 0, size, 1))
    )
