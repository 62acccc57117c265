"""What a user sees when a job fails, and which library the jobs of a checkout use."""

import re
from pathlib import Path

from snakemake_process import TINY, Finished, run_snakemake


def draw(folder: Path, name: str, **environment: str) -> Finished:
    (folder / "results" / "tiny" / "figures" / f"{name}.csv").unlink()
    return run_snakemake(folder, "--cores", "1", name, *TINY, check=False, **environment)


def test_a_damaged_table_is_named_in_one_line_on_the_terminal(finished_checkout: Path) -> None:
    table = "results/tiny/runs/digits/sgd/main/seed0/history.csv"
    path = finished_checkout / table
    path.write_bytes(path.read_bytes()[:-5])
    finished = draw(finished_checkout, "fig04")
    assert finished.status == 1
    line = next(line for line in finished.output.splitlines() if line.startswith("fig04: "))
    assert table in line
    assert "delete it and run again" in line
    assert "log: results/tiny/logs/fig04.log" in line
    assert "Traceback" not in (finished_checkout / "results/tiny/logs/fig04.log").read_text(encoding="utf-8")


def test_a_script_that_cannot_be_imported_leaves_its_traceback_in_the_log(finished_checkout: Path) -> None:
    library = finished_checkout / "workflow" / "scripts" / "reproduction" / "figures" / "performance.py"
    library.write_text("import a_module_that_is_not_there\n" + library.read_text(encoding="utf-8"), encoding="utf-8")
    finished = draw(finished_checkout, "fig05")
    assert finished.status == 1
    assert re.search(r"^fig05: ModuleNotFoundError: .*a_module_that_is_not_there", finished.output, re.MULTILINE)
    log = (finished_checkout / "results/tiny/logs/fig05.log").read_text(encoding="utf-8")
    assert "Traceback" in log
    assert "performance.py" in log


def test_jobs_use_the_library_of_their_own_checkout(finished_checkout: Path, tmp_path: Path) -> None:
    # As an environment has it in which another checkout is installed.
    for package in ("eigendrift", "reproduction"):
        (tmp_path / "site" / package).mkdir(parents=True)
        (tmp_path / "site" / package / "__init__.py").write_text("raise RuntimeError('another checkout')\n")
    # It has modules of both.
    table = "results/tiny/runs/digits/sgd/main/seed0/ipr.csv"
    (finished_checkout / table).unlink()
    surroundings = {"PYTHONPATH": str(tmp_path / "site")}
    finished = run_snakemake(finished_checkout, "--cores", "1", table, *TINY, check=False, **surroundings)
    assert finished.status == 0, finished.output[-3000:]
