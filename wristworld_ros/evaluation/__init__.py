"""How good the generated wrist view is: metrics, baselines, and one table of both on the same frames."""
