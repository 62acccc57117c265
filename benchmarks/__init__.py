"""How fast eigendrift is against other libraries and against the machine's limit: python -m benchmarks.run."""
