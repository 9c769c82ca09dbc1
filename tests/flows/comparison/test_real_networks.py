"""The networks of the tutorial, and the flows that clipped and scheduled AdamW follows on them."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from tests.quick import quick

pytestmark = pytest.mark.usefixtures("single_precision")

TUTORIAL = Path(__file__).parents[3] / "docs" / "tutorials" / "real_networks.py"
TINY = "tiny, max pooling"
H, CLIP, DECAY, STEPS = 3e-3, 0.05, 0.3, 300


def rate(h):
    return optax.warmup_cosine_decay_schedule(0.0, h, 30, STEPS)


def optimizer(h):
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(rate(h), weight_decay=DECAY))


def cells():
    """(title, code) of each cell of the tutorial."""
    found = re.split(r"(?m)^# %%(.*)$", TUTORIAL.read_text(encoding="utf-8"))
    return [(title.strip(), code) for title, code in zip(found[1::2], found[2::2], strict=True)]


@pytest.fixture(scope="module")
def networks():
    """What the tutorial defines, but for the runs and what is read off them."""
    defined = {}
    for title, code in cells():
        code = code.split("trained = {")[0]
        if title not in ("[markdown]", "igr", "picture") and "trained" not in code:
            exec(code, defined)
    return defined


def tiny():
    """A layer and max pooling."""
    keys = jax.random.split(jax.random.key(1))
    x, y = (jax.random.normal(k, (9, n)) for k, n in zip(keys, (4, 3), strict=True))
    loss = lambda p: jnp.mean(((x @ p).reshape(9, 3, 2).max(-1) - y) ** 2)
    return loss, jnp.sin(jnp.arange(24.0)).reshape(4, 6)


def test_a_user_writes_fifteen_lines_at_most():
    own = [code for title, code in cells() if title == "igr"]
    lines = [line for code in own for line in code.splitlines() if re.match(r"\s*[^#\s]", line)]
    assert any("from_optax(" in line for line in lines)
    assert len(lines) <= 15, len(lines)
    assert any("igr.compare(" in line for line in lines)
    others = [c for title, c in cells() if title not in ("igr", "[markdown]")]
    calls = {call for code in others for call in re.findall(r"\bigr\.(\w+)", code)}
    assert calls == {"run"}  # the training loop


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LeNet", "transformer"])
def test_the_run_is_followed_to_the_end(networks, name):
    """By order 0 and by differences of whole steps, these at least twice as close."""
    loss, params = networks["networks"][name]
    seen = igr.compare(
        loss, params, 1e-3, 160, flows=(0, "differences"), optimizer=networks["optimizer"],
        burn_in=40, record_every=16, sharpness=False,
    )  # fmt: skip
    for p in (0, "differences"):
        assert np.isfinite(seen.distance[p]).all()
        assert np.isfinite(seen.solver_error[p])
    assert 2 * seen.distance["differences"][-1] < seen.distance[0][-1]
    assert seen.distance["differences"][-1] < 0.1 * seen.travelled[-1]
    if name == "LeNet":
        assert not seen.trusted.any()


def told(name):
    """A row of the tutorial's table: shares of the way by flow, of records trusted; in percent."""
    (row,) = re.findall(rf"(?m)^# \| {name} \|(.*)\|$", TUTORIAL.read_text(encoding="utf-8"))
    shares = (cell.strip().removesuffix(" %") for cell in row.split("|"))
    return [np.inf if share == "left" else float(share) for share in shares]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LeNet", "ResNet"])
def test_what_the_tutorial_says_of_networks_it_does_not_compare(networks, name):
    """By the call that it makes for another, with their losses and params.

    Of the ResNet the loss has a batch's own statistics. The expansion ends at once: kinks, and a
    correction of .41 of the gradient's own motion.
    """
    (call,) = [code for _, code in cells() if "igr.compare(" in code]
    loss, params = networks["networks"][name]
    space = networks | {"loss": loss, "params": params}
    exec(call, space)
    seen = space["seen"]
    found = [
        np.inf if seen.left(p) is not None else 100 * seen.distance[p][-1] / seen.travelled[-1]
        for p in (0, 1, "differences")
    ]
    *shares, trusted = told(name)
    assert found == pytest.approx(shares, rel=0.1)
    assert 100 * seen.trusted.mean() == pytest.approx(trusted, abs=1)
    assert seen.failed["kinks"].all()
    if name == "ResNet":
        assert 20 * found[2] < found[1] < found[0] < 50


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 2.0])
def test_where_nothing_is_clipped_the_field_is_that_of_the_chain_without(share):
    """To order 1, by two derivations: from the clipped rule's derivatives, and by AdamW's terms."""
    loss, params = tiny()
    n = 100
    without = lambda h: optax.adamw(rate(h), weight_decay=DECAY)
    run = igr.run(without(H), loss, params, n, record_every=n)
    bound = share * float(run.gradient_norm[-1])
    clipped = lambda h: optax.chain(optax.clip_by_global_norm(bound), without(h))
    nu = optax.tree.get(run.state, "nu")

    def motion(make, order):
        method = igr.from_optax(make, params=params)
        field = igr.vector_field(igr.modified_equation(method, order), loss, H)
        kept = {"nu": (nu,) if make is clipped else nu}  # a rule's states are its own leaves
        return np.asarray(field(n * H, (run.last, kept), None)[0])

    zero, one = motion(without, 0), motion(without, 1)
    assert np.linalg.norm(one - zero) > 1e-3 * np.linalg.norm(zero)
    apart = np.linalg.norm(motion(clipped, 1) - one) / np.linalg.norm(one - zero)
    assert apart < 0.01 if share > 1 else apart > 1


@pytest.mark.parametrize("name", quick(["transformer", TINY], TINY))
def test_the_field_is_clipped_adamw(request, name):
    """-(rate/h) (g clipped / (root of nu unbiased + eps) + decay theta), in a state of training."""
    loss, params = tiny() if name == TINY else request.getfixturevalue("networks")["networks"][name]
    n = 200
    run = igr.run(optimizer(H), loss, params, n, record_every=n)
    nu = optax.tree.get(run.state, "nu")
    at = run.last
    method = igr.from_optax(optimizer, params=params, certify=False)
    field = igr.vector_field(igr.modified_equation(method, 0), loss, H)
    found, _ = jax.jit(field)(n * H, (at, {"nu": tuple(jax.tree.leaves(nu))}), None)
    g = jax.jit(jax.grad(loss))(at)

    def by_hand(clip):
        factor = min(1.0, clip / float(optax.tree.norm(g)))
        share = float(rate(H)(n)) / H
        unbiased = 1 - 0.999**n
        return jax.tree.map(
            lambda g, v, p: -share * (factor * g / (np.sqrt(v / unbiased) + 1e-8) + DECAY * p),
            g, nu, at,
        )  # fmt: skip

    def apart(other):
        return float(optax.tree.norm(optax.tree.sub(found, other)) / optax.tree.norm(other))

    assert apart(by_hand(CLIP)) < 0.02  # counts are those of the step that begins or ends here
    assert apart(by_hand(np.inf)) > 0.1
