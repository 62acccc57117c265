"""The spectral density of a symmetric operator, by stochastic Lanczos quadrature beside the known top eigenpairs.

With k known eigenvectors V and B the compression of H to their complement,

    density(t) = (1/N) (sum_i g(t - lambda_i) + (N - k) E z'g(t - B)z)

for a kernel g, such as a narrow Gaussian, and z uniform on the unit sphere of the complement. Lanczos on B from z gives
a tridiagonal matrix whose eigenvalues theta_j, with the squared first components w_j of its eigenvectors, are a Gauss
quadrature: z'f(B)z = sum_j w_j f(theta_j), exactly for polynomials f of degree 2m - 1 after m steps (Golub and Meurant
1994; Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 2017; Ghorbani et al. 2019, arXiv:1901.10159). So moments up
to that degree are unbiased, and the mean over a few z has a standard error.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from eigendrift.eigensolver.result import EigenPairs
from eigendrift.eigensolver.trace import Estimate, Kind, known_vectors, multiplied, without
from eigendrift.metrics import Floats
from eigendrift.operators import Operator, as_operator, check_finite, check_symmetric, torch_type
from eigendrift.ranks import led_by_one_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Operators up to this order are diagonalized, if that takes no more products.
DENSE_ORDER = 2048


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """The density of the N eigenvalues of a symmetric operator, normalized to an integral of 1.

    Called at points and with a width, it gives the density smoothed by a Gaussian of that standard deviation, and the
    standard error.

    Attributes:
        order: N.
        known: (k,) float64, the eigenvalues that are no estimates: those on the span of the given pairs, or all N.
        steps: Number of Lanczos steps from each random vector; 0 where all eigenvalues were computed.
        nodes: For each random vector the nodes of its quadrature, (m,) float64, in units of the operator.
        weights: For each random vector the weights of the nodes, (m,) float64, of sum 1.
        fewer: Nodes and weights after three quarters of the steps; the difference shows what more steps would change.
        shift_bound: Bound on how far, in units of the operator, an eigenvalue moves because the pairs, which are not
            exact, are cut off from the rest; 0 without pairs.
        kind: "exact", all eigenvalues were computed, or "estimated".
        products: Number of products that it took.

    Example:
        >>> density = spectral_density(torch.diag(torch.linspace(0, 1, 50, dtype=torch.float64)))
        >>> density.kind, round(density.trace.value, 3)
        ('exact', 25.0)
        >>> grid = np.linspace(-1, 2, 301)
        >>> value, error = density(grid, width=0.05)
        >>> round(float(value.sum() * 0.01), 3), float(error.max())
        (1.0, 0.0)
    """

    order: int
    known: Tensor
    steps: int
    nodes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    fewer: tuple[tuple[Tensor, Tensor], ...]
    shift_bound: float
    kind: Kind
    products: int

    def __call__(self, points: ArrayLike, width: float | None = None) -> tuple[Floats, Floats]:
        """The smoothed density at points, and its standard error.

        Args:
            points: (g,) where, in units of the operator.
            width: Standard deviation of the Gaussian in these units, by default `width`. Below it, single nodes show.

        Returns:
            The density and its standard error over the random vectors, each (g,) float64, per unit of the operator.

        Raises:
            ValueError: The width is not positive.
        """
        width = self.width if width is None else width
        if not (math.isfinite(width) and width > 0):
            raise ValueError(f"width = {width} is not allowed; give a positive number in units of the operator")
        at = np.atleast_1d(np.asarray(points, dtype=np.float64))
        known = _smoothed(at, self.known.numpy(), np.ones(len(self.known)), width) / self.order
        if not self.nodes:
            return known, np.zeros_like(known)
        rest = self._left * np.stack(
            [_smoothed(at, n.numpy(), w.numpy(), width) for n, w in zip(self.nodes, self.weights, strict=True)]
        )
        return known + rest.mean(axis=0), rest.std(axis=0, ddof=1) / math.sqrt(len(rest))

    def quadrature_error(self, points: ArrayLike, width: float | None = None) -> Floats:
        """How much the density changes from three quarters of the Lanczos steps to all of them: an estimate.

        Args:
            points: (g,) where, in units of the operator.
            width: As for the density.

        Returns:
            The absolute change, (g,) float64; 0 where all eigenvalues were computed.
        """
        at = np.atleast_1d(np.asarray(points, dtype=np.float64))
        if not self.nodes:
            return np.zeros_like(at)
        width = self.width if width is None else width
        changes = [
            _smoothed(at, n.numpy(), w.numpy(), width) - _smoothed(at, fn.numpy(), fw.numpy(), width)
            for n, w, (fn, fw) in zip(self.nodes, self.weights, self.fewer, strict=True)
        ]
        found: Floats = self._left * np.abs(np.mean(changes, axis=0))
        return found

    def __repr__(self) -> str:
        return f"SpectralDensity(N={self.order}, {len(self.known)} known, {self.kind}, {self.products} products)"

    @property
    def _left(self) -> float:
        """The share of the eigenvalues that are not known."""
        return 1.0 - len(self.known) / self.order

    @property
    def width(self) -> float:
        """The default width: the range of the estimated eigenvalues divided by the number of Lanczos steps."""
        values = torch.cat(self.nodes) if self.nodes else self.known
        extent = float(values.max() - values.min())
        largest = max(float(values.abs().max()), 1e-300)
        # The quadrature's error for so smooth a function is far below the standard error.
        return (extent if extent > 1e-6 * largest else largest) / (self.steps or 50)

    def moment(self, power: int) -> Estimate:
        """The sum over all eigenvalues of their power: the trace for 1, the squared Frobenius norm for 2.

        Args:
            power: A whole number from 0 to 2 * steps - 1, for which the quadrature has no error.

        Returns:
            The sum, in units of the operator to that power, with its standard error.

        Raises:
            ValueError: The power is out of this range.
        """
        most = 2 * self.steps - 1 if self.nodes else math.inf
        if isinstance(power, bool) or not isinstance(power, int) or not 0 <= power <= most:
            raise ValueError(f"power = {power!r} is not allowed; give a whole number from 0 to {most}")
        known = float((self.known**power).sum())
        if not self.nodes:
            return Estimate(known, 0.0, self.kind, self.products)
        left = self.order - len(self.known)
        drawn = torch.stack([left * (w * n**power).sum() for n, w in zip(self.nodes, self.weights, strict=True)])
        error = float(drawn.std()) / math.sqrt(len(drawn))
        return Estimate(known + float(drawn.mean()), error, self.kind, self.products)

    @property
    def trace(self) -> Estimate:
        """The sum of all eigenvalues."""
        return self.moment(1)

    @property
    def squared_frobenius_norm(self) -> Estimate:
        """The sum of the squares of all eigenvalues."""
        return self.moment(2)

    def plot(self, ax: "Axes | None" = None, width: float | None = None) -> "Axes":
        """Draw the density on a logarithmic axis, with twice its standard error, and marks at the known eigenvalues.

        It needs matplotlib, which the library itself does not.

        Args:
            ax: The axes to draw into, by default new ones.
            width: As for the density.

        Returns:
            The axes.
        """
        from matplotlib import pyplot

        if ax is None:
            ax = pyplot.subplots()[1]
        width = self.width if width is None else width
        values = torch.cat([self.known, *self.nodes]).numpy()
        # Far from the rest, a known eigenvalue is narrower than the distance of the points.
        near = (self.known.numpy()[:, None] + width * np.linspace(-5, 5, 41)).reshape(-1)[: 41 * 200]
        points = np.unique(
            np.concatenate([np.linspace(values.min() - 5 * width, values.max() + 5 * width, 1000), near])
        )
        density, error = self(points, width)
        smallest = 1e-3 / (self.order * width)
        ax.fill_between(points, np.maximum(density - 2 * error, smallest), density + 2 * error, alpha=0.3, linewidth=0)
        ax.plot(points, np.maximum(density, smallest), linewidth=1, label=f"{self.kind}, width {width:.2g}")
        if self.kind == "estimated" and len(self.known):
            ax.plot(self.known.numpy(), np.full(len(self.known), smallest), "|", label=f"{len(self.known)} known")
        ax.set_yscale("log")
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel("density")
        ax.legend()
        return ax


@led_by_one_rank
def spectral_density(
    operator: Any,
    pairs: EigenPairs | None = None,
    *,
    probes: int = 8,
    steps: int = 60,
    seed: int = 0,
) -> SpectralDensity:
    """The spectral density of a symmetric operator by stochastic Lanczos quadrature.

    It takes probes * steps products, and one more for each of the pairs; an operator of an order up to this number (and
    2048) is diagonalized instead. The memory is that of `steps` vectors and the pairs.

    Args:
        operator: A HessianOperator or any other operator or symmetric matrix that `top_eigenpairs` takes.
        pairs: Its known eigenpairs, from `top_eigenpairs`, which are taken out of the estimate: the few large
            eigenvalues of a Hessian would otherwise make most of the error.
        probes: Number of random vectors, at least 2; the standard error falls with the root of it.
        steps: Number of Lanczos steps, at least 2; the finest width that is resolved falls with it.
        seed: Seed of the random vectors; the same seed gives the same result.

    Returns:
        The density.

    Raises:
        ValueError: probes or steps are too few, `pairs` are of another N, or the operator is not symmetric or not
            finite.
        TypeError: `operator` has no shape or no @.

    Example:
        >>> from eigendrift import top_eigenpairs
        >>> H = torch.diag(torch.cat([torch.linspace(0, 1, 995), torch.tensor([5.0, 6, 7, 8, 9])]))
        >>> density = spectral_density(H, top_eigenpairs(H, k=5), probes=4, steps=20)
        >>> density.kind, [round(value) for value in density.known.tolist()]
        ('estimated', [9, 8, 7, 6, 5])
        >>> abs(density.trace.value - 532.5) < 5 * density.trace.standard_error
        True
    """
    given = as_operator(operator)
    n = given.shape[0]
    for name, value in (("probes", probes), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise ValueError(f"{name} = {value!r} is not allowed; give a whole number, at least 2")
    vectors = known_vectors(pairs, given)
    dtype = torch_type(given) if torch_type(given).itemsize >= 4 else torch.float32
    if n <= min(probes * steps, DENSE_ORDER) or n - len(vectors) < 2:
        matrix = multiplied(given, torch.eye(n, dtype=dtype, device=given.device)).double().cpu()
        check_symmetric(matrix, torch_type(given))
        values = torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0)
        return SpectralDensity(n, values, 0, (), (), (), 0.0, "exact", n)
    known, v, bound = _known(given, vectors.to(dtype))
    steps = min(steps, n - len(v))
    generator = torch.Generator("cpu").manual_seed(seed)
    quadratures = [_lanczos(given, v, steps, generator, dtype) for _ in range(probes)]
    products = len(v) + sum(len(diagonal) for diagonal, _ in quadratures)
    full = [_quadrature(diagonal, beside) for diagonal, beside in quadratures]
    part = [_quadrature(diagonal[: -(-3 * len(diagonal) // 4)], beside) for diagonal, beside in quadratures]
    return SpectralDensity(
        n, known, steps, tuple(f[0] for f in full), tuple(f[1] for f in full), tuple(part), bound, "estimated", products
    )


def _known(operator: Operator, vectors: Tensor) -> tuple[Tensor, Tensor, float]:
    """Eigenvalues on the span of vectors, its orthonormal basis, and how far cutting it off moves eigenvalues at most.

    H minus its two diagonal blocks is [[0, C'], [C, 0]], whose norm is that of C (Weyl).
    """
    if not len(vectors):
        return torch.zeros(0, dtype=torch.float64, device="cpu"), vectors, 0.0
    v = torch.linalg.qr(vectors.T).Q.T.contiguous()
    w = multiplied(operator, v)
    projected = (w @ v.T).double().cpu()
    check_symmetric(projected, torch_type(operator))
    values = torch.linalg.eigvalsh((projected + projected.T) / 2).flip(0)
    return values, v, float(torch.linalg.matrix_norm(without(w, v).double().cpu(), ord=2))


def _lanczos(
    operator: Operator, known: Tensor, steps: int, generator: torch.Generator, dtype: torch.dtype
) -> tuple[list[float], list[float]]:
    """Diagonal (m,) and off-diagonal (m - 1,) of Lanczos from a random vector in the complement of orthonormal rows.

    m is below `steps` where the space is exhausted.
    """
    n = operator.shape[0]
    z = torch.randn(n, generator=generator, dtype=torch.float64, device="cpu").to(operator.device, dtype)[None]
    z = without(z, known)
    basis = torch.empty(steps, n, dtype=dtype, device=operator.device)
    basis[0] = z[0] / torch.linalg.vector_norm(z)
    diagonal: list[float] = []
    beside: list[float] = []
    largest = 0.0
    for j in range(steps):
        w = multiplied(operator, basis[j : j + 1])
        diagonal.append(float(basis[j].double() @ w[0].double()))
        check_finite(torch.tensor(diagonal[-1:], device="cpu"))
        largest = max(largest, float(torch.linalg.vector_norm(w)))
        # By symmetry a product has no part along earlier vectors but the last.
        along = (basis[:j] @ w[0]).double().cpu()
        expected = torch.zeros_like(along)
        expected[-1:] = torch.tensor(beside[-1:], dtype=torch.float64, device="cpu")
        if float((along - expected).norm()) > math.sqrt(torch.finfo(torch_type(operator)).eps) * largest:
            raise ValueError(
                "operator is not symmetric: Lanczos vectors and their products differ from their mirror images"
            )
        # Against the whole basis, since otherwise copies of eigenvalues appear.
        w = without(without(w, known), basis[: j + 1])
        beta = float(torch.linalg.vector_norm(w.double()))
        if j == steps - 1 or beta <= 100 * torch.finfo(dtype).eps * largest:
            break
        beside.append(beta)
        basis[j + 1] = w[0] / beta
    return diagonal, beside


def _quadrature(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the Gauss quadrature of a Lanczos recurrence."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64, device="cpu"))
    if len(diagonal) > 1:
        off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64, device="cpu")
        matrix += torch.diag(off, 1) + torch.diag(off, -1)
    nodes, columns = torch.linalg.eigh(matrix)
    return nodes, columns[0].square()


def _smoothed(points: Floats, nodes: Floats, weights: Floats, width: float) -> Floats:
    """Sum of Gaussians of this standard deviation at the nodes, (g,), in blocks."""
    total = np.zeros(len(points))
    for start in range(0, len(nodes), 256):
        distance = (points[:, None] - nodes[None, start : start + 256]) / width
        total += np.exp(-0.5 * distance**2) @ weights[start : start + 256]
    found: Floats = total / (width * math.sqrt(2 * math.pi))
    return found
