"""Every kind of table that the workflow writes: its file, its rule, its rows and its columns.

Inputs and outputs of rules, headers, what is kept and published of a run, the plan and docs/figures.md follow from it.
Numbers do not: each rule has the columns of its tables among its parameters, so that an edit of one entry makes the
tables of one rule again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

STEPS, NAME, NAT = "training steps", "name", "nat"
CURVATURE, GRADIENT = "loss / parameter^2", "loss / parameter"
# Pairs of snapshots, of which a pair may be several.
RELATIONS = ("two_time", "consecutive", "grid", "dense", "final")
TOP = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Table:
    """One kind of table.

    Attributes:
        path: Its file below the folder of a run; with {dataset}, below results/<name>/.
        rule: The rule that makes it.
        row: What there is a row of.
        content: What it says, for docs/figures.md.
        units: Column -> unit, "1" for a pure number, in order.
        scored: Which of them the claims are scored on, as `Experiment.select` or `.datasets` takes it; None: not one.
        sources: Seeds ("all", "dense") of the main runs of its data set that it is computed from; "" for none.
        variant_path: Its file of a variant of figure S1, where a variant has one of its own.
    """

    path: str
    rule: str
    row: str
    content: str
    units: Mapping[str, str]
    scored: Mapping[str, str] | None = None
    sources: str = ""
    variant_path: str = ""

    @property
    def of_run(self) -> bool:
        """Whether each run has one; otherwise each data set has."""
        return "{dataset}" not in self.path


def _numbers(*names: str) -> dict[str, str]:
    """Columns of pure numbers."""
    return dict.fromkeys(names, "1")


TABLES: Mapping[str, Table] = {
    "history": Table(
        path="history.csv",
        rule="train",
        row="snapshot",
        content="losses and accuracies",
        units={"step": STEPS, "train_loss": NAT, "test_loss": NAT, **_numbers("train_accuracy", "test_accuracy")},
        scored={"variants": "all"},
    ),
    "ipr": Table(
        path="ipr.csv",
        rule="ipr",
        row="snapshot, i",
        content="eigenvalue, residual, bounds on the angle, IPR, norm of the full gradient and its overlap with v_i",
        units={
            "step": STEPS,
            "i": "1",
            "eigenvalue": CURVATURE,
            "residual": "1",
            "gap": CURVATURE,
            **_numbers("clustered", "matvecs", "converged", "ipr", "angle_bound", "span_bound"),
            "gradient_norm": GRADIENT,
            "gradient_overlap": "1",
        },
        scored={"variants": "all"},
    ),
    "alignment": Table(
        path="alignment.csv",
        rule="alignment",
        row="snapshot of the grid or the last, i",
        content="alignment with batch gradient and update, their share in the span of v_1..v_i, convergence",
        units={
            "step": STEPS,
            **_numbers("i", "gradient_alignment", "update_alignment", "convergence", "converged"),
            **_numbers("gradient_share", "update_share"),
        },
        scored={"variants": "all"},
    ),
    "displacement": Table(
        path="displacement.csv",
        rule="displacement",
        row="waiting time, lag, leading i",
        content="displacement of v_i, of the span, of the weights",
        units={
            "waiting_time": STEPS,
            "lag": STEPS,
            **_numbers("i", "displacement", "subspace_displacement", "overlap", "weight_displacement"),
            **_numbers("update_alignment", "angle_bound", "converged"),
        },
        scored={"variants": "all"},
    ),
    "final_eigenvector": Table(
        path="final_eigenvector.safetensors",
        rule="ipr",
        row="snapshot",
        content="v_1 at the last snapshot and at one with the median IPR of the last tenth",
        units=_numbers("vectors", "scales"),
        scored={"variants": "main"},
    ),
    "overlaps": Table(
        path="overlaps.csv",
        rule="identity",
        row="two snapshots, i",
        content="overlaps with all vectors of the later one; which of them it has become, whether that is certified",
        # And overlap_1, overlap_2, ... for as many pairs as the run has.
        units={"first": STEPS, "second": STEPS, **_numbers(*RELATIONS, "i", "partner", "certified", "broken")},
    ),
    "subspaces": Table(
        path="subspaces.csv",
        rule="identity",
        row="two snapshots, k",
        content="overlap of the spans of v_1..v_k, and that of random spans",
        units={"first": STEPS, "second": STEPS, **_numbers(*RELATIONS, "k", "overlap", "baseline")},
    ),
    "tracks": Table(
        path="tracks.csv",
        rule="identity",
        row="chain, snapshot, i",
        content="the direction that v_i is, followed through crossings of eigenvalues",
        units={
            "chain": NAME,
            "step": STEPS,
            **_numbers("i", "track", "predecessor", "overlap", "displacement", "accepted", "certified", "broken"),
        },
    ),
    "identity": Table(
        path="identity.csv",
        rule="identity",
        row="waiting time, lag, i",
        content="displacement of v_i and of the direction that it was; the share that is exchange of order",
        units={
            "waiting_time": STEPS,
            "lag": STEPS,
            **_numbers("i", "displacement", "partner", "partner_overlap", "partner_displacement"),
            **_numbers("accepted", "certified", "broken", "exchange_share"),
            **_numbers("tracked_i", "tracked_overlap", "tracked_displacement", "tracked_certified"),
        },
    ),
    "localization": Table(
        path="localization.csv",
        rule="localization",
        row="snapshot, i, layer",
        content="shares of weights and biases, IPR over parameters and units, participation, largest entries",
        units={
            "step": STEPS,
            **_numbers("i", "layer", "weight_share", "bias_share", "ipr", "unit_ipr", "participation"),
            **_numbers(*(f"top_{size}" for size in TOP)),
        },
    ),
    "stability": Table(
        path="stability.csv",
        rule="stability",
        row="snapshot",
        content="lambda_1 against the optimizer's edge of stability, gaps of the spectrum",
        units={
            "step": STEPS,
            "lambda_1": CURVATURE,
            "scaled_lambda_1": "1",
            "edge": CURVATURE,
            "lambda_1_over_edge": "1",
            "preconditioned_edge": CURVATURE,
            "gap_12": CURVATURE,
            "gap_23": CURVATURE,
            "gradient_norm": GRADIENT,
            "converged": "1",
        },
    ),
    "baseline": Table(
        path="baseline/{dataset}.csv",
        rule="baseline",
        row="i",
        content="displacement and overlap between random initializations, with their 95% intervals",
        units=_numbers(
            *("i", "mean_overlap", "overlap_low", "overlap_high"),
            *("displacement", "displacement_low", "displacement_high", "n_initializations"),
        ),
        scored={},
        variant_path="baseline/{variant}/{dataset}.csv",
    ),
    "baseline_overlaps": Table(
        path="baseline/{dataset}.overlaps.csv",
        rule="baseline",
        row="two initializations, i",
        content="overlap of v_i of the two",
        units=_numbers("first", "second", "i", "overlap"),
        variant_path="baseline/{variant}/{dataset}.overlaps.csv",
    ),
    "permuted_overlaps": Table(
        path="baseline/{dataset}.permuted.csv",
        rule="permuted",
        row="optimizer, two permuted networks, i",
        content="overlap of v_i of the two, whose weights are those of one run, permuted within each layer",
        units={"optimizer": NAME, **_numbers("first", "second", "i", "overlap", "converged")},
        sources="dense",
    ),
    "interpolation": Table(
        path="interpolation/{dataset}.csv",
        rule="interpolation",
        row="two optimizers, alpha",
        content="losses on the line between the best solutions of the two",
        units={"first": NAME, "second": NAME, "alpha": "1", "train_loss": NAT, "test_loss": NAT, "loss": NAT},
        scored={},
        sources="all",
    ),
    "solutions": Table(
        path="interpolation/{dataset}.solutions.csv",
        rule="interpolation",
        row="optimizer, epsilon",
        content="loss, lambda_1 and epsilon-sharpness of the best solution",
        units={
            "optimizer": NAME,
            **_numbers("seed", "test_accuracy"),
            "train_loss": NAT,
            "test_loss": NAT,
            "lambda_1": CURVATURE,
            "epsilon": "1",
            "sharpness": "percent",
        },
        scored={},
        sources="all",
    ),
}
RUN_TABLES = {kind: table.path for kind, table in TABLES.items() if table.of_run}
DATASET_TABLES = {kind: table.path for kind, table in TABLES.items() if not table.of_run}
VARIANT_TABLES = {kind: table.variant_path for kind, table in TABLES.items() if table.variant_path}
# Of runs, for questions that are asked once the eigenvectors are deleted.
KEPT_TABLES = [kind for kind in RUN_TABLES if TABLES[kind].scored is None]
SCORED_TABLES = {kind: table.scored for kind, table in TABLES.items() if table.scored is not None}


def columns(*kinds: str) -> dict[str, dict[str, str]]:
    """The columns of tables with their units, as parameters of the rule that makes them."""
    return {kind: dict(TABLES[kind].units) for kind in kinds}
