"""Methods that read the Gramian of the gradients: one file each."""
