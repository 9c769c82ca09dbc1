# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Watch a run
#
# What do the gradients of a network say about its training that its test accuracy does not say yet?
# We train a small network on handwritten digits, once with four labels of ten drawn anew at random
# and once with the true ones, and let a monitor take coherence, the trace of the tangent kernel and
# the sharpness along both runs.

# %%
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import igr
from igr.diagnostics import accuracy, tangent_kernel_trace

pixels, classes = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
order = rng.permutation(len(pixels))
x = jnp.asarray(pixels[order] / 16, jnp.float32)
true = classes[order].astype(np.int32)
noisy = np.where(rng.random(len(true)) < 0.4, rng.integers(0, 10, len(true)), true)

examples = 600  # to train on; the others, with their true labels, to test
test = x[examples:], jnp.asarray(true[examples:])

# %% [markdown]
# ## The network and its loss
#
# Everything `igr` measures it takes from two functions: `apply_fn`, from parameters and one input
# to the outputs, and `example_loss_fn`, from parameters and one example to its loss. The library
# maps them over a batch.


# %%
def apply_fn(params, x):
    hidden = jax.nn.relu(x @ params["w"] + params["b"])
    return hidden @ params["v"] + params["c"]


def probabilities(params, x):
    return jax.nn.softmax(apply_fn(params, x))


def example_loss_fn(params, example):
    x, label = example
    return optax.softmax_cross_entropy_with_integer_labels(apply_fn(params, x), label)


def initial(key, width=128):
    first, second = jax.random.split(key)
    return {
        "w": jax.random.normal(first, (64, width), jnp.float32) * (2 / 64) ** 0.5,
        "b": jnp.zeros(width, jnp.float32),
        "v": jax.random.normal(second, (width, 10), jnp.float32) * (1 / width) ** 0.5,
        "c": jnp.zeros(10, jnp.float32),
    }


# %% [markdown]
# ## A monitor
#
# `igr.Monitor` knows some measures by name. Others are functions of the parameters and the batch:
# here the kernel of the *probabilities*, and the test accuracy. All of them together are one
# compiled program, which runs every twentieth step. It writes its rows to a file, too, and knows
# the learning rate, to tell when the step becomes too long for the sharpness.

# %%
learning_rate, steps = 0.2, 500
folder = Path(tempfile.mkdtemp())


def watch(name):
    return igr.Monitor(
        {
            "coherence": "coherence",
            "sharpness": "sharpness",
            "tr K": lambda params, batch: tangent_kernel_trace(probabilities, params, batch[0]),
            "test accuracy": lambda params, batch: accuracy(apply_fn, params, *test),
        },
        every=20,
        example_loss_fn=example_loss_fn,
        learning_rate=learning_rate,
        csv=folder / f"{name}.csv",
    )


# %% [markdown]
# ## Two runs
#
# The loop is the reader's own; the monitor is called in it, and returns a dictionary of scalars
# when it has measured, and an empty one when not.

# %%
optimizer = optax.sgd(learning_rate)


@jax.jit
def train_step(params, state, batch):
    def loss(params):
        return jnp.mean(jax.vmap(example_loss_fn, (None, 0))(params, batch))

    updates, state = optimizer.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state


def train(name, labels):
    batch = x[:examples], jnp.asarray(labels[:examples])
    params = initial(jax.random.key(0))
    state = optimizer.init(params)
    rows = []
    with watch(name) as monitor:
        for step in range(steps + 1):
            if row := monitor(params, batch):
                rows.append({"step": step, **row})
            params, state = train_step(params, state, batch)
    print(f"{name}: the monitor took {monitor.cost}")
    return {column: np.array([float(row[column]) for row in rows]) for column in rows[0]}


with warnings.catch_warnings(record=True) as raised:
    warnings.simplefilter("always", UserWarning)
    runs = {"noisy labels": train("noisy labels", noisy), "true labels": train("true labels", true)}

for warning in raised:
    print(warning.message)
print((folder / "noisy labels.csv").read_text().splitlines()[1])

