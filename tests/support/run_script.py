"""Run one script of the workflow as Snakemake would, without Snakemake: python run_script.py JOB SCRIPT.

With `spare_megabytes` in the job's description the process may take that much memory more than importing torch took.
"""

import json
import resource
import runpy
import sys
from types import SimpleNamespace
from typing import Any


class Named(list[str]):
    """Files by position and by name, as snakemake.input and snakemake.output give them."""

    def __init__(self, files: dict[str, Any]) -> None:
        super().__init__(files.values())
        self.__dict__.update(files)

    def __getitem__(self, key: Any) -> Any:
        return self.__dict__[key] if isinstance(key, str) else super().__getitem__(key)


def snakemake(job: dict[str, Any]) -> SimpleNamespace:
    """What the script finds as `snakemake`."""
    return SimpleNamespace(
        rule=job["rule"],
        input=Named(job["input"]),
        output=Named(job["output"]),
        log=[job["log"]],
        params=SimpleNamespace(**job["params"]),
        wildcards=SimpleNamespace(**job["wildcards"]),
        config=job.get("config", {"training": {"device": "auto"}}),
        threads=1,
    )


def limit_memory(megabytes: int) -> None:
    """Refuse memory beyond what the process has now and `megabytes` more."""
    import torch  # noqa: F401 -- takes address space by the gigabyte, which is not what a test means to limit

    with open("/proc/self/statm", encoding="ascii") as statistics:
        pages = int(statistics.read().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as handle:
        described = json.load(handle)
    if "spare_megabytes" in described:
        limit_memory(described["spare_megabytes"])
    runpy.run_path(sys.argv[2], init_globals={"snakemake": snakemake(described)}, run_name="__main__")
