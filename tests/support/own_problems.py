"""The examples of own problems, at the smallest size at which every rule has something to do."""

SMALL = """
datasets: [digits]
optimizers: {sgd: {lr: 0.05}, adam: {lr: 0.01}, sam: null}
training: {steps: 20, seeds: [0], batch_size: 64}
snapshots: {every: 10, waiting_times: [0, 5], lags_per_decade: 1}
eigen: {k: 2, tolerance: 1.0e-2, dense_k: 3, dense_tolerance: 1.0e-2}
baseline: {initializations: 3, permutations: 3}
sweeps:
  batch_size: {32: 10, full: null}
  learning_rate: {0.3: null, 3: null}
  snapshots: {every: 10, waiting_times: [0], lags_per_decade: 1}
sensitivity: {optimizers: [sgd], seeds: [0]}
interpolation: {points: 3, epsilon: [1.0e-3]}
"""
