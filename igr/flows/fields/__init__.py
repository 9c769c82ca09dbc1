"""Vector fields from an equation, from the steps of an optimizer, or along a run.

To import this package registers the field of every kind with `igr.flows.kinds`.
"""

from igr.flows.fields import epochs, one_loss, players, rules, terms, trees, vector_field

__all__ = ["epochs", "one_loss", "players", "rules", "terms", "trees", "vector_field"]
