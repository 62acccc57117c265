"""Files that were damaged after they were made: every rule that reads one refuses it by its name, in one line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TinyRun
from safetensors import safe_open
from safetensors.numpy import save_file
from snakemake_process import TINY, Finished, run_snakemake

from reproduction.files.tables import read_header, read_table, write_table

Damage = Callable[[Path], None]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def older(path: Path) -> None:
    """The same content in the format of an older version."""
    if path.suffix == ".csv":
        path.write_bytes(path.read_bytes().replace(b"eigendrift-table/2", b"eigendrift-table/1", 1))
        return
    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no mapping
        header = json.loads(file.metadata()["eigendrift"])
    save_file(arrays, path, metadata={"eigendrift": json.dumps({**header, "format": "eigendrift-arrays/1"})})


def of(other: str) -> Damage:
    """Another run's file of the same name."""

    def swapped(path: Path) -> None:
        shutil.copyfile(path.parents[3] / other / path.name if "runs" in path.parts else path.with_name(other), path)

    return swapped


def of_another_experiment(path: Path) -> None:
    """The same run's table where the run was longer."""
    header, kind = read_header(path, kind=path.stem), path.stem
    identity = {**header["identity"], "steps": 2 * header["identity"]["steps"]}
    write_table(path, read_table(path, kind=kind), kind=kind, identity=identity, units=header["units"])


def damage_files(results: Path, damages: dict[str, Damage]) -> None:
    """Damage files as a failing disk or a hasty copy does: with their times, by which Snakemake goes, as they were."""
    contents = {name: (results / name).read_bytes() for name in damages}
    for name, damage in damages.items():
        path = results / name
        before = path.stat()
        damage(path)
        assert path.read_bytes() != contents[name], name
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def refusals(finished: Finished) -> dict[str, list[str]]:
    """Rule -> the lines with which its jobs ended."""
    found: dict[str, list[str]] = {}
    for line in finished.output.splitlines():
        rule, separator, rest = line.partition(": ")
        if separator and " (log: " in rest and not line.startswith(" "):
            found.setdefault(rule, []).append(rest)
    return found


def check(finished: Finished, expected: dict[str, tuple[str, ...]]) -> None:
    """Every rule named its damaged files, each in one line that says what is wrong and what to type."""
    assert finished.status == 1
    assert "Traceback" not in finished.output
    said = refusals(finished)
    assert sorted(said) == sorted(expected)
    for rule, names in expected.items():
        for name in names:
            (line,) = [line for line in said[rule] if f"/{name}: " in line]
            assert "run again" in line
    assert sum(map(len, said.values())) == sum(map(len, expected.values())), said


def again(checkout: Path, outputs: list[str]) -> Finished:
    for output in outputs:
        (checkout / "results" / "tiny" / output).unlink()
    targets = [f"results/tiny/{output}" for output in outputs]
    return run_snakemake(checkout, "--cores", "2", "--keep-going", *TINY, "--", *targets, check=False)


def test_rules_that_read_arrays_refuse_damaged_ones(finished_checkout: Path) -> None:
    results, runs = finished_checkout / "results" / "tiny", "runs/digits"
    damage_files(
        results,
        {
            "data/digits_noisy.safetensors": of("digits.safetensors"),
            f"{runs}/sgd/main/seed0/trajectory.safetensors": truncated,
            f"{runs}/adam/main/seed0/trajectory.safetensors": flipped,
            f"{runs}/adam/main/seed1/trajectory.safetensors": of("adam/main/seed0"),
            f"{runs}/sam/main/seed0/eigenpairs-0.safetensors": empty,
            f"{runs}/sgd/main/seed1/eigenpairs-0.safetensors": older,
            f"{runs}/sam/main/seed1/final_weights.safetensors": of("sgd/main/seed1"),
        },
    )
    outputs = [
        "baseline/digits_noisy.csv",
        "runs/digits_noisy/sgd/main/seed0/history.csv",
        f"{runs}/sgd/main/seed0/eigenpairs-0.safetensors",
        f"{runs}/adam/main/seed0/displacement.csv",
        f"{runs}/adam/main/seed1/alignment.csv",
        f"{runs}/sam/main/seed0/alignment.csv",
        f"{runs}/sgd/main/seed1/ipr.csv",
        f"{runs}/sam/main/seed1/ipr.csv",
    ]
    finished = again(finished_checkout, outputs)
    noisy = "data/digits_noisy.safetensors"
    expected = {
        "baseline": (noisy,),
        "train": (noisy,),
        "eigensnapshot": ("sgd/main/seed0/trajectory.safetensors",),
        "displacement": ("adam/main/seed0/trajectory.safetensors",),
        "alignment": ("adam/main/seed1/trajectory.safetensors", "sam/main/seed0/eigenpairs-0.safetensors"),
        "ipr": ("sgd/main/seed1/eigenpairs-0.safetensors", "sam/main/seed1/final_weights.safetensors"),
    }
    check(finished, expected)
    assert not [output for output in outputs if (results / output).exists()]


