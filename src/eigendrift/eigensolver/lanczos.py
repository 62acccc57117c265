"""Extreme eigenpairs of a symmetric operator: Lanczos with true residuals, preconditioned by a surrogate.

Lanczos grows an orthonormal basis Q by one vector at a time and needs one product a vector. Here the products W = H Q
are kept beside it, and the projected matrix Q'W is diagonalized: for an eigenvector s of it, y = Q s is the Ritz vector
and H y = W s costs nothing more. So its residual r = W s - theta y is known from actual products, not
from a recurrence, and r itself is the next direction: in exact arithmetic it is the next Lanczos vector, whichever pair
it comes from. Every new direction is orthogonalized twice against the whole basis, since a basis that lost
orthogonality shows copies of the first eigenvalue with small residuals. When the basis is full, it is restarted from
the best Ritz vectors and their products (thick restart; Wu and Simon 2000).

With a surrogate, a cheaper operator that resembles H, the basis starts from the surrogate's own top vectors (found with
the help of its coarse level, where it has one), and each residual passes through the surrogate's approximate inverse of
H - theta before it becomes a direction (Davidson 1975). The result is judged by the same residuals of full products;
the surrogate affects only how many products are needed. Where the residuals show that it would not save any, because
it resembles H too little, plain Lanczos goes on from the sum of the vectors that were found.

A Krylov space shows a repeated eigenvalue once, and of close eigenvalues perhaps only one. So a converged solve is
followed by a probe: Lanczos from a fresh random vector in the complement of the basis, until it either finds a further
eigenvalue, whose vector joins the basis, or bounds all eigenvalues that were missed (`missed`).

To avoid a host-device synchronization per iteration on a GPU, each extension of the basis copies only the new columns
of Q'W and the norm of the last product. Plain Lanczos estimates residual norms from these (|beta s_mi|); the residual
vectors are evaluated only when the estimate is near the tolerance.

Lanczos 1950; Parlett, The Symmetric Eigenvalue Problem (1998), chapters 11 and 13; Daniel et al. 1976 on the second
pass.
"""

import functools
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, ParamSpec

import torch
from torch import Tensor

from eigendrift._threads import single_threaded_torch
from eigendrift.algebra import linear_combination
from eigendrift.eigensolver.missed import at_most, largest_ritz_value, largest_unseen, next_eigenvalue_bound
from eigendrift.eigensolver.result import CLUSTER, BoundSource, ConvergenceWarning, EigenPairs, assess, orthogonality
from eigendrift.eigensolver.sums import inner, row_norms
from eigendrift.operators import (
    Operator,
    RefinableOperator,
    Which,
    as_operator,
    check_finite,
    check_symmetric,
    coarse_level,
    torch_type,
    uses_thread_pool,
)
from eigendrift.ranks import led_by_one_rank
from eigendrift.sphere import overlap_quantiles

__all__ = ["ConvergenceWarning", "EigenPairs", "Operator", "top_eigenpairs"]

# Tolerance of a surrogate's own solve, as a fraction of the tolerance of the full products' residuals.
SURROGATE_TOL_FACTOR = 0.5
# Tolerance of a coarse level's solve.
COARSE_TOL = 1e-2
# Safety factor of the residual estimate: residuals that it puts above so many times the tolerance are not evaluated.
ESTIMATE_FACTOR = 3
# The surrogate is assumed to err on the next eigenvalue by no more than so many times what it errs on the pairs.
SURROGATE_ERROR_FACTOR = 3
# A dense solve takes four matrices in float64.
DENSE_BYTES = 32
# Vectors of a surrogate's basis for each pair; with fewer its restarts cost what it saves.
SURROGATE_BASIS = 4
# Operators of this order and less are multiplied out and diagonalized.
DENSE_ORDER = 64
# Largest number of products of a probe, and of basis vectors that are freed for it.
PROBE_MATVECS = 24
# Number of entries of every basis vector that are combined at once, and at least so many parts of a vector.
COLUMNS = 16384
PARTS = 32
# A surrogate is no help if its own vectors have relative residuals above this, or if its eigenvalues differ from those
# of H by more than this part of the larger one.
HOPELESS = 0.5
# Largest number of products of a surrogate's solve.
SURROGATE_MATVECS = 100

Probe = Literal["operator", "surrogate", "none"]


