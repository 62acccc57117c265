"""Top eigenpairs of a symmetric operator: Lanczos that keeps its products and stops on true residuals.

Lanczos grows an orthonormal basis Q by one vector at a time and needs one product a vector. Here the products W = H Q
are kept beside it, and the small matrix Q'W is diagonalized: for an eigenvector s of it, y = Q s is the Ritz vector and
H y = W s costs nothing more. So its residual r = W s - theta y is known from products that were really taken, not from
a recurrence, and r itself is the next direction: in exact arithmetic it is the next Lanczos vector, whichever pair it
comes from. Every new direction is orthogonalized twice against the whole basis, since a basis that lost orthogonality
shows copies of the first eigenvalue with small residuals. When the basis is full, it is cut down to the best Ritz
vectors and their products (thick restart; Wu and Simon 2000).

Lanczos 1950; Parlett, The Symmetric Eigenvalue Problem (1998), chapter 11 and 13; Daniel et al. 1976 on the second
pass.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


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
    rounding); gaps (k,): distance to the nearest other Ritz value less that one's own residual, 0 where they cannot be
    told apart; angle_bounds (k,): sin of the angle between v_i and its eigenvector is at most |r| / gap (Davis and
    Kahan 1970), at most 1, as far as no eigenvalue between the Ritz values was missed, which no Krylov method can
    exclude; matvecs: products taken; converged (k,): residual <= tol; orthogonality: max |V'V - I|.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    gaps: Tensor
    angle_bounds: Tensor
    matvecs: int
    converged: Tensor
    orthogonality: float


class _Basis:
    """Orthonormal rows Q (m, N), their products W = H Q, and the projected matrix Q W' (m, m) in float64."""

    def __init__(self, operator: Operator, size: int) -> None:
        n = operator.shape[0]
        self.operator, self.m = operator, 0
        self.q = torch.empty(size, n, dtype=operator.dtype, device=operator.device)
        self.w = torch.empty_like(self.q)
        self.t = torch.zeros(size, size, dtype=torch.float64)

    def direction(self, vector: Tensor) -> Tensor | None:
        """`vector` made orthogonal to the basis and of length one; None if nothing is left of it but rounding."""
        q, smallest = self.q[: self.m], 100 * torch.finfo(vector.dtype).eps
        for _ in range(2):
            length = torch.linalg.vector_norm(vector)
            if not length > 0:
                return None
            vector = vector / length
            vector = vector - (q @ vector) @ q
            if not torch.linalg.vector_norm(vector) > smallest:
                return None
        unit: Tensor = vector / torch.linalg.vector_norm(vector)
        return unit

    def add(self, vector: Tensor) -> None:
        """Take one more unit vector and its product with H."""
        m = self.m
        self.q[m] = vector
        self.w[m] = self.operator.product(vector[None])[0]
        self.m = m + 1
        column = (self.q[: m + 1] @ self.w[m]).double().cpu()
        self.t[m, : m + 1] = column
        self.t[: m + 1, m] = column

    def rayleigh_ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values, descending (m,), and the coefficients of their vectors, one a row (m, m)."""
        values, columns = torch.linalg.eigh(self.t[: self.m, : self.m])
        return values.flip(0), columns.flip(1).T.contiguous()

    def combine(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors y = s Q and their products H y = s W for each row s of the coefficients."""
        s = coefficients.to(self.q.device, self.q.dtype)
        return s @ self.q[: self.m], s @ self.w[: self.m]

    def cut(self, values: Tensor, coefficients: Tensor) -> None:
        """Keep the Ritz vectors of these coefficients alone."""
        y, product = self.combine(coefficients)
        self.m = len(y)
        self.q[: self.m], self.w[: self.m] = y, product
        self.t.zero_()
        self.t[: self.m, : self.m] = torch.diag(values)


