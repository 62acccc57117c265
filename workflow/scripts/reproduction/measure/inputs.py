"""What the computing scripts share: threads, device, network and data from a rule's parameters."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from eigendrift.scaling import Scaling
from reproduction.data.prepared import RawData, read_prepared
from reproduction.errors import ConfigError
from reproduction.files.arrays import ArrayFile
from reproduction.jobs.gpu import claim_gpu
from reproduction.progress import log
from reproduction.training.batches import Samples
from reproduction.training.compiled import compiled
from reproduction.training.model import initialize, mlp


def prepare_torch(threads: int, device: str) -> torch.device:
    """Fix what bit-identical results need, the number of threads among it, and give the device."""
    torch.set_num_threads(threads)
    if device != "cpu":
        claim_gpu()
    picked = pick_device(device)
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device: 'cuda', but torch finds no GPU here; allowed without one: cpu, auto")
    if picked.type == "cuda":
        be_deterministic()
    log.info("device %s, CUDA_VISIBLE_DEVICES %s", picked, os.environ.get("CUDA_VISIBLE_DEVICES", "not set"))
    return picked


def be_deterministic() -> None:
    """The same bits every time on a GPU. On a CPU all that is used here is deterministic anyway."""
    # cuBLAS is deterministic only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Would write NaN into all memory before its first use.
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False


def build_model(dataset: RawData, model: Mapping[str, Any], seed: int, device: torch.device) -> nn.Sequential:
    """The configured network for a data set, initialized from a seed of `stream_seed`."""
    network = mlp(dataset.train_inputs.shape[1], model["hidden"], dataset.n_classes, model["activation"])
    initialize(network, seed, model["init"], model["bias_init"])
    return network.to(device)


def load_samples(path: str, scaling: str, device: torch.device) -> tuple[RawData, Samples, Samples]:
    """A prepared data set, and its training and test samples on the device, scaled as fits the training set."""
    data = read_prepared(path)
    scaled = Scaling.fit(data.train_inputs, scaling)
    return (
        data,
        Samples(scaled(data.train_inputs), data.train_targets, device, data.train_inputs, scaled),
        Samples(scaled(data.test_inputs), data.test_targets, device),
    )


def data_sha256(path: str) -> dict[str, str]:
    """Checksums of the arrays of a prepared data set, for the key of a scratch folder."""
    return ArrayFile(path, kind="data").sha256


def numerical_environment(device: torch.device, threads: int) -> dict[str, Any]:
    """What bit-identical results depend on besides their inputs: device, versions of torch and numba, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    loops = compiled(torch.empty(0, device=device))
    compiler = "not used" if loops is None else loops.numba.__version__
    return {"device": name, "torch": torch.__version__, "numba": compiler, "threads": threads}


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; cpu and cuda are themselves."""
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
