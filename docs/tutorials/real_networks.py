# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Real networks
#
# A convolutional network with max pooling, a residual network with batch normalization and a small
# transformer, trained as one trains them: AdamW with warm-up, a cosine and clipping by the global
# norm, in float32. Which loss does such a run minimise, how far is it from each of its flows, and
# when does the expansion behind these stop being valid?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import igr

pixels, classes = load_digits(return_X_y=True)
images = jnp.asarray(pixels[:64] / 16).reshape(-1, 8, 8, 1)
labels = jnp.asarray(classes[:64])


def normal(rng, *shape):
    """He's initial weights."""
    return jnp.asarray(rng.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5, jnp.float32)


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %% [markdown]
# ## The networks
#
# LeNet: two convolutions, each with ReLU and max pooling, and a hidden layer.


# %%
def convolve(x, w, stride=1):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=dims)


def max_pool(x):
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def lenet_loss(params):
    x = images
    for w in params["convolutions"]:
        x = max_pool(jax.nn.relu(convolve(x, w)))
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["hidden"])
    return cross_entropy(x @ params["out"])


def lenet(rng):
    convolutions = [normal(rng, 3, 3, 1, 4), normal(rng, 3, 3, 4, 8)]
    return {"convolutions": convolutions, "hidden": normal(rng, 32, 16),
            "out": normal(rng, 16, 10)}  # fmt: skip


# %% [markdown]
# ResNet: a stem of stride 2 and a block of two convolutions beside a shortcut, each with batch
# normalization. On a full batch the loss is that of the batch's own statistics. The averages that
# evaluation reads change nothing in it and are no parameters: they are a tree of their own,
# `averages`, made of the last params once training is over.


# %%
def normalize(x, norm, averages=None):
    axes = (0, 1, 2)
    mean, var = (x.mean(axes), x.var(axes)) if averages is None else averages
    return (x - mean) / jnp.sqrt(var + 1e-3) * norm["scale"] + norm["shift"], (mean, var)


def resnet_logits(params, averages=None):
    """The logits and the statistics of each normalization: of the batch, or those held fixed."""
    held = iter(averages or [None] * 3)
    seen = []

    def layer(x, name, stride=1):
        x = convolve(x, params[name]["w"], stride)
        x, statistics = normalize(x, params[name], next(held))
        seen.append(statistics)
        return x

    x = jax.nn.relu(layer(images, "stem", stride=2))
    x = jax.nn.relu(x + layer(jax.nn.relu(layer(x, "first")), "second"))
    return x.mean((1, 2)) @ params["out"], seen


def resnet_loss(params):
    return cross_entropy(resnet_logits(params)[0])


def resnet(rng):
    layers = {
        name: {"w": normal(rng, 3, 3, width, 6), "scale": jnp.ones(6), "shift": jnp.zeros(6)}
        for name, width in (("stem", 1), ("first", 6), ("second", 6))
    }
    return layers | {"out": normal(rng, 6, 10)}


# %% [markdown]
# A transformer: an image is the sequence of its 36 inner pixels, each one of 4 levels of grey, and
# what is predicted is the next. Embeddings are tied to the outputs, the blocks are stacked and
# scanned, and each is rematerialized on the way back.

# %%
width, levels = 8, 4
tokens = jnp.asarray(jnp.clip(images[:16, 1:7, 1:7, 0] * levels, 0, levels - 1), int)
tokens = tokens.reshape(len(tokens), -1)  # (16, 36)


def layer_norm(x, scale):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale


@jax.checkpoint
def block(x, p):
    length = x.shape[1]
    q, k, v = jnp.split(layer_norm(x, p["before"]) @ p["qkv"], 3, axis=-1)
    scores = jnp.einsum("bqd,bkd->bqk", q, k) / width**0.5
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e9)
    x = x + jax.nn.softmax(scores) @ v @ p["mix"]
    return x + jax.nn.gelu(layer_norm(x, p["between"]) @ p["up"]) @ p["down"], None


def transformer_loss(params):
    x = params["embedding"][tokens[:, :-1]] + params["places"][: tokens.shape[1] - 1]
    x, _ = jax.lax.scan(block, x, params["blocks"])
    logits = layer_norm(x, params["last"]) @ params["embedding"].T
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def transformer(rng, blocks=2):
    shapes = {"qkv": (width, 3 * width), "mix": (width, width), "up": (width, 2 * width),
              "down": (2 * width, width)}  # fmt: skip
    stacked = {
        name: jnp.stack([normal(rng, *shape) / 2 for _ in range(blocks)])
        for name, shape in shapes.items()
    }
    stacked |= {"before": jnp.ones((blocks, width)), "between": jnp.ones((blocks, width))}
    return {"embedding": normal(rng, levels, width), "blocks": stacked,
            "places": normal(rng, 36, width), "last": jnp.ones(width)}  # fmt: skip


