"""There is one Lanczos in the library: `igr.curvature.krylov.krylov_step`, which all else calls."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import igr
from igr import curvature, diagnostics, transforms
from igr.curvature import krylov

DECOMPOSITIONS = {
    "eig", "eigh", "eigs", "eigsh", "eigvals", "eigvalsh", "eigh_tridiagonal", "lobpcg",
    "lobpcg_standard",
}  # fmt: skip
OF_A_KRYLOV_SPACE = {
    "curvature/lanczos.py",
    "curvature/matrix_function.py",
    "curvature/spectrum.py",
}
# Of matrices that are small, or formed for another end.
OTHERS = {
    "curvature/ritz.py": "what is projected on the space that lanczos.py makes",
    "curvature/tracking.py": "Rayleigh and Ritz in a block of vectors and their products",
    "diagnostics/kernel/feature_covariance.py": "a kernel matrix",
    "diagnostics/kernel/kernel_spectrum.py": "a kernel matrix",
    "flows/edge/complementarity.py": "a matrix over a few eigenvectors",
    "flows/fields/by_differences/displaced.py": "the nodes of a quadrature",
    "flows/validity.py": "dense Hessians of a few parameters",
}


def modules_that_name(wanted):
    root = Path(igr.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {getattr(node, "attr", getattr(node, "id", None)) for node in nodes}
        if names & wanted:
            found.add(path.relative_to(root).as_posix())
    return found


def test_decompositions_are_of_that_space_or_of_what_is_small():
    assert modules_that_name({"krylov_step"}) == OF_A_KRYLOV_SPACE
    known = OF_A_KRYLOV_SPACE - {"curvature/lanczos.py"} | set(OTHERS)
    assert modules_that_name(DECOMPOSITIONS) == known


class OneStepError(Exception):
    """A step in a Krylov space was to be taken."""


def loss(w):
    return jnp.sum(jnp.cosh(w) * jnp.arange(1.0, 14.0)) + 0.271828 * w[0] * w[1]


def example_loss(w, x):
    return loss(w) * x


W, X = jnp.linspace(-1, 1, 13), jnp.linspace(1, 2, 4)


def updated(rule):
    return rule.update(jax.grad(loss)(W), rule.init(W), W, value_fn=loss)[0]


def product(v):
    return jnp.arange(1.0, 14.0) * v + 0.271828 * v[::-1]


CALLS = {
    "sharpness": lambda: curvature.sharpness(loss, W),
    "top_eigenpairs": lambda: curvature.top_eigenpairs(product, W, 2),
    "the smallest": lambda: curvature.top_eigenpairs(product, W, 1, which="smallest"),
    "sgd_stability": lambda: curvature.sgd_stability(example_loss, W, X, 0.1, 2),
    "spectral_density": lambda: curvature.spectral_density(product, W, num_products=3),
    "trace of a function": lambda: curvature.trace(product, W, function=jnp.abs),
    "absolute_hessian": lambda: updated(transforms.metric_decay(0.1, "absolute_hessian")),
    "preconditioned_sharpness": lambda: diagnostics.preconditioned_sharpness(
        loss, W, jnp.arange(1.0, 14.0)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_needs_eigenvalues_takes_its_steps_there(name, monkeypatch):
    def fails(*_):
        raise OneStepError

    monkeypatch.setattr(krylov, "orthogonalized", fails)
    with pytest.raises(OneStepError):
        CALLS[name]()
