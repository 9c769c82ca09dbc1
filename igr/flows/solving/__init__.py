"""From a field to its trajectory, by diffrax: steps, and the bar that shows them."""
