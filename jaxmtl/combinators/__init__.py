"""Combinators from balancer to balancer, and ``per_task``, which precedes one in a chain."""