# %% [markdown]
# Most of the cost is that of the sharpness, which takes many Hessian products of the whole set; in
# a long run one would ask for it less often, with a monitor of its own. Slope, coherence and a
# trace on a batch cost a few gradients.
#
# ## What they say, and when
#
# Test accuracy says *overfitting* when it has fallen a percent below its best, which can only be
# known after the best is past. The gradients need no test set: coherence under its orthogonal
# limit says that the gradients of the examples cancel; a sharpness, or a trace, that has risen
# over the last 60 steps says that the network becomes more sensitive, where on data that agree it
# settles. The first 60 steps, in which everything grows, are left out.


# %%
def first(steps, holds):
    return int(steps[np.argmax(holds)]) if np.any(holds) else "never"


def says(run):
    step = run["step"]
    test = run["test accuracy"]
    best = np.maximum.accumulate(test)

    def risen(values):
        later = np.zeros(len(values), bool)
        later[6:] = values[6:] > 1.02 * values[3:-3]  # after the first 60 steps, over 60
        return first(step, later)

    return {
        "coherence under its limit": first(step, run["coherence/helped"] < 1),
        "sharpness risen by 2 %": risen(run["sharpness"]),
        "tr K risen by 2 %": risen(run["tr K"]),
        "best test accuracy": int(step[np.argmax(test)]),
        "test accuracy 1 % below its best": first(step, test < best - 0.01),
    }


told = {name: says(run) for name, run in runs.items()}
for what in told["noisy labels"]:
    print(f"{what:34}", *(f"{name}: {told[name][what]!s:6}" for name in runs))

# %%
figure, axes = plt.subplots(2, 2, figsize=(8, 5), sharex=True, layout="constrained")
panels = {
    "test accuracy": "test accuracy",
    "coherence/helped": "coherence over its limit",
    "tr K": "tr K of the probabilities",
    "sharpness": "sharpness",
}
marks = (("best test accuracy", ":"), ("test accuracy 1 % below its best", "-."))
for ax, (column, label) in zip(axes.flat, panels.items(), strict=True):
    for (name, run), colour, line in zip(
        runs.items(), ("#D55E00", "#0072B2"), ("-", "--"), strict=True
    ):
        ax.plot(run["step"], run[column], line, color=colour, label=name)
    for what, line in marks:
        ax.axvline(told["noisy labels"][what], color="grey", linestyle=line, linewidth=1)
    ax.set_ylabel(label)
axes[0, 0].set_ylim(0.75, 1)
axes[0, 0].legend()
axes[0, 1].set_yscale("log")
axes[0, 1].axhline(1, color="black", linewidth=0.8)
axes[1, 1].axhline(2 / learning_rate, color="black", linewidth=0.8)
axes[1, 1].annotate("2 / h", (steps, 2 / learning_rate - 0.1), va="top", ha="right")
for ax in axes[1]:
    ax.set_xlabel("step")
plt.show()

# %% [markdown]
# The grey lines are where the test accuracy of the run with noisy labels is at its best, and where
# it has fallen by a percent.
#
# - **Sharpness and the trace** part the two runs. With noisy labels both go on rising, and the rule
#   above says so no later than the test accuracy is at its best, and well before it has fallen by a
#   percent; with true labels both turn and fall, and the rule is silent.
# - **Coherence** falls under its orthogonal limit before the test accuracy is at its best, and
#   sooner and lower with noisy labels. But it does so with true labels as well, a little later,
#   when most of what the examples have in common has been learnt; the test accuracy of that run
#   still rises by a few percent afterwards. Taken alone it says that what is left to learn is not
#   shared, and not that learning it does harm.
# - The trace of the kernel of the *logits* would not do: it rises in both runs, for logits grow as
#   long as the loss falls.
#
# This is one network, one data set and one draw of the noise; in two more draws the order was the
# same. That the trace falls with true labels was known to us when we chose the rule: without such a
# run to compare with, what can be used is whether the curves turn.