def test_rules_that_read_tables_refuse_damaged_ones(finished_checkout: Path) -> None:
    results, noisy = finished_checkout / "results" / "tiny", "runs/digits_noisy"
    damage_files(
        results,
        {
            "baseline/digits.csv": truncated,
            f"{noisy}/sgd/main/seed1/alignment.csv": older,
            f"{noisy}/sgd/main/seed0/ipr.csv": of("sgd/main/seed1"),
            f"{noisy}/adam/main/seed1/history.csv": flipped,
            "interpolation/digits.csv": of("digits_noisy.csv"),
            f"{noisy}/sam/main/seed1/displacement.csv": empty,
            "runs/digits/adam/main/seed0/final_eigenvector.safetensors": flipped,
            "runs/digits/adam/learning_rate-0.3/seed0/ipr.csv": of("adam/batch_size-full/seed0"),
        },
    )
    # Each figure reads one of them.
    names = ("fig01", "fig02", "fig03", "fig04", "fig08", "fig09", "fig16", "fig19")
    finished = again(finished_checkout, [f"figures/{name}.csv" for name in names])
    expected = {
        "fig01": ("baseline/digits.csv",),
        "fig02": ("sgd/main/seed1/alignment.csv",),
        "fig03": ("sgd/main/seed0/ipr.csv",),
        "fig04": ("adam/main/seed1/history.csv",),
        "fig08": ("interpolation/digits.csv",),
        "fig09": ("sam/main/seed1/displacement.csv",),
        "fig16": ("adam/main/seed0/final_eigenvector.safetensors",),
        "fig19": ("adam/learning_rate-0.3/seed0/ipr.csv",),
    }
    check(finished, expected)
    assert not [
        name for name in names for kind in ("pdf", "png", "csv") if (results / f"figures/{name}.{kind}").exists()
    ]


def test_one_table_of_another_experiment_is_enough_for_the_claims(finished_checkout: Path) -> None:
    table = "runs/digits_noisy/sam/main/seed1/history.csv"
    damage_files(finished_checkout / "results" / "tiny", {table: of_another_experiment})
    finished = again(finished_checkout, ["claims/claims.md"])
    check(finished, {"claims": (table,)})


@pytest.mark.parametrize("damaged", ["claims/claims.tex", "figures/fig07.pdf"])
def test_the_figure_set_refuses_what_is_damaged(finished_checkout: Path, damaged: str) -> None:
    damage_files(finished_checkout / "results" / "tiny", {damaged: flipped if "claims" in damaged else truncated})
    finished = again(finished_checkout, ["figure_set/numbers.tex"])
    check(finished, {"figure_set": (damaged,)})


def test_every_array_and_table_carries_shape_type_units_and_checksum(tiny_run: TinyRun) -> None:
    tables = sorted(tiny_run.results.rglob("*.csv"))
    arrays = sorted(tiny_run.results.rglob("*.safetensors"))
    assert len(tables) > 100
    assert len(arrays) > 70
    for path in tables:
        first, columns, *_ = path.read_text(encoding="utf-8").split("\n")
        header = json.loads(first.removeprefix("# "))
        assert {"format", "kind", "identity", "units", "types", "rows", "sha256", "seal"} == set(header), path
        assert list(header["units"]) == columns.split(","), path
        assert set(header["types"]) <= set(header["units"]), path
        assert all(header["units"].values()), path
        assert len(read_table(path, kind=header["kind"])) == header["rows"], path
    for path in arrays:
        with safe_open(path, framework="np") as file:
            header = json.loads(file.metadata()["eigendrift"])
            names = set(file.keys())
        assert {"format", "kind", "identity", "units", "sha256", "seal"} == set(header), path
        assert set(header["units"]) == set(header["sha256"]) == names, path
        assert all(header["units"].values()), path


def test_what_the_tiny_run_left_is_whole(tiny_run: TinyRun) -> None:
    # The tests above say something only if the same files pass where nothing is damaged.
    finished = run_snakemake(tiny_run.folder, "-n", *TINY)
    assert "Nothing to be done" in finished.output
