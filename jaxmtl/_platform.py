"""What the machine is that programs run on."""

import jax


def on_one_cpu() -> bool:
    """Whether programs run on a single CPU device, where nothing can be sharded."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1
