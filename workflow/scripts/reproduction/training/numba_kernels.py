"""Loops of training on one core, compiled by numba: one pass over memory where torch's operators take several.

They compute the same as the operators, up to rounding. `training.compiled` says where they are used.
"""

from collections.abc import Callable
from typing import Any, TypeVar
from zlib import crc32

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

Loop = TypeVar("Loop", bound=Callable[..., None])
# Prefetch distance in rows; 2 to 16 perform alike.
AHEAD = 4
_LINE = 64
_PROCESSOR = crc32((binding.get_host_cpu_name() + binding.get_host_cpu_features().flatten()).encode())


def _loop(*liberties: str) -> Callable[[Loop], Loop]:
    """Compile a function at its first call for the types it gets; `liberties` are LLVM's fast-math flags."""

    def compile_lazily(function: Loop) -> Loop:
        # The name of the function is part of the key of numba's cache, which ignores the model of the processor: jobs
        # on different nodes of a cluster would otherwise load each other's instructions.
        function.__qualname__ += f"-{_PROCESSOR}"
        settings: dict[str, Any] = {"error_model": "numpy", "fastmath": set(liberties)}
        try:
            made: Loop = numba.njit(function, cache=True, **settings)
        except RuntimeError:
            # There is no folder for the cache, so that every process compiles for itself, for some seconds.
            made = numba.njit(function, **settings)
        return made

    return compile_lazily


def _prefetch(typing_context: Any, array: Any, offset: Any) -> tuple[Any, Callable[..., Any]]:
    """Ask for the cache line of byte `offset` of a contiguous array of bytes, and do not wait for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: tuple[Any, Any]) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(cgutils.pointer_add(builder, data, arguments[1]), cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[cgutils.int32_t] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # The arguments of llvm.prefetch: for reading, with little temporal locality, of data.
        builder.call(function, [address, *(cgutils.int32_t(each) for each in (0, 1, 1))])
        return context.get_dummy_value()

    return types.void(array, offset), generate


prefetch: Any = intrinsic(_prefetch)


@_loop()
def fetch(
    inputs: np.ndarray,
    targets: np.ndarray,
    pixels: np.ndarray,
    classes: np.ndarray,
    shift: np.ndarray,
    factor: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """inputs = (pixels - shift) * factor and targets = classes for the `chosen` (n,) of the samples.

    inputs (n, d), targets (n,), pixels (samples, d) uint8 and contiguous, classes (samples,), shift and factor (d,).
    """
    n, d = inputs.shape
    for i in range(-AHEAD, n):
        if i + AHEAD < n:
            start = chosen[i + AHEAD] * d
            # A prefetch past the end of the row, and of the array, has no effect.
            for offset in range(start, start + d + _LINE, _LINE):
                prefetch(pixels, offset)
        if i < 0:
            continue
        row = chosen[i]
        targets[i] = classes[row]
        for j in range(d):
            inputs[i, j] = (inputs.dtype.type(pixels[row, j]) - shift[j]) * factor[j]


@_loop()
def relu(z: np.ndarray, bias: np.ndarray) -> None:
    """z = max(z + bias, 0) in place: z (width, n), bias (width,). A NaN stays one."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            shifted = z[i, j] + bias[i]
            z[i, j] = z.dtype.type(0) if shifted <= 0 else shifted


# Sums may be reordered, so that the processor adds several parts at once.
@_loop("reassoc")
def relu_backward(error: np.ndarray, a: np.ndarray, sums: np.ndarray) -> None:
    """error = dL/dz of a ReLU from dL/da in place, and sums = its sums over the samples.

    error and a = phi(z) (width, n), sums (width,).
    """
    for i in range(error.shape[0]):
        total = error.dtype.type(0)
        for j in range(error.shape[1]):
            delta = error.dtype.type(0) if a[i, j] <= 0 else error[i, j]
            error[i, j] = delta
            total += delta
        sums[i] = total


@_loop("reassoc")
def cross_entropy_backward(
    z: np.ndarray, bias: np.ndarray, targets: np.ndarray, error: np.ndarray, sums: np.ndarray
) -> None:
    """error = dL/dz of the mean cross-entropy of softmax(z + bias), and sums = its sums over the samples.

    z (classes, n), which is overwritten, bias (classes,), targets (n,), error (classes, n), sums (classes,).
    """
    classes, n = z.shape
    top, total = np.full(n, -np.inf, z.dtype), np.zeros(n, z.dtype)
    for i in range(classes):
        for j in range(n):
            z[i, j] += bias[i]
            top[j] = max(top[j], z[i, j])
    for i in range(classes):
        for j in range(n):
            error[i, j] = np.exp(z[i, j] - top[j])
            total[j] += error[i, j]
    part = z.dtype.type(1) / z.dtype.type(n)
    for i in range(classes):
        of_class = z.dtype.type(0)
        for j in range(n):
            delta = part * (error[i, j] / total[j])
            if targets[j] == i:
                delta -= part
            error[i, j] = delta
            of_class += delta
        sums[i] = of_class


@_loop()
def adam(
    gradient: np.ndarray,
    theta: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    count: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One step of Adam on all elements: gradient, theta, mean and square (N,), count (1,) of the steps taken.

    The corrections of the bias are in the rate and in epsilon, which saves a division an element (Kingma and Ba 2015,
    end of section 2): sqrt(1 - beta2^t) / (1 - beta1^t) times lr, and sqrt(1 - beta2^t) times epsilon.
    """
    count[0] += 1
    real = theta.dtype.type
    left = np.sqrt(1 - beta2 ** count[0])
    rate, least, decay = real(lr * left / (1 - beta1 ** count[0])), real(eps * left), real(weight_decay)
    of_mean, of_gradient, of_square, of_gradient_squared = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2)
    for i in range(theta.shape[0]):
        g = gradient[i] + decay * theta[i]
        # In variables of their own: reading them back from the arrays would prevent vectorization.
        m = of_mean * mean[i] + of_gradient * g
        v = of_square * square[i] + of_gradient_squared * g * g
        mean[i] = m
        square[i] = v
        theta[i] -= rate * m / (np.sqrt(v) + least)
