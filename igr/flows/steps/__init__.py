"""The discrete step of each kind of method, as an optax transformation.

To import this package registers the step of every kind with `igr.flows.kinds`.
"""

from igr.flows.steps import elementwise, linear, refused, rules, runge_kutta, sam

__all__ = ["elementwise", "linear", "refused", "rules", "runge_kutta", "sam"]
