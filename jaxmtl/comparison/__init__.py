"""The comparison of methods on a problem: training, report, picture."""
