"""Any optimizer on mini-batches beside the equation that knows them: exact, or an estimate."""

import jax
import numpy as np
import optax
import pytest

import igr
from tests.flows.fields.batches.test_reshuffled_field import START, batches, loss


def over(optimizer, h=0.01, **options):
    given = {"epochs": 20, "runs": 256, "key": jax.random.key(0), "sharpness": False}
    return igr.compare(
        loss, START, h, flows=(0, 1), batches=batches(4), optimizer=optimizer, **given | options
    )


def clipped(h):
    return optax.chain(optax.ema(0.5, debias=False), optax.clip_by_global_norm(1.0), optax.sgd(h))


def ends(seen):
    return {p: float(d[-1]) for p, d in seen.distance.items()}


@pytest.mark.slow
def test_adam():
    """Its second moment is that of batches, its order 1 at least five times closer."""
    seen = over(lambda h: optax.adam(h, 0.5, 0.99, eps=0.1))
    assert not seen.notes
    zero, one = ends(seen).values()
    error = seen.standard_error[1][-1]
    assert zero > 10 * error
    assert one < zero / 5 + 2 * error, (zero, one, error)
    assert np.isfinite(seen.remainder).all()
    assert seen.trusted.any()


@pytest.mark.slow
def test_what_has_no_formula():
    """Momentum then clipped: an estimate, whose own error stands beside that of the runs."""
    plain = over(clipped)
    assert "knows no batches" in str(plain)
    assert "sequences=64" in str(plain)
    assert not plain.trusted.any()
    seen = over(clipped, sequences=32)
    assert "an estimate over 32 sequences" in str(seen)
    assert (seen.standard_error[1][1:] > plain.standard_error[1][1:]).all()
    zero, one = ends(seen).values()
    error = seen.standard_error[1][-1]
    assert one < zero / 2 + 2 * error, (zero, one, error)
    # Without its batches the equation is off even at h^0: the mean of what is clipped is another.
    assert ends(plain)[0] > 3 * zero, (ends(plain), ends(seen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"sequences": 3}, "sequences must be at least 4; got 3", marks=pytest.mark.slow
        ),
        ({"sequences": 8, "optimizer": optax.sgd}, "sequences is for methods without a formula"),
        (
            {"sequences": 8, "batches": None, "epochs": None, "runs": None, "key": None},
            "sequences is for runs on batches",
        ),
    ],
)
def test_bad_input(options, message):
    given = {"epochs": 1, "runs": 2, "key": jax.random.key(0), "burn_in": 0, "steps": None}
    given |= {"batches": batches(4), "optimizer": clipped, "flows": (0,)}
    with pytest.raises(ValueError, match=message):
        igr.compare(loss, START, 0.01, **given | options)
