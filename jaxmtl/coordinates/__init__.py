"""Methods that work on each coordinate separately: the exception to T-sized weights."""
