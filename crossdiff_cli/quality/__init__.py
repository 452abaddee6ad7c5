"""How good is a result? Metrics with and without a reference, and the classical methods to compare with."""
