"""Run one script of the workflow as Snakemake would, without Snakemake: python run_script.py JOB SCRIPT."""

import json
import runpy
import sys
from types import SimpleNamespace
from typing import Any


class Named(list[str]):
    """Files by position and by name, as snakemake.input and snakemake.output give them."""

    def __init__(self, files: dict[str, str]) -> None:
        super().__init__(files.values())
        self.__dict__.update(files)


def snakemake(job: dict[str, Any]) -> SimpleNamespace:
    """What the script finds as `snakemake`."""
    return SimpleNamespace(
        rule=job["rule"],
        input=Named(job["input"]),
        output=Named(job["output"]),
        log=[job["log"]],
        params=SimpleNamespace(**job["params"]),
        wildcards=SimpleNamespace(**job["wildcards"]),
        threads=1,
    )


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as handle:
        described = json.load(handle)
    runpy.run_path(sys.argv[2], init_globals={"snakemake": snakemake(described)}, run_name="__main__")
