"""profiles/slurm on a real cluster: the same tables as a local run, and what SLURM was asked for."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import TinyRun
from slurm_cluster import MODEL, QUICK, Node, SlurmCluster, edit_profile, running_cluster
from snakemake_process import TINY, Finished, copy_checkout, run_snakemake

from eigendrift.config import validate
from eigendrift.needs import Needs
from eigendrift.runs import Experiment

# A group is called by its name and by those of its rules.
CHUNKS, TABLES = "chunks_eigensnapshot", "tables_alignment_displacement_ipr"
REPORT = "report_claims_fig01_fig02_fig03_fig04_..."
ON_GPUS = {"train", CHUNKS, "baseline", "interpolation"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    nodes = (Node("cpu1", 1), Node("cpu2", 1), Node("gpu1", 1, gpus=2), Node("gpu2", 1, gpus=1))
    with running_cluster(tmp_path_factory.mktemp("slurm"), nodes) as started:
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
def slurm_run(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> SlurmRun:
    folder = copy_checkout(tmp_path_factory.mktemp("slurm") / "checkout")
    edit_profile(folder)
    before = len(cluster.jobs())
    finished = run_snakemake(folder, "--profile", "profiles/slurm", *QUICK, *TINY, timeout=1200, **cluster.environment)
    return SlurmRun(folder, finished, cluster.jobs()[before:])


@pytest.fixture(scope="module")
def needs(root: Path) -> Needs:
    """What the tiny experiment asks for, from the configuration."""
    config = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    for key, value in yaml.safe_load((root / "tests" / "tiny.yaml").read_text(encoding="utf-8")).items():
        if isinstance(value, dict):
            config[key].update(value)
        else:
            config[key] = value
    config["sweeps"]["batch_size"] = {"full": 20}
    config["sweeps"]["learning_rate"] = {0.3: 30}
    return Needs(Experiment(validate(config)))


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
    results = slurm_run.folder / "results" / "tiny"
    names = [path.relative_to(tiny_run.results) for path in tiny_run.results.rglob("*")]
    compared = [name for name in names if name.suffix in (".csv", ".safetensors", ".md")]
    assert len(compared) > 150
    for name in compared:
        assert (results / name).read_bytes() == (tiny_run.results / name).read_bytes(), name


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


def test_memory_and_time_are_those_that_the_rules_declare(slurm_run: SlurmRun, needs: Needs) -> None:
    runs = list(needs.experiment)
    trained = slurm_run.jobs_of("train")
    assert len(trained) == len(runs)
    for run in runs:
        job = trained[f"{run.dataset}_{run.optimizer}_{run.variant}_{run.seed}"]
        assert (megabytes(job), minutes(job)) == (needs.train_megabytes(run), needs.train_minutes(run)), run
    for dataset in ("digits", "digits_noisy"):
        job = slurm_run.jobs_of("baseline")[dataset]
        assert (megabytes(job), minutes(job)) == (needs.baseline_megabytes(dataset), needs.baseline_minutes(dataset))
        job = slurm_run.jobs_of("interpolation")[dataset]
        assert minutes(job) == needs.interpolation_minutes(dataset)


def test_short_jobs_share_a_submission_in_which_memory_is_the_largest_and_time_the_sum(
    slurm_run: SlurmRun, needs: Needs
) -> None:
    runs = list(needs.experiment)
    chunks = slurm_run.jobs_of(CHUNKS)
    assert len(chunks) == len(runs) / 2
    assert sum(map(minutes, chunks.values())) == sum(map(needs.eigen_minutes, runs))
    assert max(map(megabytes, chunks.values())) == max(map(needs.eigen_megabytes, runs))
    tables = slurm_run.jobs_of(TABLES)
    assert len(tables) == 2
    assert sum(map(minutes, tables.values())) == 3 * len(runs) * 10
    assert max(map(megabytes, tables.values())) == max(map(needs.metric_megabytes, runs))
    (report,) = slurm_run.jobs_of(REPORT).values()
    assert (megabytes(report), minutes(report)) == (3000, 21 * 5 + 30 + 20)


def test_what_needs_the_network_is_not_submitted(slurm_run: SlurmRun) -> None:
    assert not slurm_run.jobs_of("prepare_data")
    assert slurm_run.finished.output.count("localrule prepare_data:") == 2
    counted = Counter(re.findall(r"^rule (\w+):", slurm_run.finished.output, re.M))
    assert counted["train"] == 18


@pytest.mark.parametrize(
    ("written", "recorded"),
    [
        ({"gpu_model": MODEL}, {"TresPerJob": f"gres:gpu:{MODEL}:1"}),
        ({"gres": f"gpu:{MODEL}:1"}, {"TresPerNode": f"gres:gpu:{MODEL}:1"}),
    ],
)
def test_a_site_can_ask_for_gpus_in_its_own_form(
    cluster: SlurmCluster, checkout: Path, written: dict[str, str], recorded: dict[str, str]
) -> None:
    edit_profile(checkout, **written)
    before = len(cluster.jobs())
    target = "results/tiny/runs/digits/sgd/main/seed0/history.csv"
    run_snakemake(checkout, "--profile", "profiles/slurm", *QUICK, *TINY, "--", target, **cluster.environment)
    (job,) = cluster.jobs()[before:]
    assert {name: job[name] for name in ("TresPerJob", "TresPerNode") if name in job} == recorded
    assert (job["Partition"], job["JobState"]) == ("gpu", "COMPLETED")
