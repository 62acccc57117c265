"""The eigenpairs of a recorded training run, and the statistics of their motion."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eigendrift import localization, metrics
from eigendrift.identity import continue_tracks, match, start_tracks
from eigendrift.tracking.folder import FolderError, Rows
from eigendrift.tracking.trajectory import Trajectory

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DESCRIPTION = "pairs.json"
FORMAT = "eigendrift-pairs/1"

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def pairs_folder(folder: Path, k: int, tol: float, which: str) -> Path:
    """Where the eigenpairs of one request lie."""
    return folder / f"pairs-{which}-k{k}-tol{tol:g}"


class Track:
    """Eigenpairs at the S snapshots of a training run, in the order of steps.

    Vectors have no sign: every statistic is the same for v and -v. Eigenvalues and vectors are indexed from 0, the
    wanted end of the spectrum first.

    Attributes:
        folder: The folder of the run.
        trajectory: The recorded weights, gradients and updates.
        k: Number of eigenpairs.
        tol: Relative residual norm that was asked for.
        which: "LA", "SA" or "LM".
        steps: Step of each snapshot (S,).
        values: Eigenvalues (S, k).
        residuals: Relative residual norms |Hv - lambda v| / |lambda|, (S, k).
        converged: residual <= tol, (S, k) bool.
        gaps: Lower bounds on the distance to any other eigenvalue, (S, k).
        angle_bounds: Upper bounds on the sine of the angle between a vector and its eigenvector, (S, k).
        clustered: Whether a neighbour is not known to be more than 1% away, (S, k) bool.
        clusters: First index of the cluster of each pair, (S, k).
        span_bounds: The angle bounds of the clusters' spans, (S, k).
        next_bounds: Bound on the next eigenvalue, (S,).
        bound_sources: Its basis, as `EigenPairs.bound_source` explains, (S,) of str.
        losses: The loss whose Hessian it is, over all its data, (S,).
        gradient_norms: Norm of that loss's gradient, (S,).
        full_gradient_alignments: |v_i . g| / |g| of that gradient, (S, k).
        matvecs: Number of full products of each solve, (S,).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        k: int | None = None,
        tol: float | None = None,
        which: str | None = None,
    ) -> None:
        """Open the eigenpairs that `Tracker.solve` or a tracker with `hessian=` has written.

        Args:
            folder: The folder of the run.
            k: Number of eigenpairs, where the folder holds several solutions.
            tol: Their tolerance.
            which: Their end of the spectrum.

        Raises:
            ValueError: There is no such solution, or there are several.
        """
        self.trajectory = Trajectory(folder)
        self.folder = self.trajectory.folder
        rows = Rows(_chosen(self.folder, k, tol, which), DESCRIPTION)
        made = rows.description
        if made["format"] != FORMAT:
            raise FolderError(f"{rows.folder} has format {made['format']!r}, expected {FORMAT!r}")
        self.k, self.tol, self.which = int(made["k"]), float(made["tol"]), str(made["which"])
        # A snapshot that is being solved while training is recorded once its step is taken. The weights of another one,
        # which a resumed run has recorded anew, may be others than those that were solved for.
        snapshots = zip(self.trajectory.steps.tolist(), self.trajectory.checksums, strict=True)
        known = {snapshot: row for row, snapshot in enumerate(snapshots)}
        lines = [
            (line["step"], place, line)
            for place, line in enumerate(rows.index)
            if (line["step"], line["weights"]) in known
        ]
        lines.sort(key=lambda each: each[0])
        self._places = [place for _, place, _ in lines]
        self.rows = [known[step, line["weights"]] for step, _, line in lines]
        self._stored = rows.array("vectors", (self.k, self.trajectory.n_parameters), "<f4")
        self._lines = [line for _, _, line in lines]
        self.steps: Integers = np.asarray([step for step, _, _ in lines], dtype=np.int64)
        self.values, self.residuals = self._table("values"), self._table("residuals")
        self.gaps, self.angle_bounds, self.span_bounds = (
            self._table(n) for n in ("gaps", "angle_bounds", "span_bounds")
        )
        self.converged, self.clustered = self._table("converged").astype(bool), self._table("clustered").astype(bool)
        self.clusters: Integers = self._table("clusters").astype(np.int64)
        self.full_gradient_alignments = self._table("full_gradient_alignment")
        self.losses, self.gradient_norms = self._column("loss"), self._column("gradient_norm")
        self.next_bounds, self.matvecs = self._column("next_bound"), self._column("matvecs")
        self.bound_sources = [line["bound_source"] for line in self._lines]

    @classmethod
    def open(cls, folder: str | os.PathLike[str], **choice: Any) -> "Track":
        """Open the solved trajectory of a folder.

        Args:
            folder: The folder of the run.
            choice: k, tol and which, where it holds several solutions.

        Returns:
            The track.

        Raises:
            ValueError: There is no such solution, or there are several.
        """
        return cls(folder, **choice)

    def _table(self, name: str) -> Floats:
        return np.asarray([line[name] for line in self._lines], dtype=np.float64).reshape(-1, self.k)

    def _column(self, name: str) -> Floats:
        return np.asarray([line[name] for line in self._lines], dtype=np.float64)

    def __len__(self) -> int:
        """Number of solved snapshots S."""
        return len(self.steps)

    def __repr__(self) -> str:
        good = int(self.converged.sum())
        return (
            f"Track({str(self.folder)!r}: {self.k} pairs ({self.which}) at {len(self)} snapshots, N = "
            f"{self.trajectory.n_parameters}, {good} of {self.converged.size} converged to {self.tol:g})"
        )

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Unit eigenvectors (S, k, N), mapped into memory where they were solved in order."""
        ordered = self._places == list(range(len(self._stored)))
        found: NDArray[np.float32] = self._stored if ordered else self._stored[self._places]
        return found

    def _bases(self) -> Iterable[NDArray[np.float32]]:
        """The vectors (k, N) of one snapshot after the other, of which one is in memory at a time."""
        return (np.asarray(self._stored[place]) for place in self._places)

    # Motion

    def overlaps(self, since: int = 0) -> Floats:
        """C_ij = |v_i(s) . v_j(t)| of every snapshot t with one snapshot s.

        Args:
            since: Index of the snapshot s.

        Returns:
            (S, k, k), from 0 to 1 without a unit.
        """
        first = self.vectors[since].astype(np.float64)
        found = [np.minimum(np.abs(first @ basis.astype(np.float64).T), 1.0) for basis in self._bases()]
        return np.asarray(found).reshape(-1, self.k, self.k)

    def displacement(self, since: int = 0) -> Floats:
        """Displacement (1/N) min(|v - w|^2, |v + w|^2) of the i-th eigenvector since one snapshot (eq. 3).

        Args:
            since: Index of the snapshot.

        Returns:
            (S, k), from 0 to 2/N without a unit.
        """
        first = self.vectors[since]
        return self._by_basis(lambda basis: metrics.displacement(first, basis))

    def displacement_between(self, i: int = 0) -> Floats:
        """Displacement of the i-th eigenvector between any two snapshots (eq. 3).

        Args:
            i: Index of the eigenvector, from 0.

        Returns:
            (S, S), symmetric, from 0 to 2/N without a unit.
        """
        vectors = np.asarray([basis[i] for basis in self._bases()])
        return np.asarray([metrics.displacement(np.broadcast_to(v, vectors.shape), vectors) for v in vectors])

    def step_displacement(self) -> Floats:
        """Displacement of the i-th eigenvector since the snapshot before.

        Returns:
            (S, k); nan for the first snapshot.
        """
        found, before = np.full((len(self), self.k), np.nan), None
        for row, basis in enumerate(self._bases()):
            if before is not None:
                found[row] = metrics.displacement(before, basis)
            before = basis
        return found

    @property
    def identity(self) -> Integers:
        """Number of the direction that each eigenvector is, followed through crossings of eigenvalues, (S, k).

        A vector continues that one of the snapshot before with which it shares more than half of its square; otherwise
        it begins a direction of its own.
        """
        found: list[Integers] = []
        before: NDArray[np.float32] | None = None
        following = self.k + 1
        for basis in self._bases():
            if before is None:
                found.append(start_tracks(self.k))
            else:
                overlaps = np.minimum(np.abs(before.astype(np.float64) @ basis.astype(np.float64).T), 1.0)
                found.append(continue_tracks(found[-1], match(overlaps), self.k, following))
                following = max(following, int(found[-1].max()) + 1)
            before = basis
        return np.asarray(found, dtype=np.int64).reshape(-1, self.k)

    def subspace_overlap(self, since: int = 0) -> Floats:
        """Overlap of the spans of v_1..v_k with those of one snapshot, for each k; a random span has k/N.

        Args:
            since: Index of the snapshot.

        Returns:
            (S, k), from 0 to 1 without a unit.
        """
        return np.asarray([metrics.subspace_overlap(each) for each in self.overlaps(since)]).reshape(-1, self.k)

    def weight_displacement(self, since: int = 0) -> Floats:
        """Displacement (1/N)|theta(t) - theta(s)|^2 of the weights.

        Args:
            since: Index of the snapshot s.

        Returns:
            (S,), in units of a squared parameter.
        """
        weights = self.trajectory.weights
        first = np.asarray(weights[self.rows[since]])
        return np.asarray([metrics.weight_displacement(first, weights[row]) for row in self.rows], dtype=np.float64)

    # Localization

    def ipr(self) -> Floats:
        """Inverse participation ratio sum_j v_j^4: 1/N for a vector that is spread evenly, 1 on one parameter.

        Returns:
            (S, k), without a unit.
        """
        return self._by_basis(metrics.inverse_participation_ratio)

    @property
    def layers(self) -> list[str]:
        """Names of the layers of `layer_shares` and `layer_ipr`: those of their weights."""
        layers, starts = self._layers(), np.cumsum([0, *(int(np.prod(s)) for s in self.trajectory.shapes.values())])
        names = dict(zip(starts.tolist(), self.trajectory.shapes, strict=False))
        return [names[layer.start] for layer in layers]

    def _layers(self) -> list[localization.Layer]:
        return localization.layers_of([[name, shape] for name, shape in self.trajectory.shapes.items()])

    def layer_shares(self) -> Floats:
        """Share of each eigenvector's square within each of the L layers; a layer's biases count with it.

        Returns:
            (S, k, L), from 0 to 1 without a unit.
        """
        return self._by_layer(lambda p, layers: sum(localization.layer_shares(p, layers)))

    def layer_ipr(self) -> Floats:
        """Inverse participation ratio within each of the L layers.

        Returns:
            (S, k, L), without a unit; nan for a layer without a share.
        """
        return self._by_layer(localization.layer_ipr)

    def _by_layer(self, statistic: Any) -> Floats:
        layers = self._layers()
        found = [statistic(localization.shares(basis), layers) for basis in self._bases()]
        return np.asarray(found, dtype=np.float64).reshape(-1, self.k, len(layers))

    # Alignment

    def alignment(self, part: str = "gradients") -> Floats:
        """|v_i . d| / |d| with the gradient that each step used, or with its update.

        Args:
            part: "gradients" or "updates".

        Returns:
            (S, k), from 0 to 1 without a unit; nan where it was not recorded or is zero.

        Raises:
            ValueError: The tracker did not record it.
        """
        if part not in ("gradients", "updates"):
            raise ValueError(f"part = {part!r} is not allowed; give 'gradients' or 'updates'")
        rows = getattr(self.trajectory, part)
        found = np.full((len(self), self.k), np.nan)
        for number, (row, basis) in enumerate(zip(self.rows, self._bases(), strict=True)):
            direction = np.asarray(rows[row], dtype=np.float64)
            if np.isfinite(direction).all() and direction.any():
                found[number] = metrics.alignment(basis, direction)
        return found

    def _by_basis(self, statistic: Any) -> Floats:
        return np.asarray([statistic(basis) for basis in self._bases()], dtype=np.float64).reshape(-1, self.k)

    # Showing

    def to_pandas(self) -> "pd.DataFrame":
        """All statistics in long form.

        Returns:
            One row for each snapshot and eigenvector, whose index i counts from 1.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        import pandas as pd

        count, k = len(self), self.k
        columns: dict[str, Any] = {
            "step": np.repeat(self.steps, k),
            "i": np.tile(np.arange(1, k + 1), count),
            "loss": np.repeat(self.losses, k),
            "learning_rate": np.repeat(self.trajectory.learning_rates[self.rows], k),
            "gradient_norm": np.repeat(self.gradient_norms, k),
        }
        tables = {
            "eigenvalue": self.values,
            "residual": self.residuals,
            "converged": self.converged,
            "gap": self.gaps,
            "angle_bound": self.angle_bounds,
            "clustered": self.clustered,
            "direction": self.identity,
            "ipr": self.ipr(),
            "full_gradient_alignment": self.full_gradient_alignments,
        }
        if count:
            tables |= {
                "displacement_from_first": self.displacement(),
                "displacement_from_previous": self.step_displacement(),
            }
        for part, name in (("gradients", "gradient_alignment"), ("updates", "update_alignment")):
            if part in self.trajectory.recorded:
                tables[name] = self.alignment(part)
        return pd.DataFrame(columns | {name: table.reshape(-1) for name, table in tables.items()})

    def plot(self) -> "Figure":
        """Eigenvalues, displacement, localization and alignment against the step.

        Returns:
            A figure of four panels.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        from eigendrift.tracking.plots import overview

        return overview(self)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained HTML page: the plots, a table of the certificates, and the provenance.

        Args:
            path: The file.

        Returns:
            The file.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        from eigendrift.tracking.report import write_report

        return write_report(self, Path(path))


def solutions(folder: Path) -> list[dict[str, Any]]:
    """What the folder of a run holds eigenpairs of: which, k and tol of each solution."""
    made = [Rows(path.parent, DESCRIPTION).description for path in sorted(folder.glob(f"pairs-*/{DESCRIPTION}"))]
    return [{name: each[name] for name in ("which", "k", "tol")} for each in made]


def _chosen(folder: Path, k: int | None, tol: float | None, which: str | None) -> Path:
    asked = {name: value for name, value in (("which", which), ("k", k), ("tol", tol)) if value is not None}
    every = solutions(folder)
    found = [each for each in every if asked.items() <= each.items()]
    if not found:
        others = "; ".join(map(_words, every)) or "none, so call solve first"
        raise FolderError(f"{folder} has no eigenpairs with {_words(asked)}; it has {others}")
    if len(found) > 1:
        raise FolderError(f"{folder} has several solutions: {'; '.join(map(_words, found))}; name one of them")
    return pairs_folder(folder, **found[0])


def _words(choice: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in choice.items()) or "any k"
