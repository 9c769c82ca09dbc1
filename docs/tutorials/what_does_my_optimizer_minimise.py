# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # What does my optimizer minimise?
#
# Not quite the loss it is given. With a finite step it follows another flow, and that flow can be
# derived from what the optimizer remembers and what it does with it. In this tutorial we ask
# momentum, then Adam, then an optimizer that is in no library. At the end we let the real thing
# decide whether we were right.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
import sympy

import igr

# The distances below are smaller than single precision can show.
jax.config.update("jax_enable_x64", True)

keys = jax.random.split(jax.random.key(0), 4)
x, y = jax.random.normal(keys[0], (40, 8)), jax.random.normal(keys[1], (40, 4))
params = [jax.random.normal(keys[2], (8, 8)) / 3, jax.random.normal(keys[3], (8, 4)) / 3]


def value_fn(params):
    return jnp.mean((jnp.tanh(x @ params[0]) @ params[1] - y) ** 2)


# %% [markdown]
# ## Momentum
#
# Heavy ball moves along $m_n = \beta m_{n-1} + g_n$. A symbol instead of a number keeps $\beta$
# open:

# %%
beta = sympy.Symbol("beta", positive=True)
momentum = igr.modified_equation(igr.methods.heavy_ball(beta), order=1)
print(momentum)
print("minimises", momentum.modified_loss())

# %% [markdown]
# It is $1/(1-\beta)$ times as fast as gradient descent, and it regularizes the gradient
# $(1+\beta)/(1-\beta)^2$ times as strongly at the same step: 190 times at $\beta = 0.9$.
#
# ## The first steps are not yet on it
#
# The equation holds once the memory has filled. From a memory of zeros the first steps are too
# short, and the run ends up behind the flow by a distance of order $h$, *whatever the order of the
# equation*. `compare` knows three ways out: a burn-in before the comparison begins, weights that
# depend on the step while the memory fills, and a start shifted to where the flow will meet the
# run. Here is the equation of order 1 under each.

# %%
h = 0.004
for start_up in ("cold", "burn-in", "weights", "shift"):
    seen = igr.compare(
        value_fn, params, h, 200, (1,), igr.methods.heavy_ball(0.8),
        start_up=start_up, record_every=200, sharpness=False,
    )  # fmt: skip
    print(f"{seen.start_up}: off by {seen.distance[1][-1] / seen.travelled[-1]:.1e} of the way")

# %% [markdown]
# ## Adam
#
# Adam divides by the root of its second moment, elementwise. At $\beta_2 = 0.999$ that moment is
# too slow to be a function of where the run is now. It is *kept*: a variable of the flow beside the
# parameters, which starts from the state of the real optimizer.

# %%
adam = igr.methods.adam()
print(igr.modified_equation(adam, 0))

# %% [markdown]
# Here is `optax.adam` at its defaults beside the flows of order 0 and 1. The summary says how large
# the correction is and how $h$ times the sharpness stands to the limit of stability. For Adam that
# is the sharpness of the Hessian preconditioned by the second moment, and the limit is
# $2 (1+\beta_1)/(1-\beta_1) = 38$.

# %%
seen = igr.compare(
    value_fn, params, 1e-3, 300, (0, 1), adam,
    optimizer=optax.adam(1e-3), burn_in=500, record_every=20,
)  # fmt: skip
print(seen)

# %%
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(seen.step[1:], seen.travelled[1:], ":", color="grey", label="its start")
for order, (line, colour) in enumerate([("--", "#009E73"), ("-", "#D55E00")]):
    axes.plot(
        seen.step[1:], seen.distance[order][1:], line, color=colour, label=f"flow of order {order}"
    )
axes.set(yscale="log", xlabel="steps", ylabel="distance of Adam from")
axes.legend(ncols=3)
plt.show()

# %% [markdown]
# ## Any optimizer, from its run
#
# Without a description the field can still be read off a run: through neighbouring iterates goes a
# polynomial, and its derivative is what the optimizer followed there. So a derived equation can be
# held against a run that has been.

# %%
run = igr.run(optax.sgd(h, momentum=0.8), value_fn, params, 200)
along = igr.modified_field_along(run, order=3, learning_rate=h)
here = jax.tree.map(lambda leaf: leaf[150], along.params)
measured = jax.tree.map(lambda leaf: leaf[150], along.field)
for order in (0, 1, 2):
    equation = igr.modified_equation(igr.methods.heavy_ball(0.8), order)
    derived = igr.vector_field(equation, value_fn, h)(0.0, here, None)
    apart = optax.tree.norm(optax.tree.sub(derived, measured)) / optax.tree.norm(measured)
    print(f"order {order}: the derived field is off by {float(apart):.1e}")

# %% [markdown]
# ## Your own
#
# Suppose we soften momentum: the step is $\tanh(m/c)$ of an average $m$ of the gradients, so that
# no coordinate moves by more than $h$. In optax that is a chain of three lines.

# %%
c = 0.1


def soft_momentum(learning_rate):
    return optax.chain(
        optax.ema(0.6, debias=False),
        optax.stateless(lambda updates, params: jax.tree.map(lambda m: jnp.tanh(m / c), updates)),
        optax.scale_by_learning_rate(learning_rate),
    )


# %% [markdown]
# And in `igr`: one channel, which remembers the gradient $g$ with the weights of an average, and
# the rule.

# %%
m = sympy.Symbol("m")
average = (1 - 0.6) / (1 - 0.6 * sympy.exp(-igr.methods.z))
mine = igr.methods.elementwise(
    sympy.tanh(m / sympy.Rational(1, 10)), {"m": (igr.methods.g, average)}, name="soft momentum"
)
print(igr.modified_equation(mine, 1))

# %% [markdown]
# Are the two the same optimizer? The field of order $p$ must miss one real step by
# $O(h^{p+2})$. `certify` takes the steps and fits the slopes.

# %%
print(igr.certify(mine, soft_momentum, value_fn, params))

# %% [markdown]
# A description that is wrong anywhere falls short. With a memory of 0.7 in place of 0.6 the flow
# is still right, since the memory is not in it, and the correction is not:

# %%
slip = igr.methods.elementwise(
    sympy.tanh(m / sympy.Rational(1, 10)),
    {"m": (igr.methods.g, (1 - 0.7) / (1 - 0.7 * sympy.exp(-igr.methods.z)))},
    name="soft momentum, misremembered",
)
print(igr.certify(slip, soft_momentum, value_fn, params, order=1))
