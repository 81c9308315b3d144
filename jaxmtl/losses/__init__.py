"""Methods that read the losses only, or nothing: one file each."""
