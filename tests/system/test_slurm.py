"""profiles/slurm on a real cluster: the same tables as a local run, and what SLURM was asked for.

Snakemake starts anew in each job, which takes most of the time here. So it is one data set's runs of one seed that are
made on the cluster, and what is drawn from them, with every kind of rule.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import TinyRun
from slurm_cluster import ASKING_OFTEN, MODEL, QUICK, Node, SlurmCluster, edit_profile, running_cluster
from snakemake_process import TINY, Finished, jobs_begun, run_snakemake

from reproduction.experiment.config import validate
from reproduction.experiment.resources import JobResources
from reproduction.experiment.runs import Experiment, Run
from reproduction.experiment.table_catalogue import KEPT_TABLES
from reproduction.files.eigenpairs import read_pairs, read_run
from reproduction.measure.inputs import unusable_gpu

# A group is called by its name and by those of its rules.
TRAININGS, CHUNKS = "trainings_train", "chunks_eigensnapshot"
NETWORKS, TABLES = "networks_baseline_interpolation", "tables_alignment_displacement_ipr"
REPORT = "report_claims_fig01_fig08_fig16"
# What the cluster makes, in results/tiny.
REMADE = ("runs/digits/*/main/seed0", "baseline/digits.*", "interpolation/digits.*", "benchmarks", "claims")
REMADE += ("figures/fig01.*", "figures/fig08.*", "figures/fig16.*")
ON_GPUS = {TRAININGS, CHUNKS, NETWORKS}


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    nodes = [Node("cpu1", 1), Node("cpu2", 1), *(Node(f"gpu{number}", 1, gpus=1) for number in (1, 2, 3, 4))]
    with running_cluster(nodes) as started:
        yield started


@dataclass(frozen=True)
class SlurmRun:
    """The tiny workflow, run through the profile: where, what Snakemake said, what SLURM says of its jobs."""

    folder: Path
    finished: Finished
    jobs: list[dict[str, str]]

    def jobs_of(self, name: str) -> dict[str, dict[str, str]]:
        """Wildcards -> job, of a rule or a group."""
        found = {}
        for job in self.jobs:
            match = re.fullmatch(rf"rule_{re.escape(name)}(?:_wildcards_(.*))?", job["Comment"])
            if match:
                found[match[1] or job["JobId"]] = job
        return found


@pytest.fixture(scope="module")
def slurm_run(cluster: SlurmCluster, tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> SlurmRun:
    folder = shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("slurm") / "checkout", symlinks=True)
    edit_profile(folder)
    for made in REMADE:
        for path in (folder / "results" / "tiny").glob(made):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    arguments = ("--profile", "profiles/slurm", *QUICK, *TINY, "--", "fig01", "fig08", "fig16", "claims")
    before = len(cluster.jobs())
    finished = run_snakemake(folder, *arguments, timeout=1200, program=ASKING_OFTEN, **cluster.environment)
    return SlurmRun(folder, finished, cluster.jobs()[before:])


@pytest.fixture(scope="module")
def resources(root: Path) -> JobResources:
    """What the tiny experiment asks for, from the configuration."""
    config = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    for key, value in yaml.safe_load((root / "tests" / "tiny.yaml").read_text(encoding="utf-8")).items():
        if isinstance(value, dict):
            config[key].update(value)
        else:
            config[key] = value
    config["sweeps"]["batch_size"] = {"full": 20}
    config["sweeps"]["learning_rate"] = {0.3: 30}
    return JobResources(Experiment(validate(config)))


def megabytes(job: dict[str, str]) -> int:
    """Memory that a job was given, in SLURM's megabytes."""
    number, unit = re.fullmatch(r"([\d.]+)([MG])", job["MinMemoryNode"]).groups()  # type: ignore[union-attr]
    return round(float(number) * {"M": 1, "G": 1024}[unit])


def minutes(job: dict[str, str]) -> int:
    """Time limit of a job."""
    days, clock = re.fullmatch(r"(?:(\d+)-)?(\d\d:\d\d:00)", job["TimeLimit"]).groups()  # type: ignore[union-attr]
    hour, minute, _ = map(int, clock.split(":"))
    return (int(days or 0) * 24 + hour) * 60 + minute


