"""The network that is followed: its loss by numpy and scipy, its size by hand."""

import jax
import numpy as np
from scipy.special import log_softmax

from analysis.data import Classification
from paper_figures.igr_follow import HIDDEN, cross_entropy, tanh_network


def test_loss_and_size():
    rng = np.random.default_rng(0)
    data = Classification(rng.uniform(size=(7, 5)), np.array([0, 2, 1, 0, 2, 2, 1]), 3)
    params = tanh_network(data, jax.random.key(1))
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(params)) == 5 * HIDDEN + HIDDEN + HIDDEN * 3 + 3
    )

    hidden, output = params["hidden"], params["output"]
    units = np.tanh(data.x @ hidden["weights"] + hidden["bias"])
    logits = units @ output["weights"] + output["bias"]
    expected = -log_softmax(logits, axis=1)[np.arange(7), data.y].mean()
    np.testing.assert_allclose(cross_entropy(data)(params), expected, rtol=1e-12)
