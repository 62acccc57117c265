"""Upper bounds on memory and time of a job, from the sizes of its run: the resources that a cluster is asked for."""

import math
import os

from reproduction.experiment.labels import MAIN
from reproduction.experiment.runs import Experiment, Run

# An interpreter with torch; CUDA's libraries map more memory, which counts on some clusters.
TORCH_MB = 1500
# A process that uses a GPU: its context, torch's kernels, workspaces of cuBLAS.
CUDA_MB = 1000
# Far below the matrix products of any device in use (a GPU in float64), so that no job runs into its time limit.
FLOPS_PER_SECOND = {"cpu": 15e9, "auto": 15e9, "cuda": 150e9}
# Products for one pair, more than a solve takes at tolerances of 1e-3 and 1e-6.
PRODUCTS_PER_PAIR = 8
# Memory of the graphs that are kept for an activation without an analytic path (autograd.GRAPH_BYTES).
GRAPH_MB = 2200


class JobResources:
    """Upper estimates in MB (10^6 bytes) and minutes."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.flops_per_second = FLOPS_PER_SECOND[experiment.config["training"]["device"]]

    def _row_bytes(self, run: Run) -> int:
        return 4 * self.experiment.n_parameters(run.dataset, run.variant)

    def _data_megabytes(self, dataset: str, variant: str = MAIN) -> int:
        samples, inputs = self.experiment.records[dataset].samples, self.experiment.records[dataset].inputs
        # 8-bit pixels of both sets, their float32 inputs twice while they are scaled, the activations that are kept.
        kept = self.experiment.network(dataset, variant).values_kept(samples)
        return math.ceil((samples * 1.2 * inputs * (1 + 8) + 4 * kept) / 1e6)

    def _graph_megabytes(self, dataset: str, variant: str = MAIN) -> int:
        return GRAPH_MB if self.experiment.network(dataset, variant).keeps_graph else 0

    def _product_flops(self, dataset: str, variant: str = MAIN) -> float:
        return self.experiment.network(dataset, variant).product_flops(self.experiment.records[dataset].samples)

    def train_megabytes(self, run: Run) -> int:
        """Training: the trajectory is on disk while it grows and passes through memory at the end."""
        rows = len(self.experiment.snapshots(run))
        return (
            TORCH_MB + self._data_megabytes(run.dataset, run.variant) + math.ceil(4 * rows * self._row_bytes(run) / 1e6)
        )

    def train_minutes(self, run: Run) -> int:
        """Training: two gradients a step (more than one only under SAM), and a full evaluation at each snapshot."""
        if self.experiment.is_recorded:
            product = self._product_flops(run.dataset) / self.flops_per_second
            return _minutes(len(self.experiment.snapshots(run)) * product)
        identity, network = self.experiment.identity(run), self.experiment.network(run.dataset, run.variant)
        step = 2 * network.gradient_flops(identity["batch_size"])
        evaluation = 1.2 * network.forward_flops(identity["n_train"])
        # Five milliseconds a step are Python and the optimizer, whatever the size.
        seconds = identity["steps"] * (step / self.flops_per_second + 5e-3)
        return _minutes(seconds + len(self.experiment.snapshots(run)) * evaluation / self.flops_per_second)

    def _chunk_pairs(self, run: Run) -> tuple[int, int]:
        parameters = self.experiment.eigen_parameters(run)
        snapshots = min(len(self.experiment.snapshots(run)), parameters["snapshots_per_job"])
        k: int = parameters.get("dense", parameters)["k"]
        return snapshots, k

    def eigen_megabytes(self, run: Run) -> int:
        """Eigenpairs of one chunk: the run's weights, the chunk's vectors, the solver's basis and its products."""
        snapshots, k = self._chunk_pairs(run)
        rows = len(self.experiment.snapshots(run)) + 2 * snapshots * k + 4 * max(2 * k + 40, 60)
        # float32, and a copy in float64 for tight tolerances.
        data = 3 * self._data_megabytes(run.dataset, run.variant) + self._graph_megabytes(run.dataset, run.variant)
        return TORCH_MB + data + math.ceil(rows * self._row_bytes(run) / 1e6)

    def gpu_megabytes(self, run: Run) -> int:
        """Of the memory of a GPU, training or eigenpairs: data and activations of all samples, the solver's basis."""
        _, k = self._chunk_pairs(run)
        data = self._data_megabytes(run.dataset, run.variant) + self._graph_megabytes(run.dataset, run.variant)
        basis = 4 * max(2 * k + 40, 60) * self._row_bytes(run) / 1e6
        # In float32 and, for tight tolerances, in float64.
        return CUDA_MB + 3 * (data + math.ceil(basis))

    def eigen_minutes(self, run: Run) -> int:
        """Eigenpairs of one chunk."""
        snapshots, k = self._chunk_pairs(run)
        product = self._product_flops(run.dataset, run.variant) / self.flops_per_second
        return _minutes(snapshots * (k + 3) * PRODUCTS_PER_PAIR * product)

    def baseline_megabytes(self, dataset: str, variant: str = MAIN) -> int:
        """The baseline, and the interpolation, which keeps less."""
        return self._networks_megabytes(dataset, self.experiment.config["baseline"]["initializations"], variant)

    def permuted_megabytes(self, dataset: str) -> int:
        """The permuted networks of one optimizer at a time."""
        return self._networks_megabytes(dataset, self.experiment.config["baseline"]["permutations"])

    def _networks_megabytes(self, dataset: str, count: int, variant: str = MAIN) -> int:
        vectors: int = self.experiment.config["eigen"]["k"] * count
        row = 4 * self.experiment.n_parameters(dataset, variant)
        data = self._data_megabytes(dataset, variant) + self._graph_megabytes(dataset, variant)
        return TORCH_MB + data + math.ceil((vectors + 200) * row / 1e6)

    def baseline_minutes(self, dataset: str, variant: str = MAIN) -> int:
        """The baseline's solves."""
        return self._networks_minutes(dataset, self.experiment.config["baseline"]["initializations"], variant)

    def permuted_minutes(self, dataset: str) -> int:
        """The solves at the permuted networks of all optimizers."""
        networks = len(self.experiment.config["optimizers"]) * self.experiment.config["baseline"]["permutations"]
        return self._networks_minutes(dataset, networks)

    def _networks_minutes(self, dataset: str, count: int, variant: str = MAIN) -> int:
        k = self.experiment.config["eigen"]["k"]
        product = self._product_flops(dataset, variant) / self.flops_per_second
        return _minutes(count * (k + 3) * PRODUCTS_PER_PAIR * product)

    def interpolation_minutes(self, dataset: str) -> int:
        """Losses on all lines, and the searches of the epsilon-sharpness at some 40 gradients each."""
        config = self.experiment.config
        optimizers, points = len(config["optimizers"]), config["interpolation"]["points"]
        searches = optimizers * len(config["interpolation"]["epsilon"]) * 40 * 3
        forward = 1.2 * self.experiment.network(dataset).forward_flops(self.experiment.records[dataset].samples)
        evaluations = optimizers * (optimizers - 1) // 2 * points + searches
        return _minutes(evaluations * forward / self.flops_per_second)

    def metric_megabytes(self, run: Run) -> int:
        """A metric rule: the trajectory's arrays and the vectors of up to k pairs, or one chunk of all pairs."""
        snapshots, k = self._chunk_pairs(run)
        rows = len(self.experiment.snapshots(run))
        vectors: int = 2 * max(rows * self.experiment.config["eigen"]["k"], snapshots * k)
        return 800 + math.ceil((2 * rows + vectors) * self._row_bytes(run) / 1e6)

    def mapped_megabytes(self, run: Run) -> int:
        """A metric rule that maps all vectors and holds those of a few snapshots, in float64."""
        rows = 32 * self.experiment.most_pairs(run)
        return 800 + math.ceil(2 * rows * self._row_bytes(run) / 1e6)


def gpus(device: str) -> int:
    """GPUs that a computing job asks for; none where `auto` finds none."""
    return int(device == "cuda" or (device == "auto" and os.path.exists("/dev/nvidiactl")))


def _minutes(seconds: float) -> int:
    return 10 + math.ceil(seconds / 60)