def test_the_results_are_those_of_a_local_run(slurm_run: SlurmRun, tiny_run: TinyRun) -> None:
    remade = [path for made in REMADE for path in tiny_run.results.glob(made)]
    files = [file for path in remade for file in (path.rglob("*") if path.is_dir() else [path])]
    # No figure asks for the tables that later questions need, so that this run of four targets does not make them.
    wanted = [file for file in files if file.stem not in KEPT_TABLES and file.suffix in (".csv", ".safetensors", ".md")]
    compared = [file.relative_to(tiny_run.results) for file in wanted]
    assert len(compared) > 25
    for name in compared:
        made = slurm_run.folder / "results" / "tiny" / name
        assert made.stat().st_mtime_ns > (tiny_run.results / name).stat().st_mtime_ns, name
        assert made.read_bytes() == (tiny_run.results / name).read_bytes(), name


def test_every_job_ended_well_and_only_once(slurm_run: SlurmRun) -> None:
    for job in slurm_run.jobs:
        assert (job["JobState"], job["Restarts"], job["ExitCode"]) == ("COMPLETED", "0", "0:0"), job


def test_gpu_rules_get_one_gpu_each_on_gpu_nodes_and_the_others_none(slurm_run: SlurmRun) -> None:
    found = set()
    for job in slurm_run.jobs:
        name = re.sub(r"_wildcards_.*", "", job["Comment"].removeprefix("rule_"))
        found.add(name)
        if name in ON_GPUS:
            asked, partition = "gres:gpu:1", "gpu"
        else:
            asked, partition = None, "cpu"
        assert job.get("TresPerJob") == asked, job
        assert "TresPerNode" not in job, job
        assert job["Partition"] == partition, job
        assert job["NodeList"].startswith(partition), job
    assert found == ON_GPUS | {TABLES, REPORT}


def test_every_job_gets_one_processor_on_one_node(slurm_run: SlurmRun) -> None:
    assert {(job["NumNodes"], job["NumCPUs"], job["CPUs/Task"]) for job in slurm_run.jobs} == {("1", "1", "1")}


def test_jobs_share_a_submission_in_which_memory_is_the_largest_and_time_the_sum(
    slurm_run: SlurmRun, resources: JobResources
) -> None:
    runs = resources.experiment.of_dataset("digits", seeds="dense")
    assert len(runs) == 3

    def asked(name: str) -> tuple[int, int]:
        (job,) = slurm_run.jobs_of(name).values()
        return megabytes(job), minutes(job)

    assert asked(TRAININGS) == (max(map(resources.train_megabytes, runs)), sum(map(resources.train_minutes, runs)))
    assert asked(CHUNKS) == (max(map(resources.eigen_megabytes, runs)), sum(map(resources.eigen_minutes, runs)))
    assert asked(TABLES) == (max(map(resources.metric_megabytes, runs)), 3 * len(runs) * 10)
    lines = resources.interpolation_minutes("digits")
    assert asked(NETWORKS) == (resources.baseline_megabytes("digits"), resources.baseline_minutes("digits") + lines)
    assert asked(REPORT) == (3000, 3 * 5 + 30)


def test_what_is_asked_for_is_more_than_the_benchmark_files_say_was_used(
    slurm_run: SlurmRun, resources: JobResources
) -> None:
    results, compared = slurm_run.folder / "results" / "tiny", 0
    for run in resources.experiment.of_dataset("digits", seeds="dense"):
        name = f"{run.dataset}.{run.optimizer}.{run.variant}.{run.seed}"
        for file, most_megabytes, most_minutes in (
            (f"train/{name}", resources.train_megabytes(run), resources.train_minutes(run)),
            (f"eigensnapshot/{name}.0", resources.eigen_megabytes(run), resources.eigen_minutes(run)),
            *((f"{rule}/{name}", resources.metric_megabytes(run), 10) for rule in ("displacement", "ipr", "alignment")),
        ):
            used = pd.read_csv(results / "benchmarks" / f"{file}.tsv", sep="\t").iloc[0]
            assert used["s"] < 60 * most_minutes, file
            assert 0 < used["max_rss"] < most_megabytes, file
            compared += 1
    assert compared > 5