class _Basis:
    """Orthonormal rows Q (m, N), their products W = H Q, and the projected matrix Q W' (m, m) in float64."""

    def __init__(self, operator: Operator, size: int) -> None:
        n = operator.shape[0]
        self.operator, self.size, self.m, self.matvecs = operator, size, 0, 0
        self.q = torch.empty(size, n, dtype=_basis_type(operator), device=operator.device)
        self.w = torch.empty_like(self.q)
        self.t = torch.zeros(size, size, dtype=torch.float64)
        self.outside = 0.0  # norm of the part of the last product that lies outside of the basis

    @property
    def projected(self) -> Tensor:
        """Q W' (m, m), symmetric."""
        t = self.t[: self.m, : self.m]
        return (t + t.T) / 2

    def extend(self, directions: Sequence[Tensor], new: bool = False) -> int:
        """Add the parts of the directions that are orthogonal to the basis, and their products as one block.

        Args:
            directions: Vectors (N,).
            new: Whether each is known to add something; then the host need not wait for the device to check it.

        Returns:
            Number of vectors that were added.
        """
        first = self.m
        for direction in directions:
            unit, left = self._orthogonal(direction.to(self.q.device, self.q.dtype))
            if self.m < self.size and (new or bool(left)):
                self.q[self.m] = unit
                self.m += 1
        if self.m > first:
            self._multiply(first)
        return self.m - first

    def _multiply(self, first: int) -> None:
        product = self.operator.product(self.q[first : self.m].to(torch_type(self.operator)))
        w = self.w[first : self.m] = product
        self.matvecs += self.m - first
        norm = row_norms(self.w[self.m - 1 : self.m]).expand(1, len(w))
        packet = torch.cat([inner(self.q[: self.m], self.w[first : self.m]), norm]).cpu()
        columns, square = packet[:-1], float(packet[-1, -1]) ** 2
        self.t[: self.m, first : self.m] = columns
        self.t[first : self.m, : self.m] = columns.T
        outside = square - float(columns[:, -1].square().sum())
        # Rounding of this difference hides a part of a hundredth of the product and less.
        self.outside = math.sqrt(outside) if outside > 1e-4 * square else 0.0

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """`vector` made orthogonal to the basis and normalised, and whether more than rounding remains of it."""
        q, smallest = self.q[: self.m], 100 * torch.finfo(vector.dtype).eps
        left = []
        for _ in range(2):
            # A vector of norm 0 becomes NaN here and fails the comparison below, so that it adds nothing.
            vector = vector / row_norms(vector[None])[0]
            vector = vector - inner(q, vector[None])[:, 0].to(q.dtype) @ q
            left.append(row_norms(vector[None])[0])
        return vector / left[1], (left[0] > smallest) & (left[1] > smallest)

    def leaving(self) -> tuple[Tensor, float]:
        """The part of the last product outside of the basis, as a unit vector, and its norm, which may be 0."""
        vector = self.w[self.m - 1]
        norm = torch.ones((), dtype=torch.float64, device=vector.device)
        # A third pass, since for a norm near rounding the first one leaves mostly errors along the basis.
        for _ in range(3):
            vector = vector - inner(self.q[: self.m], vector[None])[:, 0].to(self.q.dtype) @ self.q[: self.m]
            length = row_norms(vector[None])[0]
            norm = norm * length
            vector = vector / length
        norm_ = float(norm)
        return vector, norm_ if math.isfinite(norm_) else 0.0

    def append(self, unit: Tensor) -> None:
        """Add a unit vector that is orthogonal to the basis."""
        self.q[self.m] = unit
        self.m += 1
        self._multiply(self.m - 1)

    def coupling(self) -> Tensor:
        """Gram matrix (m, m), float64, of the parts of the products that lie outside of the basis."""
        gram = torch.zeros(self.m, self.m, dtype=torch.float64, device=self.q.device)
        t = _to_device_of(self.t[: self.m, : self.m], self.q)
        # One block of columns at a time: all of them would take as much memory as the products.
        for columns in self._blocks():
            left = self.w[: self.m, columns] - t @ self.q[: self.m, columns]
            gram += (left @ left.T).double()
        return gram.cpu()

    def _blocks(self) -> Iterator[slice]:
        n = self.q.shape[1]
        width = min(COLUMNS, -(-n // PARTS))
        return (slice(start, start + width) for start in range(0, n, width))

    def rayleigh_ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values, descending (m,), and the coefficients of their vectors, one a row (m, m)."""
        values, columns = torch.linalg.eigh(self.projected)
        return values.flip(0), columns.flip(1).T.contiguous()

    def vectors(self, coefficients: Tensor) -> Tensor:
        """Vectors y = s Q for each row s of the coefficients."""
        return _to_device_of(coefficients, self.q) @ self.q[: self.m]

    def ritz(self, values: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Ritz vectors y, and the residual vectors H y - theta y."""
        both = _to_device_of(torch.cat([coefficients, values[:, None]], dim=1), self.q)
        s, theta = both[:, :-1].contiguous(), both[:, -1:]
        y, residuals = s @ self.q[: self.m], s @ self.w[: self.m]
        return y, residuals.addcmul_(theta, y, value=-1)

    def estimated_norms(self, coefficients: Tensor) -> Tensor:
        """Residual norms in plain Lanczos, where only the last product has a part outside of the basis."""
        return coefficients[:, -1].abs() * self.outside

    def restart(self, values: Tensor, coefficients: Tensor) -> None:
        """Keep the Ritz vectors of these coefficients alone."""
        before, self.m = self.m, len(coefficients)
        s = _to_device_of(coefficients, self.q)
        # One block of columns at a time: otherwise a restart would take half as much memory again as the basis.
        for columns in self._blocks():
            for rows in (self.q[:, columns], self.w[:, columns]):
                rows[: self.m] = s @ rows[:before]
        self.t.zero_()
        self.t[: self.m, : self.m] = torch.diag(values)


class _Preconditioner:
    """Start vectors and an approximate inverse of H - theta, from the solve of a surrogate."""

    def __init__(self, operator: Operator, k: int, tol: float, seed: int, delta: float, probe: bool, size: int) -> None:
        coarse = coarse_level(operator)
        # A rough solve of the coarse level is enough: its pairs differ much from those of the finer level anyway.
        known = None if coarse is None else _Preconditioner(coarse, k, max(tol, COARSE_TOL), seed, delta, probe, size)
        random = _generator(operator, seed)
        task = _Task(k, tol, SURROGATE_MATVECS, size, delta, probe and known is None)
        solved = _solve_watched(operator, task, random, known, [], probe)
        self.start, self.matvecs = solved.y, solved.matvecs
        self.first_values, self.next_values, self.next_bound = solved.values[:k], solved.values[k:], solved.next_bound
        # What Lanczos alone takes for the surrogate, it takes for H as well, more or less.
        self.alone: int = solved.matvecs if known is None else known.alone
        if known is None or solved.gave_up:
            # A whole Krylov space shows more of the spectrum than the few directions of a preconditioned solve.
            self.values, coefficients = solved.basis.rayleigh_ritz()
            self.vectors = solved.basis.vectors(coefficients)
        else:
            self.values, self.vectors = known.values, known.vectors
        self.matvecs += 0 if known is None else known.matvecs

    def correct(self, residual: Tensor, value: float) -> Tensor:
        """(theta - G)^-1 r, where G is the surrogate on the space of its known vectors and zero outside of it.

        Eigenvalues of G that are nearer to theta than 5% are treated as 5% away: r has no part along its own Ritz
        vector, and along vectors of such near eigenvalues an error of G must not be amplified.
        """
        distance = value - self.values
        nearest = 0.05 * abs(value)
        distance = torch.where(distance.abs() < nearest, torch.where(distance < 0, -nearest, nearest), distance)
        gain = _to_device_of(1 / distance - 1 / value, residual)
        return residual / value + ((self.vectors @ residual) * gain) @ self.vectors

    def pays(self, rounds: int, first: float, now: float, tol: float, left: int) -> bool:
        """Whether to go on with it, from the largest relative residuals of the first round and of the present one.

        Args:
            rounds: Number of corrections since the first residual.
            first: The first residual, of the surrogate's own vectors.
            now: The present one.
            tol: Tolerance.
            left: Number of pairs that have not converged, which is the number of products a round.
        """
        # The first round may bring another pair among the wanted ones, so that it shows no rate.
        if rounds < 2:
            return rounds == 1 or now <= HOPELESS
        return now < first and left * rounds * math.log(now / tol) / math.log(first / now) <= self.alone

    def errors(self, values: Tensor) -> Tensor:
        """Distances of the surrogate's first eigenvalues from these, relative to the larger ones; 0 of two zeros."""
        known = self.first_values
        larger = torch.maximum(values[: len(known)].abs(), known.abs())
        negligible = max(1e-6 * float(larger.max()), torch.finfo(known.dtype).tiny)
        return (values[: len(known)] - known).abs() / larger.clamp(min=negligible)

    def misses(self, values: Tensor) -> bool:
        """Whether the surrogate's eigenvalues are so far from these, that nothing can be concluded from them.

        It may have the eigenvectors of H with other eigenvalues, and thus in another order, as -H does. Then the
        residuals of its first vectors are small although H has others above them.
        """
        return bool((self.errors(values) > HOPELESS).any())

    def next_of(self, values: Tensor, norms: Tensor, k: int) -> float:
        """Estimate an upper bound on the finer operator's next eigenvalue from its Ritz values (k or more)."""
        if not len(self.next_values):
            return self.next_bound
        unseen = max(0.0, self.next_bound - float(self.next_values[0]))
        if len(values) > k:
            return float(values[k]) + max(float(norms[k]), unseen)
        # No product with a further vector was needed: the surrogate is assumed to err there as it did on these, whose
        # eigenvalues it misses by a part of each and whose residuals are what it does across them.
        missed = float(self.errors(values).max()) * abs(self.next_bound)
        return self.next_bound + SURROGATE_ERROR_FACTOR * (missed + float(norms[:k].max()))


@dataclass(frozen=True)
class _Task:
    """The request to one solve."""

    k: int
    tol: float
    max_matvecs: int
    size: int
    # Probability with which the bound on missed eigenvalues may be wrong.
    delta: float
    # Whether to probe for missed eigenvalues with products of this operator.
    probe: bool


@dataclass
class _Solved:
    """Result of one solve: the basis and its first pairs, one more than was wanted if there is one."""

    basis: _Basis
    values: Tensor
    y: Tensor
    norms: Tensor
    residuals: Tensor
    next_bound: float
    rounding: float
    stalled: bool
    # Whether it ended because the preconditioner did not pay.
    gave_up: bool = False
    # Number of products, those of an attempt with a preconditioner included.
    matvecs: int = 0


Arguments = ParamSpec("Arguments")


def _with_small_tensors_on_the_cpu(solver: Callable[Arguments, EigenPairs]) -> Callable[Arguments, EigenPairs]:
    """The projected problem is solved on the CPU, whatever the caller has made torch's default device."""

    @functools.wraps(solver)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> EigenPairs:
        if torch.get_default_device().type == "cpu":
            # Without the context, through which every one of the many small operations would pass.
            return solver(*args, **kwargs)
        with torch.device("cpu"):
            return solver(*args, **kwargs)

    return wrapped


@led_by_one_rank
@_with_small_tensors_on_the_cpu
def top_eigenpairs(
    operator: Any,
    k: int,
    tol: float = 1e-3,
    seed: int = 0,
    *,
    which: Which = "LA",
    surrogate: Operator | Literal["auto"] | None = "auto",
    probe: Probe | None = None,
    miss_probability: float = 1e-3,
    v0: Tensor | None = None,
    max_matvecs: int = 1000,
    max_basis: int | None = None,
    max_bytes: int | None = None,
) -> EigenPairs:
    """k extreme eigenpairs of a symmetric operator, each to a true relative residual of `tol`.

    Args:
        operator: A HessianOperator, a dense symmetric tensor or array, a SciPy LinearOperator or sparse matrix, or any
            object with shape (N, N) that multiplies (N, b) tensors (if its dtype is one of torch's) or arrays by @.
        k: Number of pairs, 1 to N.
        tol: Largest |H v - lambda v| / |lambda| of a pair that counts as converged, without a unit. For distances
            between eigenvectors at different points 1e-3 was safe in every case tried, and 1e-2 was not.
        seed: Seed of the random start vectors; the same seed gives the same result.
        which: "LA" for the largest, "SA" for the smallest (each algebraically, the extreme one first), "LM" for the
            largest in magnitude, which solves for both ends.
        surrogate: A cheaper operator that resembles H. It saves products with H and has no part in the residuals; where
            these show that it saves none, the solver goes on without it.
            "auto" chooses the form of the operator and the surrogate by the tolerance: for a HessianOperator in float32
            the Hessian of important samples where there is one (tol >= 1e-4), a float64 forward pass (tol >= 5e-6), and
            below that float64 with float32 products as the surrogate. None uses products with H alone. Only "LA" uses a
            surrogate.
        probe: How to bound the eigenvalues that a Krylov space can miss, such as a second copy of a repeated
            eigenvalue. "operator" takes products with H, about 10 for N = 10^5 and more where many eigenvalues lie
            close together; "surrogate" takes products with the surrogate, on the assumption that it resembles H; "none"
            bounds nothing. The default is "surrogate" for a surrogate that was chosen by "auto", else "operator".
        miss_probability: Probability with which the bound on missed eigenvalues (`EigenPairs.next_bound`) may be wrong.
        v0: (N, b) vectors to start from, in place of random ones or the surrogate's. They pay where they are nearly the
            wanted eigenvectors, as after a few steps of gradient descent. Each costs a product, and vectors of a more
            distant point cost more than they save.
        max_matvecs: Largest number of products with H. A pair that has not converged by then is returned with
            converged = False.
        max_basis: Largest number of basis vectors, by default max(2 k + 40, 60). When the basis is full, the solver
            restarts from its best vectors, which costs products.
        max_bytes: Largest memory, in bytes, of all vectors that the solver holds at any time: basis, products, those of
            the surrogate's solve, residuals and result. Where it is too little for max_basis the solver restarts
            earlier, and where it is too little for a surrogate it goes without; the bound on the next eigenvalue is
            then looser. The operator's own memory and v0 come on top. By default there is no limit, and 60 basis
            vectors take about 500 N bytes in float32.

    Returns:
        The pairs with residuals, gaps and bounds on angles: see EigenPairs.

    Raises:
        ValueError: k, tol, miss_probability, max_matvecs, max_basis, max_bytes, v0 or `which` is out of its range (the
            message says how many bytes k pairs take); the operator is not square or not symmetric; or a product is not
            finite.
        TypeError: `operator` has no shape or no @.

    Warns:
        ConvergenceWarning: A pair has not converged.

    Example:
        >>> values, vectors = top_eigenpairs(torch.diag(torch.arange(100.0)), k=2)
        >>> [round(value) for value in values.tolist()]
        [99, 98]
    """
    given = as_operator(operator)
    n = given.shape[0]
    _check(n, k, tol, which, miss_probability, max_matvecs, max_basis, probe, max_bytes)
    dense = n <= (max_basis or _basis_size(k, n)) + 1 and (max_bytes is None or max_bytes >= DENSE_BYTES * n * n)
    if n <= max_matvecs and (n <= DENSE_ORDER or dense):
        with single_threaded_torch() if uses_thread_pool(given) else nullcontext():
            return _dense_pairs(_for_tolerance(given, tol, None)[0] if surrogate == "auto" else given, k, tol, which)
    if isinstance(surrogate, str) and surrogate != "auto":
        raise ValueError(f"surrogate = {surrogate!r} is not allowed; give 'auto', an operator or None")

    def one_end(end: Which) -> EigenPairs:
        ours, chosen, looks = given, None if isinstance(surrogate, str) else surrogate, probe
        if surrogate == "auto":
            ours, chosen = _for_tolerance(given, tol, seed if end == "LA" else None)
            looks = probe or ("operator" if chosen is None else "surrogate")
        if end != "LA":
            ours, chosen = linear_combination([(-1.0, ours)]), None
        start = _start(v0, ours)
        # Of both ends, the first one's vectors stay while the second is solved.
        held = k if which == "LM" else 0
        size, chosen_size = _sizes(ours, k, max_basis, max_bytes, chosen is not None, surrogate == "auto", held)
        if chosen_size is None:
            chosen = None
        looks = "operator" if looks is None or (chosen is None and looks == "surrogate") else looks
        task = _Task(k, tol, max_matvecs, size, miss_probability, looks == "operator")
        with single_threaded_torch() if uses_thread_pool(ours) else nullcontext():
            pairs = _pairs(ours, task, seed, chosen, looks, start, chosen_size or size)
        return pairs if end == "LA" else replace(pairs, values=-pairs.values, next_bound=-pairs.next_bound)

    return _of_both_ends(one_end("LA"), one_end("SA")) if which == "LM" else one_end(which)


def _of_both_ends(top: EigenPairs, bottom: EigenPairs) -> EigenPairs:
    """The k pairs that are largest in magnitude, of the k largest and the k smallest."""
    k = len(top.values)
    both = {
        name: torch.cat([getattr(top, name), getattr(bottom, name)])
        for name in ("values", "residuals", "converged", "gaps", "angle_bounds", "clustered", "span_bounds")
    }
    clusters = torch.cat([top.clusters, k + bottom.clusters])
    vectors = torch.cat([top.vectors, bottom.vectors], dim=1)
    chosen: list[int] = []
    left = 0.0
    for i in both["values"].abs().argsort(descending=True, stable=True).tolist():
        # Where the ends meet, as at zero in a matrix of low rank, one vector may be in both.
        if chosen and float(torch.linalg.vector_norm(vectors[:, chosen].T @ vectors[:, i])) > 0.1:
            continue
        if len(chosen) == k:
            left = float(both["values"][i].abs() * (1 + both["residuals"][i]))
            break
        chosen.append(i)
    sources = (top.bound_source, bottom.bound_source)
    return EigenPairs(
        **{name: each[chosen] for name, each in both.items()},
        vectors=vectors[:, chosen],
        clusters=_renumbered(clusters[chosen]),
        next_bound=max(left, top.next_bound, -bottom.next_bound),
        bound_source=min(sources, key=("none", "surrogate", "operator", "dense").index),
        miss_probability=min(1.0, top.miss_probability + bottom.miss_probability),
        matvecs=top.matvecs + bottom.matvecs,
        surrogate_matvecs=top.surrogate_matvecs + bottom.surrogate_matvecs,
        orthogonality=orthogonality(vectors[:, chosen].T),
    )


def _renumbered(clusters: Tensor) -> Tensor:
    """Each label as the index of the first that has it."""
    labels = clusters.tolist()
    return torch.tensor([labels.index(label) for label in labels])


def check_request(n: int, k: int, tol: float, which: str) -> None:
    """ValueError where k pairs of N = n, to `tol`, at the end `which`, cannot be asked for."""
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} is not allowed; the operator has {n} eigenpairs")
    if not tol > 0:
        raise ValueError(f"tol = {tol} is not allowed; give a positive number")
    if which not in ("LA", "SA", "LM"):
        raise ValueError(f"which = {which!r} is not allowed; give 'LA', 'SA' or 'LM'")


def _check(
    n: int,
    k: int,
    tol: float,
    which: str,
    delta: float,
    max_matvecs: int,
    max_basis: int | None,
    probe: str | None,
    max_bytes: int | None,
) -> None:
    check_request(n, k, tol, which)
    if not 0 < delta < 1:
        raise ValueError(f"miss_probability = {delta} is not allowed; give a number between 0 and 1")
    if max_matvecs < 1:
        raise ValueError(f"max_matvecs = {max_matvecs} is not allowed; give a positive number")
    if max_basis is not None and max_basis < min(k + 2, n):
        raise ValueError(f"max_basis = {max_basis} is not allowed; k = {k} pairs take {min(k + 2, n)} vectors at least")
    if max_bytes is not None and not max_bytes > 0:
        raise ValueError(f"max_bytes = {max_bytes} is not allowed; give a positive number")
    if probe not in (None, "operator", "surrogate", "none"):
        raise ValueError(f"probe = {probe!r} is not allowed; give 'operator', 'surrogate' or 'none'")


def _for_tolerance(operator: Operator, tol: float, seed: int | None) -> tuple[Operator, Operator | None]:
    if not isinstance(operator, RefinableOperator):
        return operator, None
    # Imported here, since that module needs the analytic path of the Hessian and this one needs no Hessian.
    from eigendrift.hessian.surrogate import for_tolerance

    return for_tolerance(operator, tol, seed)


def _start(v0: Tensor | None, operator: Operator) -> list[Tensor]:
    if v0 is None:
        return []
    block = torch.as_tensor(v0)
    if block.ndim == 1:
        block = block[:, None]
    if block.ndim != 2 or block.shape[0] != operator.shape[0]:
        raise ValueError(f"v0 has shape {tuple(block.shape)}, expected ({operator.shape[0]}, b)")
    columns = list(block.T)
    if not all(bool(torch.isfinite(column).all()) for column in columns):
        raise ValueError("v0 has an entry that is not finite")
    return columns


def _basis_size(k: int, n: int) -> int:
    return min(n, max(2 * k + 40, 60))


def _basis_type(operator: Operator) -> torch.dtype:
    # In half precision 100 eps is 0.78, so that no direction would ever count as new.
    dtype: torch.dtype = torch_type(operator)
    return dtype if dtype.itemsize >= 4 else torch.float32


def _sizes(
    operator: Operator,
    k: int,
    max_basis: int | None,
    max_bytes: int | None,
    preconditioned: bool,
    optional: bool,
    held: int,
) -> tuple[int, int | None]:
    """Numbers of vectors of the basis and of that of the surrogate's solve, None for no surrogate.

    Besides the basis and its products there are Ritz vectors, residuals, corrections and a product of k + 1 vectors
    each, a few more, and the `held` ones of an earlier solve; with a surrogate also its Ritz vectors and start vectors.
    The surrogate's own solve, with its basis, its products and the Ritz vectors made of them, comes before. Blocks of
    columns that are combined take as much as 2 / PARTS of the basis.

    Raises:
        ValueError: max_bytes is too little for k pairs.
    """
    n = operator.shape[0]
    own, its = min(max_basis or _basis_size(k, n), n - 2), _basis_size(k, n)
    if max_bytes is None:
        return own, its if preconditioned else None
    vector = n * _basis_type(operator).itemsize
    fewest = min(k + 2, n - 2)
    available, besides = int(max_bytes) // vector, 4 * k + 8 + held

    def taken(size: int, times: int) -> int:
        return times * size + -(-2 * size // PARTS) + besides + (k + 1 if times == 3 else 0)

    if preconditioned:
        least = min(SURROGATE_BASIS * k, own)
        if taken(least, 3) <= available:
            size = max(size for size in range(least, max(own, its) + 1) if taken(size, 3) <= available)
            return min(own, size), min(its, size)
        if not optional:
            raise ValueError(
                f"max_bytes = {max_bytes} is not allowed; k = {k} pairs of N = {n} with a surrogate take "
                f"{taken(least, 3) * vector}, and without one {taken(fewest, 2) * vector} bytes at least"
            )
    if taken(fewest, 2) > available:
        raise ValueError(
            f"max_bytes = {max_bytes} is not allowed; k = {k} pairs of N = {n} take "
            f"{taken(fewest, 2) * vector} bytes at least"
        )
    return max(size for size in range(fewest, max(own, fewest) + 1) if taken(size, 2) <= available), None


def _pairs(
    operator: Operator,
    task: _Task,
    seed: int,
    surrogate: Operator | None,
    probe: Probe,
    start: list[Tensor],
    surrogate_size: int,
) -> EigenPairs:
    """The k largest pairs."""
    k, tol, delta = task.k, task.tol, task.delta
    known = None
    if surrogate is not None:
        known = _Preconditioner(
            surrogate, k, max(SURROGATE_TOL_FACTOR * tol, 1e-4), seed, delta, probe != "none", surrogate_size
        )
    solved = _solve_watched(operator, task, _generator(operator, seed), known, start, probe != "none")
    if solved.gave_up and probe == "surrogate":
        # A surrogate that does not resemble H shows nothing of what was missed.
        probe = "operator"
    known_bound = math.isfinite(solved.next_bound)
    source: BoundSource = "none"
    if known_bound and probe != "none":
        source = "operator" if probe == "operator" else "surrogate"
    if not isinstance(operator, RefinableOperator):
        _check_symmetry(solved.basis)
    y = solved.y[:k] / row_norms(solved.y[:k])[:, None].to(solved.y.dtype)
    pairs = EigenPairs(
        **assess(solved.values[:k], solved.norms[:k], solved.residuals, solved.next_bound, solved.rounding),
        vectors=y.T.contiguous(),
        orthogonality=orthogonality(y),
        converged=solved.residuals <= tol,
        next_bound=solved.next_bound,
        bound_source=source,
        miss_probability=delta if known_bound else 1.0,
        matvecs=solved.matvecs,
        surrogate_matvecs=0 if known is None else known.matvecs,
    )
    _warn(pairs, tol, solved.stalled, torch_type(operator))
    return pairs


def _dense_pairs(operator: Operator, k: int, tol: float, which: Which) -> EigenPairs:
    """k pairs from the full matrix of an operator."""
    n = operator.shape[0]
    unit = torch.eye(n, dtype=torch_type(operator), device=operator.device)
    products = torch.cat([operator.product(block) for block in unit.split(DENSE_ORDER)]).double().cpu()
    check_finite(products)
    check_symmetric(products, torch_type(operator))
    values, columns = torch.linalg.eigh((products + products.T) / 2)
    values, vectors = values.flip(0), columns.flip(1).T.contiguous()
    largest = float(values.abs().max())
    dtype = torch_type(operator) if torch_type(operator).itemsize >= 4 else torch.float32
    y = vectors.to(dtype)
    norms = torch.linalg.vector_norm(y.double() @ products - values[:, None] * y.double(), dim=1)
    residuals = _relative(norms, values, largest, _rounding(torch_type(operator)) * largest)
    # All eigenvalues are assessed, so that each gap is the distance to any other eigenvalue.
    known = assess(values, norms, residuals, -math.inf, 10 * torch.finfo(torch_type(operator)).eps * largest)
    order = {"LA": range(n), "SA": range(n - 1, -1, -1), "LM": values.abs().argsort(descending=True).tolist()}[which]
    chosen, others = list(order[:k]), order[k : k + 1]
    ends = {"LA": -math.inf, "SA": math.inf, "LM": 0.0}
    following = float(values[others[0]]) if others else ends[which]
    pairs = EigenPairs(
        **{name: each[chosen] for name, each in known.items() if name != "clusters"},
        vectors=y[chosen].T.contiguous().to(operator.device),
        clusters=_renumbered(known["clusters"][chosen]),
        converged=residuals[chosen] <= tol,
        next_bound=abs(following) if which == "LM" else following,
        bound_source="dense",
        miss_probability=0.0,
        matvecs=n,
        surrogate_matvecs=0,
        orthogonality=orthogonality(y[chosen]),
    )
    _warn(pairs, tol, True, torch_type(operator))
    return pairs


def _warn(pairs: EigenPairs, tol: float, stalled: bool, dtype: torch.dtype) -> None:
    if bool(pairs.converged.all()):
        return
    left = int((~pairs.converged).sum())
    kind = str(dtype).removeprefix("torch.")
    remedy = (
        f"the rounding of {kind} products is reached: loosen tol, or give the operator in a type of higher precision"
        if stalled
        else "raise max_matvecs, or loosen tol"
    )
    warnings.warn(
        f"{left} of {len(pairs.values)} pairs did not converge: the largest relative residual is "
        f"{float(pairs.residuals.max()):.2g} after {pairs.matvecs} products, tol = {tol:.2g}; {remedy}",
        ConvergenceWarning,
        stacklevel=_callers_level(),
    )


def _callers_level() -> int:
    """The `stacklevel` with which a warning names the line that called this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "eigendrift":
        level, frame = level + 1, frame.f_back
    return level


def _check_symmetry(basis: _Basis) -> None:
    """Refuse an asymmetric operator: the bounds on angles and on missed eigenvalues hold for symmetric ones alone."""
    projected = inner(basis.q[: basis.m], basis.w[: basis.m]).cpu()
    check_symmetric(projected, torch_type(basis.operator))


def _solve_watched(
    operator: Operator,
    task: _Task,
    random: torch.Generator,
    preconditioner: _Preconditioner | None,
    start: list[Tensor],
    probe: bool,
) -> _Solved:
    """Solve with the preconditioner, and without it if it turns out not to pay; `probe` is whether to probe then."""
    solved = _solve(operator, task, random, preconditioner, start)
    solved.matvecs = used = solved.basis.matvecs
    if not solved.gave_up:
        return solved
    found = [solved.y[: task.k].sum(dim=0)]
    # The two bases are not held at the same time.
    del solved
    alone = replace(task, max_matvecs=task.max_matvecs - used, probe=probe)
    solved = _solve(operator, alone, random, None, found)
    solved.matvecs, solved.gave_up = used + solved.basis.matvecs, True
    return solved


def _solve(
    operator: Operator,
    task: _Task,
    random: torch.Generator,
    preconditioner: _Preconditioner | None,
    start: list[Tensor],
) -> _Solved:
    k, tol, size = task.k, task.tol, task.size
    basis = _Basis(operator, size)
    best, best_at = math.inf, 0
    rounds, first_residual = 0, math.inf
    # The surrogate's next vector waits: with a good surrogate the first k are enough.
    directions: list[Tensor] = start[: size - 1]
    waiting: list[Tensor] = []
    if preconditioner is not None and not start:
        directions, waiting = list(preconditioner.start[:k]), list(preconditioner.start[k : k + 1])
    # Estimates of residual norms hold in a Krylov space alone.
    krylov = preconditioner is None and len(start) < 2
    new, next_bound, probes, delta = not start, math.inf, 0, task.delta
    factor = _rounding(torch_type(operator))
    eps = max(torch.finfo(basis.q.dtype).eps, torch.finfo(torch_type(operator)).eps)
    for first in range(0, len(directions), k + 1):
        basis.extend(directions[first : first + k + 1], new)
    if basis.m == 0:
        basis.extend([_random(operator, random)])
    while True:
        check_finite(basis.t[: basis.m, : basis.m])
        values, coefficients = basis.rayleigh_ritz()
        # One pair more than is wanted: its residual bounds the error of its value as the next eigenvalue.
        y, residual_vectors = basis.ritz(values[: k + 1], coefficients[: k + 1])
        largest = float(values.abs().max())
        rounding = factor * largest
        ends = basis.matvecs >= task.max_matvecs
        norms = basis.estimated_norms(coefficients[: k + 1])
        residuals = _relative(norms[:k], values[:k], largest, rounding)
        worst = int(residuals.argmax())
        clearly_above = residuals[worst] > ESTIMATE_FACTOR * tol and norms[worst] > ESTIMATE_FACTOR * rounding
        if not krylov or ends or not clearly_above:
            norms = row_norms(residual_vectors).cpu()
            residuals = _relative(norms[:k], values[:k], largest, rounding)
            worst = int(residuals.argmax())
        # Without a preconditioner at least one further vector is required.
        seen = basis.m > k or preconditioner is not None
        done = seen and len(residuals) == k and bool((residuals <= tol).all())
        if done and preconditioner is not None and not task.probe and preconditioner.misses(values[:k]):
            return _Solved(basis, values, y, norms, residuals, next_bound, 0.0, False, gave_up=True)
        if len(residuals) < k or float(residuals.max()) < 0.9 * best:
            best, best_at = float(residuals.max()), basis.matvecs
        # A whole basis brought no progress, and the residuals are rounding of the products.
        stalled = basis.matvecs - best_at > size and bool((norms[:k] <= rounding).all())
        if done and task.probe and not ends:
            probes += 1
            delta /= 2
            found, next_bound = _probe(basis, task, values, coefficients, norms, random, delta, eps * largest)
            if found:
                # The residuals of the enlarged basis leave it in more than one direction.
                krylov, best, best_at = False, math.inf, basis.matvecs
                rounds, first_residual = 1, math.inf
                del y, residual_vectors
                continue
        elif done and preconditioner is not None and not task.probe:
            next_bound = preconditioner.next_of(values, norms, k)
        if done or stalled or ends:
            return _Solved(basis, values[: k + 1], y, norms, residuals, next_bound, 10 * eps * largest, stalled)
        if preconditioner is not None and not start:
            largest_residual = float(residuals.max())
            first_residual = largest_residual if rounds == 0 else first_residual
            if not preconditioner.pays(rounds, first_residual, largest_residual, tol, int((residuals > tol).sum())):
                return _Solved(basis, values, y, norms, residuals, next_bound, 0.0, False, gave_up=True)
            rounds += 1
        room = max(1, size - k - 1)
        if preconditioner is None:
            # A residual is orthogonal to the basis, up to rounding.
            directions, new = [residual_vectors[worst]], bool(norms[worst] > rounding)
        else:
            new = False
            wanted = [i for i in range(len(residuals)) if not residuals[i] <= tol]
            corrected = (preconditioner.correct(residual_vectors[i], float(values[i])) for i in wanted[:room])
            directions, waiting = [*waiting, *corrected][:room], []
        if basis.m + len(directions) > size:
            keep = min(k + (size - k) // 2, size - len(directions))
            basis.restart(values[:keep], coefficients[:keep])
        added = basis.extend(directions, new)
        if added == 0 and basis.extend([_random(operator, random)]) == 0:
            return _Solved(basis, values[: k + 1], y, norms, residuals, next_bound, 10 * eps * largest, True)
        # The next Ritz vectors take their memory.
        del y, residual_vectors, directions


def _probe(
    basis: _Basis,
    task: _Task,
    values: Tensor,
    coefficients: Tensor,
    norms: Tensor,
    random: torch.Generator,
    delta: float,
    noise: float,
) -> tuple[bool, float]:
    """Look for eigenvalues that the basis does not show, by Lanczos from a fresh random vector in its complement.

    Returns:
        Whether one was found above the k-th Ritz value; the basis then holds it approximately. And the bound on
        the next eigenvalue, infinite where none was reached.
    """
    k, n = task.k, basis.q.shape[1]
    steps = min(max(PROBE_MATVECS, basis.matvecs // 2), task.max_matvecs - basis.matvecs)
    room = min(steps, basis.size - k - 1)
    if basis.size - basis.m < room:
        keep = basis.size - room
        basis.restart(values[:keep], coefficients[:keep])
    first, projected, coupling = basis.m, basis.projected, basis.coupling()
    component = float(overlap_quantiles(delta, n - first))
    known = values[:k].tolist()
    last = known[-1]
    # A value within the residual of the k-th is no new eigenvalue: it is reported as a cluster.
    new = max(task.tol * abs(last), float(norms[:k].max()), 10 * noise)
    if basis.extend([_random(basis.operator, random)]) == 0:
        return False, math.inf
    diagonal: list[float] = []
    beside: list[float] = []
    mu = math.inf
    while True:
        diagonal.append(float(basis.t[basis.m - 1, basis.m - 1]))
        unit, norm = basis.leaving()
        beside.append(norm)
        theta = largest_ritz_value(diagonal, beside)
        if theta > last + new:
            return True, math.inf
        mu = largest_unseen(diagonal, beside, component) + 10 * noise
        following = max(theta, float(values[k]) if len(values) > k else theta)
        near = last - following <= CLUSTER * abs(last)
        goal = last + max(CLUSTER * abs(last), 20 * noise) if near else (last + following) / 2
        above = sum(value > goal for value in known)
        if norm == 0 or basis.m - first >= room or at_most(above, goal, mu, projected, coupling):
            break
        basis.append(unit)
        check_finite(basis.t[basis.m - 1, : basis.m])
    return False, next_eigenvalue_bound(known, mu, projected, coupling)


def _random(operator: Operator, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64, device=generator.device)
    return drawn.to(operator.device)


def _generator(operator: Operator, seed: int) -> torch.Generator:
    # A GPU draws its own numbers: copying a start vector from the host would take as long as a product.
    return torch.Generator(operator.device if operator.device.type == "cuda" else "cpu").manual_seed(seed)


def _to_device_of(values: Tensor, like: Tensor) -> Tensor:
    """A small tensor of the host, in the type and on the device of another; the host does not wait."""
    return values.to(like.device, like.dtype, non_blocking=True)


def _rounding(dtype: torch.dtype) -> float:
    """Uncertainty of products, relative to the largest eigenvalue."""
    return (100 if dtype.itemsize >= 4 else 4) * torch.finfo(dtype).eps


def _relative(norms: Tensor, values: Tensor, largest: float, rounding: float) -> Tensor:
    scale = torch.where(values.abs() > rounding, values.abs(), largest)
    return torch.where(norms == 0, torch.zeros_like(norms), norms / scale)
