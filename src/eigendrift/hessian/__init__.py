"""The Hessian of a mean loss as an operator, and cheaper operators near it."""
