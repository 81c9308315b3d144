"""Methods that decide for each coordinate by itself: the exception to T-sized weights."""