def top_eigenpairs(
    operator: Operator,
    k: int,
    tol: float = 1e-3,
    seed: int = 0,
    *,
    max_matvecs: int = 1000,
    basis_size: int | None = None,
) -> EigenPairs:
    """The k algebraically largest eigenpairs of a symmetric operator, each to a true residual of `tol`.

    `seed` draws the start vector; `max_matvecs` bounds the products. Pairs that are not there by then, or when the
    residuals have reached the rounding of the products, come back with converged = False. `basis_size` bounds the
    memory: two arrays of (basis_size, N), default max(2 k + 40, 60).

    The smallest residual that float32 products can reach is about 1e-6 lambda_1 / |lambda_i|. From one start vector an
    eigenvalue that is exactly repeated is found once, as in every single-vector Lanczos method.

    Raises ValueError for k outside 1..N, a tolerance that is not positive, and products that are not finite.
    """
    n = operator.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} is not allowed; the operator has {n} eigenpairs")
    if not tol > 0:
        raise ValueError(f"tol = {tol} is not allowed; give a positive number")
    size = min(n, max(basis_size or max(2 * k + 40, 60), k + 2))
    basis = _Basis(operator, size)
    generator = torch.Generator().manual_seed(seed)
    matvecs, best, best_at = 0, float("inf"), 0
    direction = basis.direction(_random(n, generator, operator))
    while True:
        if direction is None:
            # The basis spans an invariant subspace; go on outside it.
            direction = basis.direction(_random(n, generator, operator))
        assert direction is not None
        basis.add(direction)
        matvecs += 1
        if not torch.isfinite(basis.t[basis.m - 1, basis.m - 1]):
            raise ValueError("a Hessian-vector product is not finite; the parameters or the data are not either")
        values, coefficients = basis.rayleigh_ritz()
        # One pair more than is wanted: its residual tells how far its value can be trusted as the next eigenvalue.
        y, product = basis.combine(coefficients[: k + 1])
        rests = product - values[: k + 1, None].to(y) * y
        lengths = torch.linalg.vector_norm(rests, dim=1).double().cpu()
        largest = float(values.abs().max())
        rounding = 100 * torch.finfo(y.dtype).eps * largest
        residuals = _relative(lengths[:k], values[:k], largest, rounding)
        done = len(residuals) == k and bool((residuals <= tol).all())
        if len(residuals) < k or float(residuals.max()) < 0.9 * best:
            best, best_at = float(residuals.max()), matvecs
        # A whole basis without progress, and what is left is rounding of the products.
        stalled = matvecs - best_at > size and bool((lengths[:k] <= rounding).all())
        if done or stalled or matvecs >= max_matvecs or basis.m == n:
            return _result(values, y[:k], lengths, residuals, tol, matvecs)
        direction = basis.direction(rests[int(residuals.argmax())])
        if basis.m == size:
            keep = min(k + (size - k) // 2, size - 1)
            basis.cut(values[:keep], coefficients[:keep])
            direction = basis.direction(direction) if direction is not None else None


def _random(n: int, generator: torch.Generator, like: Operator) -> Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64).to(like.device, like.dtype)


def _relative(lengths: Tensor, values: Tensor, largest: float, rounding: float) -> Tensor:
    scale = torch.where(values.abs() > rounding, values.abs(), largest)
    return torch.where(lengths == 0, torch.zeros_like(lengths), lengths / scale)


def _result(values: Tensor, y: Tensor, lengths: Tensor, residuals: Tensor, tol: float, matvecs: int) -> EigenPairs:
    k = len(y)
    # An eigenvalue lies within the residual of each Ritz value, so a neighbour may be nearer by its residual.
    distances = (values[:k, None] - values[None, : len(lengths)]).abs() - lengths[None, :]
    distances[range(k), range(k)] = torch.inf
    vectors = y / torch.linalg.vector_norm(y, dim=1, keepdim=True)
    gram = (vectors @ vectors.T).double().cpu()
    gaps = distances.min(dim=1).values.clamp(min=0.0)
    own = lengths[:k]
    return EigenPairs(
        values=values[:k].clone(),
        vectors=vectors.T.contiguous(),
        residuals=residuals,
        gaps=gaps,
        angle_bounds=torch.where(own > 0, own / gaps, torch.zeros_like(own)).clamp(max=1.0),
        matvecs=matvecs,
        converged=residuals <= tol,
        orthogonality=float((gram - torch.eye(k, dtype=torch.float64)).abs().max()),
    )
