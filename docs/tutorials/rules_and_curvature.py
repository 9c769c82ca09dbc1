# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Rules and curvature
#
# What the modified equation teaches can be put to use: as rules for the optimizer you have, and as
# measures of the curvature that these rules act on. Both take any pytree of parameters; here it is
# that of a small network.

# %%
import jax
import jax.numpy as jnp
import optax

from igr import curvature, methods, per_example, transforms

jax.config.update("jax_enable_x64", True)

key, noise, first, second, third = jax.random.split(jax.random.key(0), 5)
x = jnp.linspace(-1.0, 1.0, 40)
wave = jnp.sin(3 * x)
batch = (x, wave + 0.1 * jax.random.normal(noise, x.shape))
params = {
    "weights": jax.random.normal(first, (8,)),
    "bias": jax.random.normal(second, (8,)),
    "output": jax.random.normal(third, (8,)) / 2,
}


def example_loss_fn(params, example):
    x, y = example
    return (jnp.tanh(x * params["weights"] + params["bias"]) @ params["output"] - y) ** 2


def mean_loss(params, batch):
    return jnp.mean(jax.vmap(example_loss_fn, (None, 0))(params, batch))


# %% [markdown]
# ## A rule in the loop you have
#
# Every rule is an optax transformation. Those that need more than the gradient take the loss as the
# extra argument `value_fn`, as optax's own line searches do; the others leave it alone.


# %%
mean_gradient = jax.grad(mean_loss)


@jax.jit(static_argnames=("optimizer", "gradient_fn", "steps"))
def train(params, batch, optimizer, gradient_fn=mean_gradient, steps=500):
    def step(carry, _):
        params, state = carry
        gradient = gradient_fn(params, batch)
        updates, state = optimizer.update(
            gradient, state, params, value_fn=lambda p: mean_loss(p, batch)
        )
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]


optimizers = {
    "plain": optax.with_extra_args_support(optax.sgd(0.1)),
    "EGR": transforms.egr(0.1, mu=0.2),
    "Metric": transforms.metric_sgd(0.1, strength=1e-3),
    "Selective L2": transforms.selective_l2_sgd(0.1, weight_decay=1e-3, threshold=0.1),
}
ends = {name: train(params, batch, optimizer) for name, optimizer in optimizers.items()}
for name, end in ends.items():
    print(f"{name:12} loss {mean_loss(end, batch):.4f}")

# %% [markdown]
# How strong should the penalty be? A step of size $h$ does by itself what $\mu = h/4$ does
# explicitly. So the regularization that a step of 0.4 would have had, at a step of 0.1, takes

# %%
print(transforms.match_implicit(methods.gradient_descent(), 0.1, target_learning_rate=0.4))

# %% [markdown]
# and a negative one takes the step's own away: the run then follows the gradient flow one order
# closer.

# %%
print(transforms.cancel_implicit(methods.gradient_descent(), 0.1))

# %% [markdown]
# ## Examples that are wrong
#
# The mean gradient listens to every example, however far off. `winsorize` pulls the outlying
# examples in, coordinate by coordinate; `median_of_means` takes the median of the means of groups.
# Both stand first in a chain and take gradients with a leading axis: of all examples, or of groups,
# which are streamed. Here every eighth target is far off, and we ask how well each rule finds the
# wave below.

# %%
wrong = (x, batch[1].at[::8].set(3.0))
shuffled = jax.tree.map(lambda leaf: jax.random.permutation(key, leaf), wrong)


def every(params, batch):
    return per_example.per_example_gradients(example_loss_fn, params, batch)


def groups(params, batch):
    return per_example.grouped_gradients(example_loss_fn, params, batch, num_groups=20)


robust = {
    "mean": (optimizers["plain"], mean_gradient),
    "winsorized": (transforms.winsorized_sgd(0.1, percentile=20), every),
    "median of 20 means": (transforms.median_of_means_sgd(0.1, num_groups=20), groups),
}
for name, (optimizer, gradient_fn) in robust.items():
    end = train(params, shuffled, optimizer, gradient_fn, steps=1000)
    print(f"{name:18} distance from the wave {mean_loss(end, (x, wave)) ** 0.5:.3f}")

# %% [markdown]
# ## Curvature
#
# A product is a plain function $v \mapsto Hv$. No matrix is formed; the gradient is linearized
# once, or, with `chunk=`, taken so many examples at a time. The same for the Gauss-Newton and
# Fisher matrices.

# %%
product = curvature.hessian_product(example_loss_fn, ends["plain"], batch)
found = curvature.top_eigenpairs(product, ends["plain"], k=3)
print("eigenvalues:", found.values)
print("converged:", found.converged, "after", found.products, "products")
print("along the output weights:", jnp.sum(found.vectors["output"] ** 2, axis=1))

# %% [markdown]
# Every eigenvalue comes with a bound on its error, and the result says whether all of them reached
# the tolerance. The largest, the *sharpness*, decides whether gradient descent stays: its step must
# not exceed two over it. Along a run, start each search from the vector that the last one found.

# %%
sharp = curvature.sharpness(example_loss_fn, ends["plain"], batch)
again = curvature.sharpness(example_loss_fn, ends["EGR"], batch, initial=sharp.vector)
print(f"plain: {sharp.value:.2f} ({sharp.products} products)")
print(f"EGR:   {again.value:.2f} ({again.products} products)")

# %% [markdown]
# SGD asks for more than that: the examples' Hessians must agree as well.

# %%
stability = curvature.sgd_stability(
    example_loss_fn, ends["plain"], batch, learning_rate=0.1, batch_size=4
)
print(f"sharpness      {stability.sharpness:6.2f}, at most {stability.sharpness_limit:6.2f}")
print(
    f"non-uniformity {stability.non_uniformity:6.2f}, at most {stability.non_uniformity_limit:6.2f}"
)
print("a step of SGD multiplies the mean square distance by at most", stability.growth)

# %% [markdown]
# The whole spectrum, or the trace of any function of the matrix, comes from a few random vectors,
# with the standard error of the estimate.

# %%
trace = curvature.trace(product, ends["plain"], num_probes=50)
print(
    f"trace {trace.value:.2f} +- {trace.error:.2f}, of which the top three {found.values.sum():.2f}"
)
