"""Methods that read the losses, or nothing: one file each."""
