"""From gradients to an update: Gramian, task weights, combination, optax."""
