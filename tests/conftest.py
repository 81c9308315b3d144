"""Strict modes, set before the first computation."""

import jax

import jaxmtl

jaxmtl.use_safe_cpu_compiler()
jax.config.update("jax_numpy_rank_promotion", "raise")
