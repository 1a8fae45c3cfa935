"""One module a suite: `run(bench)` measures and returns the results as data."""
