"""The spectra of the Hessian and the tangent kernel, and eigenvectors by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from igr.plots.style import COLOURS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def spectrum(density: Any, ax: Axes | None = None) -> Axes:
    """Draws a density of eigenvalues, with a band of one standard error; returns the Axes.

    The vertical axis is logarithmic and begins at a millionth of the highest value: below, the
    density is that of the smoothing kernel's tails.

    Args:
      density: an `igr.curvature.SpectralDensity`.
      ax: the Axes to draw on; new ones if None.

    Raises:
      TypeError: if `density` is no such density.
    """
    if not hasattr(density, "density") or not hasattr(density, "grid"):
        raise TypeError(f"density must be a SpectralDensity; got {type(density).__name__}.")
    ax = axes(ax)
    grid, height = np.asarray(density.grid, float), np.asarray(density.density, float)
    error = np.asarray(density.error, float)
    floor = 1e-6 * np.nanmax(height)
    ax.plot(grid, height, color=COLOURS[0])
    if np.isfinite(error).any():
        low = np.maximum(height - error, floor)
        ax.fill_between(grid, low, height + error, color=COLOURS[0], alpha=0.25, linewidth=0)
    ax.set_yscale("log")
    ax.set_ylim(floor, None)
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel(f"density, smoothed by {float(density.width):.2g}")
    return ax


def eigenpairs(pairs: Any, ax: Axes | None = None) -> Axes:
    """Draws the share of each leaf of params in every eigenvector's square; returns the Axes.

    Args:
      pairs: an `igr.curvature.Eigenpairs`.
      ax: the Axes to draw on; new ones if None.

    Raises:
      TypeError: if `pairs` are no eigenpairs.
    """
    if not hasattr(pairs, "vectors") or not hasattr(pairs, "values"):
        raise TypeError(f"pairs must be Eigenpairs; got {type(pairs).__name__}.")
    ax = axes(ax)
    leaves, _ = jax.tree_util.tree_flatten_with_path(pairs.vectors)
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/") or "params" for path, _ in leaves
    ]
    squares = np.stack(
        [np.square(np.asarray(x, float)).reshape(len(x), -1).sum(1) for _, x in leaves]
    )
    shares = squares / squares.sum(0)
    image = ax.pcolormesh(shares, vmin=0, vmax=1, cmap="cividis", edgecolors="white", linewidth=0.5)
    values = [f"{float(v):.3g}" for v in pairs.values]
    ax.set_xticks(np.arange(len(values)) + 0.5, values, rotation=60 if len(values) > 6 else 0)
    ax.set_yticks(np.arange(len(names)) + 0.5, names)
    ax.invert_yaxis()
    ax.set_xlabel("eigenvalue")
    ax.figure.colorbar(image, ax=ax, label="share of the eigenvector")
    return ax


def kernel_spectrum(found: Any, ax: Axes | None = None) -> Axes:
    """Draws the nonzero eigenvalues of a tangent kernel by rank; returns the Axes.

    Args:
      found: an `igr.diagnostics.KernelSpectrum`.
      ax: the Axes to draw on; new ones if None.

    Raises:
      TypeError: if `found` is no such spectrum.
    """
    if not hasattr(found, "eigenvalues") or not hasattr(found, "effective_rank"):
        raise TypeError(f"found must be a KernelSpectrum; got {type(found).__name__}.")
    ax = axes(ax)
    values = np.asarray(found.eigenvalues, float)[: int(found.rank)]
    ax.plot(
        np.arange(1, len(values) + 1), values, color=COLOURS[0], marker=".", label="eigenvalues"
    )
    effective = float(found.effective_rank)
    label = f"effective rank {effective:.3g}"
    ax.axvline(effective, color=COLOURS[1], linestyle="--", linewidth=1, label=label)
    ax.set_yscale("log")
    ax.set_xlabel(f"rank, of {np.size(found.eigenvalues)}")
    ax.set_ylabel("eigenvalue of the tangent kernel")
    ax.legend()
    return ax
