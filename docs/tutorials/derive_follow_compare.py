# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Derive, follow, compare
#
# Gradient descent with a finite step $h$ does not follow the gradient flow of its loss. It follows,
# much more closely, the flow of a *modified equation*. In this tutorial we derive that equation,
# compile it to a vector field on the parameters of a small network, integrate it, and lay it beside
# the real run.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import igr

# The distances below are far smaller than single precision can show.
jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## Derive
#
# A method is what it remembers and what it does with it. Gradient descent remembers nothing. The
# coefficients of its equation are exact, and `order` is the highest power of $h$ that is kept.

# %%
equation = igr.modified_equation(igr.methods.gradient_descent(), order=2)
print(equation)

# %% [markdown]
# Up to $h^1$ the right side is a gradient, and its loss is the one of Barrett and Dherin (2021,
# Theorem 3.1):

# %%
print(equation.modified_loss(1))

# %% [markdown]
# At $h^2$ it is not the gradient of anything: there is a modified equation, but no modified loss.
# The library says so instead of handing one out, and can split the field into the part that is a
# gradient and the part that is not.

# %%
print("gradient up to h^1:", equation.is_gradient(1))
print("gradient up to h^2:", equation.is_gradient(2))
print("what is in the way:", equation.obstruction())

try:
    equation.modified_loss()
except igr.NotAGradientError as error:
    print(error)

# %% [markdown]
# ## A network
#
# Anything will do that is a function from a pytree of parameters to a scalar. Here is a network of
# eight tanh units, fitted to a wave.

# %%
x = jnp.linspace(-1.0, 1.0, 40)
y = jnp.sin(3 * x)


def value_fn(params):
    units = jnp.tanh(x[:, None] * params["weights"] + params["bias"])
    return jnp.mean((units @ params["output"] - y) ** 2)


first, second, third = jax.random.split(jax.random.key(0), 3)
params = {
    "weights": jax.random.normal(first, (8,)),
    "bias": jax.random.normal(second, (8,)),
    "output": jax.random.normal(third, (8,)) / 2,
}
h, steps = 0.05, 400

# %% [markdown]
# ## Follow
#
# `vector_field` compiles the equation to nested Jacobian-vector products of the gradient; no matrix
# is ever formed. `flow` integrates it with diffrax. Time is that of the equation: $n$ steps of
# gradient descent take $t = n h$. `run` is the real thing, any optax optimizer as one scan.

# %%
field = igr.vector_field(equation, value_fn, h)
solution = igr.flow(field, params, t1=h * steps)
trajectory = igr.run(optax.sgd(h), value_fn, params, steps)

end = jax.tree.map(lambda leaf: leaf[-1], solution.ys)
print("loss at the end of the flow:", value_fn(end))
print("loss at the end of the run: ", trajectory.value[-1])

# %% [markdown]
# ## Compare
#
# `compare` does all of this for several orders at once and measures the distance between run and
# flow at equal time. It also says how far the expansion can be trusted: by the size of the
# correction, $h |F_1| / |F_0|$, and by $h$ times the largest curvature on the way.

# %%
comparison = igr.compare(value_fn, params, h, steps, orders=(0, 1, 2))
print(comparison)

# %%
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(comparison.time[1:], comparison.travelled[1:], ":", color="grey", label="its own start")
for order, (line, colour) in enumerate([("--", "#009E73"), ("-", "#D55E00"), ("-.", "#0072B2")]):
    axes.plot(comparison.time[1:], comparison.distance[order][1:], line, color=colour,
              label=f"the flow of order {order}")  # fmt: skip
axes.set(yscale="log", xlabel="time $nh$", ylabel="distance of gradient descent from")
axes.legend(ncols=2)
plt.show()

# %% [markdown]
# Each order of the equation brings the flow closer to the run. That they do so at the rate they
# should is checked by the slope of the error of one step against $h$, which for a field kept to
# $h^p$ is $p + 2$:

# %%
for order in (0, 1, 2):
    observed = igr.observed_order(igr.methods.gradient_descent(), value_fn, params, order)
    print(f"kept to h^{order}: slope {observed:.2f}")