# %% [markdown]
# ## Training
#
# This much everybody has. The optimizer is a function of its peak rate.

# %%
decay, warm_up, steps, bound = 1e-2, 40, 400, 1.0


def unclipped(h):
    rate = optax.warmup_cosine_decay_schedule(0.0, h, warm_up, steps)
    return optax.adamw(rate, weight_decay=decay)


def optimizer(h):
    return optax.chain(optax.clip_by_global_norm(bound), unclipped(h))


h = 1e-3
networks = {
    "LeNet": (lenet_loss, lenet(np.random.default_rng(0))),
    "ResNet": (resnet_loss, resnet(np.random.default_rng(1))),
    "transformer": (transformer_loss, transformer(np.random.default_rng(2))),
}
trained = {
    name: igr.run(optimizer(h), loss, params, steps) for name, (loss, params) in networks.items()
}
for name, run in trained.items():
    print(f"{name}: loss {run.value[0]:.3f} -> {run.value[-1]:.4f}")

# %% [markdown]
# The ResNet's averages, from its last params. With them held fixed it is a function of its params
# and one image alone:

# %%
last = trained["ResNet"].last
_, averages = resnet_logits(last)
logits, _ = resnet_logits(last, averages)
print(f"ResNet, averages held: {(logits.argmax(-1) == labels).mean():.2f} of the images right")

# %% [markdown]
# ## Which loss does the run minimise?
#
# The optimizer is read from its code. The answer comes in pieces: without clipping there is a loss,
# here first at a constant rate and then with the schedule, which is written out and cut short.


# %%
def constant(h):
    return optax.adamw(h, weight_decay=decay)


# %% igr
for make in (constant, unclipped, optimizer):
    method = igr.from_optax(make, params=networks["LeNet"][1])
    try:
        told = str(igr.modified_equation(method, 1).modified_loss())
    except igr.NotAGradientError as reason:
        told = f"no loss: {reason}"
    print(f"{make.__name__}: {told[:330]}")

# %% [markdown]
# Where the gradient is shorter than the bound, and has been for the ten steps or so that the first
# moment looks back, clipping is the identity and the second answer holds: in the metric of its own
# second moment, which it has from all that came before, the run goes down $E$ with a penalty on the
# gradient and one that couples it to the weight decay.
#
# Where the gradient is longer it is divided by its norm, and there is no such loss: the derivative
# of $g/|g|$ is symmetric only where $Hg$ is parallel to $g$, so that it is the gradient of nothing.
# The library certifies a loss or gives its reason. How many steps were clipped?

# %%
for name, run in trained.items():
    clipped = np.flatnonzero(np.asarray(run.gradient_norm[:-1]) > bound)
    last = f", the last of them step {clipped[-1] + 1}" if clipped.size else ""
    print(f"{name}: {clipped.size} of {steps} steps were clipped{last}")

# %% [markdown]
# ## How far is it from each flow, and when does the expansion stop being valid?
#
# The flow needs no loss: it is that of the equation, clipping included. The comparison begins once
# the rate has warmed up: by then the memory has filled, and a burn-in longer than the schedule
# would leave nothing to compare. Order 0 is the preconditioned gradient flow, order 1 adds the
# first correction by derivatives. "differences" takes two of the optimizer's own steps in their
# place and carries its whole memory along, which sees kinks.
#
# First the transformer, which is smooth.

# %%
loss, params = networks["transformer"]

# %% igr
seen = igr.compare(loss, params, h, 40, flows=(0, 1, "differences"),
                   optimizer=optimizer, burn_in=warm_up, sharpness=False)  # fmt: skip
print(seen)

# %% picture
seen.plot()
plt.show()

# %% [markdown]
# The report says where the expansion stops being valid: where its correction is no longer small, or
# where kinks leave derivatives too little of the change of the gradient to explain; the picture
# shades those steps. Here it is the correction: nearly nowhere is the expansion to be trusted, and
# order 1 is less than twice as close as order 0. What the run follows is the flow of its own steps.
#
# The call above with the other networks is left to you, for each takes a minute or two to compile.
# Where they end after the 40 steps from the warm-up on, in shares of the way that the run has
# travelled, and at how many records the expansion is to be trusted
# (`tests/flows/comparison/test_real_networks.py` makes these calls and reads this table):
#
# | | order 0 | order 1 | differences | trusted |
# |---|---:|---:|---:|---:|
# | LeNet | 49 % | left | 0.85 % | 0 % |
# | ResNet | 34 % | 21 % | 0.71 % | 0 % |
#
# On both, kinks alone rule the expansion out at every record. On the LeNet order 1 leaves the run
# altogether: a unit that comes on has no second moment yet, and the field divides by its root;
# [the page on kinks](../../kinks/) has more numbers. The ResNet is compared on its loss in training
# mode: the statistics are those of the full batch, so functions of the params and no state of the
# run.
