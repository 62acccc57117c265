"""Top eigenpairs of a symmetric operator: Lanczos that keeps its products and stops on true residuals.

Lanczos grows an orthonormal basis Q by one vector at a time and needs one product a vector. Here the products W = H Q
are kept beside it, and the small matrix Q'W is diagonalized: for an eigenvector s of it, y = Q s is the Ritz vector and
H y = W s costs nothing more. So its residual r = W s - theta y is known from products that were really taken, not from
a recurrence, and r itself is the next direction: in exact arithmetic it is the next Lanczos vector, whichever pair it
comes from. Every new direction is orthogonalized twice against the whole basis, since a basis that lost orthogonality
shows copies of the first eigenvalue with small residuals. When the basis is full, it is cut down to the best Ritz
vectors and their products (thick restart; Wu and Simon 2000).

With a guide, a cheaper operator that resembles H, the basis starts from the guide's own top vectors (found with the
help of a still cheaper one, where the guide has it), and each residual passes through the guide's approximate inverse
of H - theta before it becomes a direction (Davidson 1975). What comes out is judged by the same residuals, of full
products; the guide only decides how many of them there are.

On a GPU the host follows from afar: each extension of the basis sends it one small packet, the new columns of Q'W and
the length of the last product. From these plain Lanczos knows about how long its residuals are; they themselves are
looked at where that does not settle it.

Lanczos 1950; Parlett, The Symmetric Eigenvalue Problem (1998), chapters 11 and 13; Daniel et al. 1976 on the second
pass.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eigendrift.threads import lent_threads

# A guide's own residuals, as a part of what is asked of the full products' residuals.
GUIDE = 0.5
# Residuals of a guide's guide.
CRUDE = 1e-2
# Residuals that are forecast to be larger than so many times what is asked are not looked at.
FAR = 3
# Neighbours that are not known to differ by more than this part of their value form a cluster: within it a small error
# turns the vectors, and only their span is well determined.
CLUSTER = 1e-2


class Operator(Protocol):
    """What the solver needs of H: symmetric, (N, N)."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def product(self, vectors: Tensor) -> Tensor:
        """H v for each row of (b, N)."""
        ...