@pytest.mark.parametrize(
    ("written", "recorded"),
    [
        ({"gpu_model": MODEL}, {"TresPerJob": f"gres:gpu:{MODEL}:1"}),
        ({"gres": f"gpu:{MODEL}:1"}, {"TresPerNode": f"gres:gpu:{MODEL}:1"}),
    ],
)
def test_a_site_can_ask_for_gpus_in_its_own_form(
    cluster: SlurmCluster, checkout: Path, resources: JobResources, written: dict[str, str], recorded: dict[str, str]
) -> None:
    edit_profile(checkout, **written)
    before = len(cluster.jobs())
    target = "results/tiny/runs/digits/sgd/main/seed0/history.csv"
    run_snakemake(checkout, "--profile", "profiles/slurm", *QUICK, *TINY, "--", target, **cluster.environment)
    # What needs the network has run, and was not submitted: the cluster has one job more.
    assert jobs_begun(checkout, "prepare_data") == 1
    (job,) = cluster.jobs()[before:]
    assert {name: job[name] for name in ("TresPerJob", "TresPerNode") if name in job} == recorded
    assert (job["Partition"], job["JobState"]) == ("gpu", "COMPLETED")
    # Alone in its submission, the job has asked for what its rule declares.
    run = Run("digits", "sgd", "main", 0)
    assert (megabytes(job), minutes(job)) == (resources.train_megabytes(run), resources.train_minutes(run))


def test_the_chunks_of_one_run_spread_over_nodes_and_run_at_one_time(
    cluster: SlurmCluster,
    finished_checkout: Path,
    tiny_run: TinyRun,
    overlay: Callable[[str], str],
    resources: JobResources,
) -> None:
    edit_profile(finished_checkout)
    run = Run("digits", "sgd", "main", 0)
    path = overlay(f"eigen: {{snapshots_per_job: {-(-len(resources.experiment.snapshots(run)) // 4)}}}")
    targets = [f"results/tiny/runs/{run.folder}/eigenpairs-{chunk}.safetensors" for chunk in range(4)]
    # The profile shares out many runs; this is one, which wants to be spread.
    arguments = ("--profile", "profiles/slurm", "--group-components", "chunks=1", *QUICK, *TINY, path, "--", *targets)
    before = len(cluster.jobs())
    run_snakemake(finished_checkout, *arguments, program=ASKING_OFTEN, **cluster.environment)
    jobs = cluster.jobs()[before:]
    assert [job["JobState"] for job in jobs] == ["COMPLETED"] * 4
    assert {job["NodeList"] for job in jobs} == {"gpu1", "gpu2", "gpu3", "gpu4"}
    assert max(job["StartTime"] for job in jobs) < min(job["EndTime"] for job in jobs)
    # Cut into chunks or not, the vectors are the same bits.
    _, whole = read_pairs(tiny_run.folder / targets[0])
    _, joined = read_run([finished_checkout / target for target in targets])
    np.testing.assert_array_equal(joined, whole, strict=True)


def failure(checkout: Path, cluster: SlurmCluster, *arguments: str) -> list[str]:
    """What is said of the failed training of one run, apart from Snakemake's own blocks."""
    target = "results/tiny/runs/digits/sgd/main/seed0/history.csv"
    tried = ("--profile", "profiles/slurm", "--retries", "0", *QUICK, *TINY, *arguments, "--", target)
    finished = run_snakemake(checkout, *tried, check=False, program=ASKING_OFTEN, **cluster.environment)
    assert finished.status == 1
    return [line for line in finished.output.splitlines() if line.startswith("train: ") and "SLURM" in line]


def test_a_job_that_slurm_does_not_take_is_one_line(cluster: SlurmCluster, checkout: Path) -> None:
    edit_profile(checkout)
    said = failure(checkout, cluster, "--set-resources", "train:slurm_partition=nowhere")
    assert said == ["train: SLURM did not take the job: sbatch: error: invalid partition specified: nowhere"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the job does not fail")
def test_a_job_that_fails_on_its_node_is_one_line(cluster: SlurmCluster, checkout: Path) -> None:
    edit_profile(checkout)
    (line,) = failure(checkout, cluster, "--config", "training={device: cuda}")
    what = f"training.device: 'cuda', but torch finds no GPU here ({unusable_gpu()}); allowed without one: cpu, auto"
    log = "results/tiny/logs/train/digits.sgd.main.0.log"
    assert line == f"train: {what} (log: {log}, SLURM job {cluster.jobs()[-1]['JobId']})"
    assert what in (checkout / log).read_text(encoding="utf-8")
