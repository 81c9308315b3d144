"""From balancer to balancer, and what stands before one in a chain."""
