"""Whether programs can wait for each other forever."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from analysis.training.measuring import measure
from analysis.training.program import Data, Program
from analysis.training.stepping import advance, start


def waits_for_threads(program: Program, begin: tuple[Any, ...], data: Data) -> bool:
    """Whether some kernel hands parts of its work to XLA's threads and waits for them.

    LAPACK's do in jaxlib 0.10 and the Fourier transform's do. As such a kernel itself runs in one
    of these threads, programs of which as many run at once as there are threads can wait forever.
    """
    step = np.int32(0)
    leaves, structure = jax.tree.flatten((begin, data, step))
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(v), jax.dtypes.result_type(v)) for v in leaves)
    return _waits_for_threads(program, structure, shapes)


@lru_cache(maxsize=64)
def _waits_for_threads(program: Program, structure: Any, shapes: tuple[Any, ...]) -> bool:
    begin, data, step = jax.tree.unflatten(structure, shapes)
    carry, fixed = jax.eval_shape(partial(start, program), *begin)
    lowered = (
        advance.lower(program.for_steps(), carry, fixed, data.to_train_on(), step, step),
        measure.lower(program.for_measures(), carry, fixed, data, step),
    )
    return any(_WAITING_KERNELS.search(part.as_text()) for part in lowered)


# As they are called before and after XLA's own passes.
_WAITING_KERNELS = re.compile(r"\b(lapack|blas)_|stablehlo\.(fft|cholesky|triangular_solve)")
