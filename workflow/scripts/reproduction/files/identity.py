"""Where a file lies says whose it is: one that came there from another run or another experiment is refused."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduction.errors import DamagedFileError

_RUN = re.compile(r"runs/(?P<dataset>[^/]+)/(?P<optimizer>[^/]+)/(?P<variant>[^/]+)/seed(?P<seed>\d+)/(?P<name>[^/]+)$")
_CHUNK = re.compile(r"eigenpairs-(?P<chunk>\d+)\.safetensors$")
_DATASET = re.compile(
    r"(?:^|/)(?:data|interpolation|baseline(?:/(?P<variant>[^/]+))?)/(?P<dataset>\w+)(?:\.\w+)?\.(?:csv|safetensors)$"
)
# Runs that differ in nothing else than what the key names have these facts in common.
_FACTS = {
    ("dataset",): ("n_train",),
    ("dataset", "variant"): ("n_parameters",),
    ("dataset", "optimizer", "variant"): ("batch_size", "learning_rate", "steps"),
}


def check_place(path: Path, identity: Mapping[str, Any]) -> None:
    """`DamagedFileError` if the identity in a file is not that of its place; any other place says nothing."""
    for key, expected in _expected(path.as_posix()).items():
        found = identity.get(key)
        if found is not None and str(found) != expected:
            raise DamagedFileError(
                f"{path}: belongs to {key} {found}, and lies where {key} {expected} belongs; delete it and run again"
            )


def _expected(path: str) -> dict[str, str]:
    if run := _RUN.search(path):
        expected = run.groupdict()
        chunk = _CHUNK.search(expected.pop("name"))
        return expected | (chunk.groupdict() if chunk else {})
    dataset = _DATASET.search(path)
    return {key: value for key, value in dataset.groupdict().items() if value} if dataset else {}


def check_agreement(identities: Mapping[Path, Mapping[str, Any]]) -> None:
    """`DamagedFileError` if files of one experiment's runs do not agree in what these runs have in common."""
    first: dict[tuple[Any, ...], tuple[Any, Path]] = {}
    for path, identity in identities.items():
        for keys, facts in _FACTS.items():
            for fact in facts:
                found = identity.get(fact)
                known, other = first.setdefault((*(identity.get(key) for key in keys), fact), (found, path))
                if found != known:
                    raise DamagedFileError(
                        f"{path}: has {fact} {found}, and {other} has {known}: one of them belongs to another "
                        "experiment; delete that one and run again"
                    )
