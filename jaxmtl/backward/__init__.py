"""From a function of several losses to gradients: of each, or of their balance."""
