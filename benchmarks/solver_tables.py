"""From every solve to one row a library."""

import pandas as pd

from benchmarks.problem import schedule_weights

OURS = "eigendrift"


def mean_over_schedule(frame: pd.DataFrame, column: str, last: int) -> float:
    """Mean over the paper's snapshots: in each run, every measured snapshot represents the steps nearest to it."""
    means = []
    for _, run in frame.groupby("optimizer"):
        ordered = run.sort_values("step")
        weights = schedule_weights([int(step) for step in ordered["step"]], last)
        means.append(float((weights * ordered[column].to_numpy()).sum()))
    return sum(means) / len(means)


def summary(runs: pd.DataFrame, pairs: pd.DataFrame, last: int, tolerance: float) -> pd.DataFrame:
    """One row a method; every mean and ratio is over the snapshots at which the method itself ran.

    The ratio of means is to ours at the same snapshots, the worst ratio is the smallest at any one of them.
    """
    rows = []
    ours = runs[runs["method"] == OURS].set_index(["optimizer", "step"])["seconds"].rename("ours")
    for method, tried in runs.groupby("method", sort=False):
        done = tried[tried["seconds"].notna()].join(ours, on=["optimizer", "step"])
        found = pairs[pairs["method"] == method]
        errors = sorted({error for error in tried["error"] if error})
        row: dict[str, object] = {"method": method, "snapshots": len(done)}
        if len(done):
            seconds = mean_over_schedule(done, "seconds", last)
            row |= {
                "mean_seconds": seconds,
                "mean_products": mean_over_schedule(done, "products", last),
                "ratio_of_means": seconds / mean_over_schedule(done, "ours", last),
                "worst_ratio": float((done["seconds"] / done["ours"]).min()),
                "worst_true_residual": float(found["true_residual"].max()),
                "pairs_within_tolerance": float((found["true_residual"] <= tolerance).mean()),
                "worst_overlap": float(found["overlap"].min()),
                "median_overlap": float(found["overlap"].median()),
                "clustered_pairs": int((found["cluster"] > 1).sum()),
            }
        rows.append(row | {"note": "; ".join(errors)})
    return pd.DataFrame(rows)
