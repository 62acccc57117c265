"""What the computing scripts share: threads, device, network and data from a rule's parameters."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eigendrift.scaling import Scaling
from reproduction.data.prepared import RawData, read_prepared
from reproduction.errors import ConfigError
from reproduction.experiment.importable import load
from reproduction.experiment.own_model import ANSWERS
from reproduction.files.arrays import ArrayFile
from reproduction.jobs.gpu import claim_gpu, visible_gpus, wanted_device
from reproduction.jobs.script import one_or_more
from reproduction.progress import log
from reproduction.training.batches import Samples
from reproduction.training.compiled import compiled
from reproduction.training.model import initialize, mlp


def prepare_torch(job: Any) -> torch.device:
    """Fix what bit-identical results need, the number of threads among it, and give the device.

    `job`: the script's `snakemake`, of which threads, configuration and resources count.
    """
    torch.set_num_threads(job.threads)
    device = wanted_device(job)
    if device != "cpu":
        claim_gpu(job.config["training"].get("jobs_per_gpu", 1))
    picked = pick_device(device)
    if picked.type == "cuda":
        if (reason := unusable_gpu()) is not None:
            raise ConfigError(
                f"training.device: 'cuda', but torch finds no GPU here ({reason}); allowed without one: cpu, auto"
            )
        be_deterministic()
    elif device == "auto" and visible_gpus(os.environ) and (reason := unusable_gpu()) is not None:
        log.info(
            "torch cannot use the GPU of this machine (%s); with training.device: cpu, jobs run side by side", reason
        )
    log.info("device %s, CUDA_VISIBLE_DEVICES %s", picked, os.environ.get("CUDA_VISIBLE_DEVICES", "not set"))
    return picked


def unusable_gpu() -> str | None:
    """Why torch cannot compute on a GPU, in one line of its own words; None where it can."""
    try:
        torch.cuda.init()
    except Exception as error:  # of several kinds: no driver, an older one, a torch without CUDA
        return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
    return None


def be_deterministic() -> None:
    """The same bits every time on a GPU. On a CPU all that is used here is deterministic anyway."""
    # cuBLAS is deterministic only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Would write NaN into all memory before its first use.
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False


def make_model(model: Mapping[str, Any], image_shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """The configured network for data of this kind, initialized from a seed of `stream_seed`."""
    if "module" in model:
        # By its name, so that it is code of those jobs alone that need it.
        made: nn.Module = load(f"{ANSWERS}:make")(model, image_shape, classes, seed)
        return made
    network = mlp(math.prod(image_shape), model["hidden"], classes, model["activation"])
    initialize(network, seed, model["init"], model["bias_init"])
    return network


def build_model(dataset: RawData, model: Mapping[str, Any], seed: int, device: torch.device) -> nn.Module:
    """The configured network for a data set, on the device."""
    return make_model(model, dataset.image_shape, dataset.n_classes, seed).to(device)


def check_size(model: nn.Module, expected: int) -> None:
    """`ConfigError` for a network of the user's own that has another size here than where the workflow was planned."""
    found = sum(p.numel() for p in model.parameters())
    if found != expected:
        raise ConfigError(
            f"config: model: the network has {found} parameters here, and {expected} where Snakemake read the "
            "configuration; what it is made of must not depend on the machine"
        )


def own_code(inputs: Any) -> dict[str, Any]:
    """Checksums of the user's own code among a job's inputs, for the key of its scratch folder; empty without any."""
    files = [file for name in ("own_code", "optimizer") for file in one_or_more(getattr(inputs, name, []))]
    sums = {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}
    return {"own_code": sums} if sums else {}


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
