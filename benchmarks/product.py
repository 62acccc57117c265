"""One Hessian-vector product against the machine's matrix-product rate, and blocks of vectors against single ones."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import pandas as pd
import torch
from torch import nn

from benchmarks.double_backward import DoubleBackward
from benchmarks.problem import load, network, product_flops
from benchmarks.rate import flops, matrix_product_forms
from benchmarks.results import arguments, scale_of, write
from benchmarks.timing import interleaved
from eigendrift import HessianOperator
from eigendrift.hessian.mlp import MLPHessian


def main(argv: Sequence[str] | None = None) -> None:
    """Time all in the same interleaved rounds."""
    given = arguments(__doc__, argv)
    scale = scale_of(given)
    data = load(scale.dataset)
    inputs, targets = data.tensors()
    model = network(data, scale.hidden)
    operator = HessianOperator(model, nn.CrossEntropyLoss(), inputs, targets)
    n_parameters = operator.shape[0]
    generator = torch.Generator().manual_seed(1)
    blocks = {b: torch.randn(n_parameters, b, generator=generator) for b in scale.block_sizes}
    width = scale.hidden[0]
    forms = matrix_product_forms(inputs, width)
    products: dict[str, Callable[[], object]] = {
        f"H V, b = {b}": partial(operator.product, block.T.contiguous()) for b, block in blocks.items()
    }
    times = interleaved({**forms, **products}, scale.repeats)
    rate = flops(inputs, width) / min(times[name].median for name in forms)
    assert isinstance(operator.path, MLPHessian)
    dense, one = product_flops(data, scale.hidden), operator.path.flops
    work = {name: flops(inputs, width) for name in forms} | {f"H V, b = {b}": b * one for b in blocks}
    single = times["H V, b = 1"].median
    rows = [
        {
            "task": name,
            "needed_GFLOP": work[name] / 1e9,
            "dense_GFLOP": (dense / one if name in products else 1) * work[name] / 1e9,
            "seconds": timing.median,
            "best_seconds": timing.best,
            "noise": timing.noise,
            "GFLOP_per_second": work[name] / timing.median / 1e9,
            "of_machine_rate": work[name] / timing.median / rate,
            "of_dense_rate": (dense / one if name in products else 1) * work[name] / timing.median / rate,
            "seconds_of_single_ones": work[name] / one * single if name in products else float("nan"),
        }
        for name, timing in times.items()
    ]
    write(given.output, "product", pd.DataFrame(rows))
    vector = blocks[1][:, 0]
    exact = DoubleBackward(deepcopy(model).double(), inputs, targets, rows=2000)(vector.double())
    common = DoubleBackward(model, inputs, targets, rows=2000)(vector)
    write(given.output, "product_error", _errors({"eigendrift": operator @ vector, "double backward": common}, exact))


def _errors(found: dict[str, torch.Tensor], exact: torch.Tensor) -> pd.DataFrame:
    """Relative errors of float32 products against double backward in float64."""
    return pd.DataFrame(
        [
            {"product": name, "relative_error": float((each.double() - exact).norm() / exact.norm())}
            for name, each in found.items()
        ]
    )


if __name__ == "__main__":
    main()