@dataclass(frozen=True)
class EigenPairs:
    """The k algebraically largest eigenvalues, descending, with what tells how far each pair can be trusted.

    values (k,) float64; vectors (N, k), unit columns in the operator's type; residuals (k,): |Hv - lambda v| /
    |lambda|, from products over the full data (relative to the largest |lambda| where lambda_i is zero within its
    rounding); gaps (k,): distance to the nearest other Ritz value less that one's own residual, 0 where they
    cannot be told apart (where guided pairs need no full product of a further vector, the next eigenvalue is the
    guide's, and counts as known to three times the guide's largest error on the k pairs); angle_bounds (k,): sin
    of the angle between v_i and its eigenvector is at most |r| / gap (Davis and Kahan 1970), at most 1, as far as
    no eigenvalue between the Ritz values was missed, which no Krylov method can exclude; clustered (k,): whether a
    neighbour, also the next beyond the k, is not known to be more than `CLUSTER` = 1% of the eigenvalue away; clusters
    (k,): index of the first pair of the cluster that a pair belongs to, its own for one that stands alone;
    span_bounds (k,): the same bound for the largest angle between the span of the whole cluster, as far as it is among
    the k, and the eigenvectors' (|R|_F / gap), the pair's own where it stands alone; matvecs: full products taken,
    guide_matvecs: products of the guide; converged (k,): residual <= tol; orthogonality: max |V'V - I|.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    gaps: Tensor
    angle_bounds: Tensor
    clustered: Tensor
    clusters: Tensor
    span_bounds: Tensor
    matvecs: int
    guide_matvecs: int
    converged: Tensor
    orthogonality: float


class _Basis:
    """Orthonormal rows Q (m, N), their products W = H Q, and the projected matrix Q W' (m, m) in float64."""

    def __init__(self, operator: Operator, size: int) -> None:
        n = operator.shape[0]
        self.operator, self.size, self.m, self.matvecs = operator, size, 0, 0
        self.q = torch.empty(size, n, dtype=operator.dtype, device=operator.device)
        self.w = torch.empty_like(self.q)
        self.t = torch.zeros(size, size, dtype=torch.float64)
        self.outside = 0.0  # length of the part of the last product that lies outside of the basis

    def extend(self, directions: Sequence[Tensor], new: bool = False) -> int:
        """Take what the directions add to the basis, and the products of it in one block; how many vectors that was.

        `new`: each is known to add something, so that the host need not look.
        """
        first = self.m
        for direction in directions:
            unit, left = self._orthogonal(direction)
            if self.m < self.size and (new or bool(left)):
                self.q[self.m] = unit
                self.m += 1
        if self.m > first:
            w = self.w[first : self.m] = self.operator.product(self.q[first : self.m])
            self.matvecs += self.m - first
            length = torch.linalg.vector_norm(w[-1]).expand(1, len(w))
            packet = torch.cat([self.q[: self.m] @ self.w[first : self.m].T, length]).double().cpu()
            columns, square = packet[:-1], float(packet[-1, -1]) ** 2
            self.t[: self.m, first : self.m] = columns
            self.t[first : self.m, : self.m] = columns.T
            outside = square - float(columns[:, -1].square().sum())
            # A hundredth of the product and less is lost in the rounding of this difference.
            self.outside = math.sqrt(outside) if outside > 1e-4 * square else 0.0
        return self.m - first

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """`vector` made orthogonal to the basis and of length one, and whether more than rounding is left of it."""
        q, smallest = self.q[: self.m], 100 * torch.finfo(vector.dtype).eps
        left = []
        for _ in range(2):
            # Of a vector of length zero, which becomes NaN here, nothing is left either.
            vector = vector / torch.linalg.vector_norm(vector)
            vector = vector - (q @ vector) @ q
            left.append(torch.linalg.vector_norm(vector))
        return vector / left[1], (left[0] > smallest) & (left[1] > smallest)

    def rayleigh_ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values, descending (m,), and the coefficients of their vectors, one a row (m, m)."""
        projected = self.t[: self.m, : self.m]
        values, columns = torch.linalg.eigh((projected + projected.T) / 2)
        return values.flip(0), columns.flip(1).T.contiguous()

    def combine(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors y = s Q and their products H y = s W for each row s of the coefficients."""
        s = _sent(coefficients, self.q)
        return s @ self.q[: self.m], s @ self.w[: self.m]

    def ritz(self, values: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Ritz vectors y, and the rests H y - theta y."""
        both = _sent(torch.cat([coefficients, values[:, None]], dim=1), self.q)
        s, theta = both[:, :-1].contiguous(), both[:, -1:]
        y = s @ self.q[: self.m]
        return y, s @ self.w[: self.m] - theta * y

    def forecast(self, coefficients: Tensor) -> Tensor:
        """Lengths of the rests in plain Lanczos, where no product but the last one leaves the space of the basis."""
        return coefficients[:, -1].abs() * self.outside

    def cut(self, values: Tensor, coefficients: Tensor) -> None:
        """Keep the Ritz vectors of these coefficients alone."""
        y, product = self.combine(coefficients)
        self.m = len(y)
        self.q[: self.m], self.w[: self.m] = y, product
        self.t.zero_()
        self.t[: self.m, : self.m] = torch.diag(values)


class _Guide:
    """What is known of the spectrum from cheaper operators: vectors to start from, and an approximate inverse."""

    def __init__(self, operator: Operator, k: int, tol: float, seed: int) -> None:
        cruder: Operator | None = getattr(operator, "cruder", None)
        # The cruder one only has to lead to the finer one, which is far from it anyway.
        known = None if cruder is None else _Guide(cruder, k, max(tol, CRUDE), seed)
        random, size = _generator(operator, seed), _basis_size(k, operator.shape[0])
        solved = _solve(operator, k, tol, random, 100, size, known)
        self.start, self.matvecs = solved.y, solved.basis.matvecs
        self.next_values = solved.values[k : k + 1]
        if known is None:
            # A whole Krylov space: it shows more of the spectrum than the few directions of a corrected solve.
            self.values, coefficients = solved.basis.rayleigh_ritz()
            self.vectors = solved.basis.combine(coefficients)[0]
        else:
            self.values, self.vectors = known.values, known.vectors
            self.matvecs += known.matvecs

    def correct(self, rest: Tensor, value: float) -> Tensor:
        """(theta - G)^-1 r, where G is the guide in the space it knows and zero outside of it.

        Parts of G nearer to theta than 5% count as that far: r has no part along its own Ritz vector, and along others
        so near an error of G must not be blown up.
        """
        distance = value - self.values
        nearest = 0.05 * abs(value)
        distance = torch.where(distance.abs() < nearest, torch.where(distance < 0, -nearest, nearest), distance)
        gain = _sent(1 / distance - 1 / value, rest)
        return rest / value + ((self.vectors @ rest) * gain) @ self.vectors


@dataclass
class _Solved:
    """Where a solve ended: the basis and its first pairs, one more than was wanted if there is one."""

    basis: _Basis
    values: Tensor
    y: Tensor
    lengths: Tensor
    residuals: Tensor


def top_eigenpairs(
    operator: Operator,
    k: int,
    tol: float = 1e-3,
    seed: int = 0,
    *,
    guide: Operator | None = None,
    max_matvecs: int = 1000,
    basis_size: int | None = None,
) -> EigenPairs:
    """The k algebraically largest eigenpairs of a symmetric operator, each to a true residual of `tol`.

    `seed` draws the start vector. `guide` is a cheaper operator near this one (`HessianOperator.guide`): it saves
    full products and has no part in the residuals; it may have one of its own as `cruder`. `max_matvecs` bounds
    the products. Pairs that are not there by then, or when the residuals have reached the rounding of the
    products, come back with converged = False. `basis_size` bounds the memory: two arrays of (basis_size, N),
    default max(2 k + 40, 60).

    The smallest residual that float32 products can reach is about 1e-6 lambda_1 / |lambda_i|. From one start vector an
    eigenvalue that is exactly repeated is found once, as in every single-vector Lanczos method.

    Raises ValueError for k outside 1..N, a tolerance that is not positive, and products that are not finite.
    """
    n = operator.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} is not allowed; the operator has {n} eigenpairs")
    if not tol > 0:
        raise ValueError(f"tol = {tol} is not allowed; give a positive number")
    size = min(n, max(basis_size or _basis_size(k, n), k + 2))
    with lent_threads() if getattr(operator, "shares_out", False) else nullcontext():
        known = None if guide is None else _Guide(guide, k, max(GUIDE * tol, 1e-4), seed)
        solved = _solve(operator, k, tol, _generator(operator, seed), max_matvecs, size, known)
        return _result(solved, k, tol, 0 if known is None else known.matvecs)


def _basis_size(k: int, n: int) -> int:
    return min(n, max(2 * k + 40, 60))


def _solve(
    operator: Operator,
    k: int,
    tol: float,
    random: torch.Generator,
    max_matvecs: int,
    size: int,
    guide: _Guide | None = None,
) -> _Solved:
    n = operator.shape[0]
    basis = _Basis(operator, size)
    best, best_at = float("inf"), 0
    # The guide's next vector has to wait: with a good guide the first k are all that is needed.
    directions, waiting = ([], []) if guide is None else (list(guide.start[:k]), list(guide.start[k : k + 1]))
    new = True
    while True:
        if basis.extend(directions, new) == 0:
            # At the start, or where the basis spans an invariant subspace: go on outside it.
            basis.extend([_random(n, random, operator)])
        if not bool(torch.isfinite(basis.t[: basis.m, : basis.m]).all()):
            raise ValueError("a Hessian-vector product is not finite; the parameters or the data are not either")
        values, coefficients = basis.rayleigh_ritz()
        # One pair more than is wanted: its residual tells how far its value can be trusted as the next eigenvalue.
        y, rests = basis.ritz(values[: k + 1], coefficients[: k + 1])
        largest = float(values.abs().max())
        rounding = 100 * torch.finfo(y.dtype).eps * largest
        ends = basis.matvecs >= max_matvecs or basis.m == n
        lengths = basis.forecast(coefficients[: k + 1])
        residuals = _relative(lengths[:k], values[:k], largest, rounding)
        worst = int(residuals.argmax())
        far = residuals[worst] > FAR * tol and lengths[worst] > FAR * rounding
        if guide is not None or ends or not far:
            lengths = torch.linalg.vector_norm(rests, dim=1).double().cpu()
            residuals = _relative(lengths[:k], values[:k], largest, rounding)
            worst = int(residuals.argmax())
        # Without a guide at least one vector more is looked at: what is next decides how far the k can be trusted.
        seen = basis.m > k or guide is not None or basis.m == n
        done = seen and len(residuals) == k and bool((residuals <= tol).all())
        if len(residuals) < k or float(residuals.max()) < 0.9 * best:
            best, best_at = float(residuals.max()), basis.matvecs
        # A whole basis without progress, and what is left is rounding of the products.
        stalled = basis.matvecs - best_at > size and bool((lengths[:k] <= rounding).all())
        if done or stalled or ends:
            if guide is not None and basis.m == k:
                # The next eigenvalue is known from the guide alone, which errs there as it did on these.
                values = torch.cat([values, guide.next_values])
                lengths = torch.cat([lengths, 3 * lengths.max().expand(len(guide.next_values))])
            return _Solved(basis, values, y, lengths, residuals)
        if guide is None:
            # A rest is orthogonal to the basis, up to rounding.
            directions, new = [rests[worst]], bool(lengths[worst] > rounding)
        else:
            new = False
            wanted = [i for i in range(len(residuals)) if not residuals[i] <= tol]
            directions = [*waiting, *(guide.correct(rests[i], float(values[i])) for i in wanted)]
            waiting = []
        if basis.m + len(directions) > size:
            keep = min(k + (size - k) // 2, size - len(directions))
            basis.cut(values[:keep], coefficients[:keep])


def _random(n: int, generator: torch.Generator, like: Operator) -> Tensor:
    drawn = torch.randn(n, generator=generator, dtype=torch.float64, device=generator.device)
    return drawn.to(like.device, like.dtype)


def _generator(operator: Operator, seed: int) -> torch.Generator:
    # A GPU draws its own: a start vector from the host would take as long as a product.
    return torch.Generator(operator.device if operator.device.type == "cuda" else "cpu").manual_seed(seed)


def _sent(values: Tensor, like: Tensor) -> Tensor:
    """A small tensor of the host, in the type and on the device of another; the host does not wait."""
    return values.to(like.device, like.dtype, non_blocking=True)


def _relative(lengths: Tensor, values: Tensor, largest: float, rounding: float) -> Tensor:
    scale = torch.where(values.abs() > rounding, values.abs(), largest)
    return torch.where(lengths == 0, torch.zeros_like(lengths), lengths / scale)


def _result(solved: _Solved, k: int, tol: float, guide_matvecs: int) -> EigenPairs:
    values, lengths, y = solved.values, solved.lengths, solved.y[:k]
    # An eigenvalue lies within the residual of each Ritz value, so a neighbour may be nearer by its residual.
    distances = (values[:k, None] - values[None, : len(lengths)]).abs() - lengths[None, :]
    distances[range(k), range(k)] = torch.inf
    vectors = y / torch.linalg.vector_norm(y, dim=1, keepdim=True)
    gram = (vectors @ vectors.T).double().cpu()
    gaps = distances.min(dim=1).values.clamp(min=0.0)
    near = distances <= CLUSTER * values[:k, None].abs()
    clusters = _first_of_each(near)
    return EigenPairs(
        values=values[:k].clone(),
        vectors=vectors.T.contiguous(),
        residuals=solved.residuals,
        gaps=gaps,
        angle_bounds=_sines(lengths[:k], gaps),
        clustered=near.any(dim=1),
        clusters=clusters,
        span_bounds=_span_bounds(clusters, lengths, distances),
        matvecs=solved.basis.matvecs,
        guide_matvecs=guide_matvecs,
        converged=solved.residuals <= tol,
        orthogonality=float((gram - torch.eye(k, dtype=torch.float64)).abs().max()),
    )


def _sines(lengths: Tensor, gaps: Tensor) -> Tensor:
    """|r| / gap, at most 1."""
    # Nothing tells which vector of a repeated eigenvalue is meant, however small the residual.
    return torch.where(gaps > 0, lengths / gaps, torch.ones_like(lengths)).clamp(max=1.0)


def _first_of_each(near: Tensor) -> Tensor:
    """Index of the first pair that each hangs together with, from neighbour to neighbour; `near` is (k, k) or wider."""
    firsts = [0]
    for i in range(1, len(near)):
        firsts.append(firsts[-1] if near[i - 1, i] or near[i, i - 1] else i)
    return torch.tensor(firsts)


def _span_bounds(clusters: Tensor, lengths: Tensor, distances: Tensor) -> Tensor:
    """Sine of the largest angle of each pair's cluster at most: |R|_F over the distance to what is not in it."""
    bounds = torch.empty(len(clusters), dtype=torch.float64)
    for first in clusters.unique():
        own = torch.nonzero(clusters == first)[:, 0]
        outside = torch.ones(distances.shape[1], dtype=torch.bool)
        outside[own] = False
        gap = distances[own][:, outside].min() if bool(outside.any()) else torch.tensor(torch.inf)
        bounds[own] = _sines(torch.linalg.vector_norm(lengths[own]), gap.clamp(min=0.0))
    return bounds
