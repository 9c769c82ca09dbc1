# %% [markdown]
# # Derive, follow, compare
# The $E$.
# %%
print(1+1)
# %%
import matplotlib.pyplot as plt
plt.plot([1,2]);
