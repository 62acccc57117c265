"""Finished tables of a run in the repository, while the run proceeds, and back in the results on another machine.

python -m reproduction.publication.kept keep NAME     finished tables of results/NAME into paper/runs/NAME, each once
python -m reproduction.publication.kept restore NAME  from there into results/NAME, so that Snakemake goes on from them
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from reproduction.errors import ConfigError, DataError, EigendriftError
from reproduction.experiment.config import validate
from reproduction.experiment.datasets import names_of
from reproduction.experiment.runs import Experiment
from reproduction.jobs.provenance import package_versions
from reproduction.jobs.snakemake_records import is_locked
from reproduction.publication.finished import Part, differences, parts, seconds, unfinished
from reproduction.publication.packed import pack, packed_name, unpack, write_whole

ROOT = Path(__file__).parents[4]
STORE = ROOT / "paper" / "runs"
FORMAT = "eigendrift-kept/1"
_REMEDY = "bring it back with git checkout, or keep again"


# The configuration


def configured(name: str, overlays: Sequence[Path], root: Path = ROOT) -> dict[str, Any]:
    """The valid configuration of results/<name>: config.yaml with overlays, by default config/<name>.yaml."""
    chosen = overlays_of(name, overlays, root)
    merged = _yaml(root / "config.yaml")
    for path in chosen:
        # As Snakemake merges them.
        update_config(merged, _yaml(path))
    config = validate(merged)
    if config["name"] != name:
        named = ", ".join(map(str, chosen)) or "config.yaml"
        raise ConfigError(f"{named}: name is {config['name']!r}, not {name!r}; give the overlay as CONFIG=path")
    return config


def overlays_of(name: str, overlays: Sequence[Path], root: Path = ROOT) -> list[Path]:
    """The overlays that are given, or that of the name where there is one."""
    default = root / "config" / f"{name}.yaml"
    return list(overlays) or [default] * default.is_file()


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no keys; config.yaml shows the form")
    return content


# The manifest


def read_manifest(store: Path) -> dict[str, Any] | None:
    """What a store says of itself; None where there is no store."""
    path = store / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"]
        if known == FORMAT and not all(isinstance(manifest[key], dict) for key in ("parts", "files", "versions")):
            raise ValueError("its parts, files and versions are not what they should be")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); {_REMEDY}") from None
    if known != FORMAT:
        raise DataError(f"{path}: format {known!r}, expected {FORMAT!r}; keep again with this version")
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """JSON with a line for each part and each file, in order, so that two versions differ where their content does."""
    lines = []
    for key, value in manifest.items():
        if key in ("parts", "files"):
            entries = [f"{json.dumps(name)}: {json.dumps(value[name], sort_keys=True)}" for name in sorted(value)]
            lines.append(f"{json.dumps(key)}: {{\n" + ",\n".join(entries) + "\n}")
        else:
            # The order of the optimizers is that of the figures.
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _versions(before: Mapping[str, str]) -> dict[str, str]:
    """Versions of the packages here, beside those with which the store was filled before."""
    here = package_versions()
    for name in ("numba", "torch"):
        try:
            here[name] = version(name)
        except PackageNotFoundError:
            continue
    seen = {name: {*before.get(name, found).split(", "), found} for name, found in here.items()}
    return {**before, **{name: ", ".join(sorted(found)) for name, found in seen.items()}}


def _described(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def check_parameters(store: Path, kept: Mapping[str, Any], wanted: Iterable[Part]) -> None:
    """`DataError`, one line, if parts in a store have other parameters than the configured ones."""
    found = {part.name: list(differences(kept[part.name]["parameters"], part.parameters)) for part in wanted}
    other = {name: lines for name, lines in found.items() if lines}
    if other:
        name, lines = next(iter(other.items()))
        sizes = [line for line in lines if "n_parameters" in line]
        network = "another network: " if sizes else ""
        lines = [*sizes, *(line for line in lines if line not in sizes)]
        more = f" (and so for {len(other) - 1} more)" if len(other) > 1 else ""
        raise DataError(
            f"{store}: {name} has other parameters than the configuration: {network}{'; '.join(lines)}{more}"
        )


# Keep


def keep(config: Mapping[str, Any], results: Path, store: Path, replace: bool = False) -> dict[str, Any]:
    """Put every finished table that is not kept yet into the store.

    Gives the number of parts in all (`parts`), of finished ones (`finished`), the files written now (`written`) and for
    each part that is not finished the reason (`unfinished`).
    """
    experiment = Experiment(config)
    every = parts(experiment)
    manifest = read_manifest(store) or {"parts": {}, "files": {}, "versions": {}}
    kept, files = manifest["parts"], manifest["files"]
    for name in kept:
        if name not in every:
            raise DataError(f"{store}: holds {name}, which the configuration lacks; give one that has all that is kept")
    finished: dict[str, Part] = {}
    reasons: dict[str, str] = {}
    for part in every.values():
        reason = unfinished(part, results, finished)
        if reason is None:
            finished[part.name] = part
        else:
            reasons[part.name] = reason
    # What is made again when a run is added is not the same thing any more.
    same = [part for part in every.values() if part.name in kept and kept[part.name]["sources"] == list(part.sources)]
    check_parameters(store, kept, [part for part in same if not (replace and part.name in finished)])
    written = {}
    for part in finished.values():
        for path in part.files:
            described = _described((results / path).read_bytes())
            if described == files.get(path):
                continue
            if path in files and part in same and not replace:
                raise DataError(
                    f"{results / path}: has another content than the one that is kept in {store}; "
                    "the option --replace keeps this one instead"
                )
            written[path] = described
    for path, described in written.items():
        content = (results / path).read_bytes()
        if _described(content) != described:
            raise DataError(f"{results / path}: changed while it was kept; keep again")
        pack(store / packed_name(path), content)
    changed = [
        part
        for part in finished.values()
        if not {*written}.isdisjoint(part.files) or not _described_by(kept.get(part.name), part)
    ]
    new = {
        "format": FORMAT,
        "name": config["name"],
        "configuration": config,
        "n_parameters": {dataset: experiment.n_parameters(dataset) for dataset in experiment.datasets()},
        "versions": _versions(manifest["versions"]) if written else manifest["versions"],
        "parts": {**kept, **{part.name: _entry(part, results, kept.get(part.name, {})) for part in changed}},
        "files": {**files, **written},
    }
    if new["files"] and new != manifest:
        # The last step: what is not in it is not kept, and is written again by the next try.
        write_whole(store / "manifest.json", manifest_text(new).encode())
    return {"parts": len(every), "finished": len(finished), "written": sorted(written), "unfinished": reasons}


def _described_by(entry: Mapping[str, Any] | None, part: Part) -> bool:
    """Whether the manifest's entry describes the part as it is now; equal content may come from other sources."""
    return entry is not None and (entry["parameters"], entry["sources"]) == (part.parameters, list(part.sources))


def _entry(part: Part, results: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's entry of a part, with the `seconds` by rule that Snakemake measured."""
    measured = {**before.get("seconds", {}), **seconds(part, results)}
    return {"parameters": part.parameters, "sources": list(part.sources), "seconds": measured}


# Restore


@dataclass(frozen=True)
class Restorable:
    """What a store holds of an experiment, checked: all its `files` (path below the results -> bytes and sha256), the
    paths of those that are not there yet (`missing`) or that differ (`other`); the parts that it holds (`held`), and
    names of parts that are due, since it does not hold all of them.
    """

    files: dict[str, dict[str, Any]]
    missing: list[str]
    other: list[str]
    held: list[Part]
    due: list[str]


def restorable(config: Mapping[str, Any], results: Path, store: Path, force: bool = False) -> Restorable:
    """What can be restored; `DataError`, one line, if the store is damaged or of another experiment, or if files of
    other content are in the way and `force` does not say that they may go.
    """
    manifest = read_manifest(store)
    if manifest is None:
        raise DataError(f"{store}: nothing is kept there; make keep NAME=... does it where the run is")
    kept, files = manifest["parts"], manifest["files"]
    for path, described in files.items():
        _content(store, path, described)
    every = parts(Experiment(config))
    held: dict[str, Part] = {}
    for part in every.values():
        # A table of other runs than the configured ones is another table: Snakemake makes it.
        if part.name in kept and kept[part.name]["sources"] == list(part.sources) and held.keys() >= {*part.sources}:
            held[part.name] = part
    check_parameters(store, kept, held.values())
    chosen = {path: files[path] for part in held.values() for path in part.files if path in files}
    there = {path: _described((results / path).read_bytes()) for path in chosen if (results / path).exists()}
    missing = [path for path in chosen if path not in there]
    other = [path for path, described in there.items() if described != files[path]]
    if other and not force:
        more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
        raise DataError(
            f"{results / other[0]}{more}: is there with another content than the one that is kept; "
            "the option --force puts the kept one in its place"
        )
    whole = {part.name for part in held.values() if files.keys() >= part.files.keys()}
    return Restorable(chosen, missing, other, list(held.values()), [name for name in every if name not in whole])


def restore(found: Restorable, results: Path, store: Path) -> None:
    """Unpack what is missing or other. Arrays of a run whose tables were other belong to those, and go."""
    for part in found.held:
        if not {*found.other}.isdisjoint(part.files):
            for pattern in ("trajectory.safetensors", "eigenpairs-*.safetensors"):
                for array in (results / part.name).glob(pattern):
                    array.unlink()
    for path in [*found.missing, *found.other]:
        write_whole(results / path, _content(store, path, found.files[path]))


def _content(store: Path, path: str, described: Mapping[str, Any]) -> bytes:
    packed = store / packed_name(path)
    content = unpack(packed, _REMEDY)
    if _described(content) != described:
        raise DataError(f"{packed}: damaged (not the content that manifest.json records); {_REMEDY}")
    return content


# Snakemake


def prepare_data(config: Mapping[str, Any], overlays: Sequence[Path], results: Path) -> str | None:
    """Let Snakemake make the data files; why it cannot, if it cannot.

    They must be older than the tables: Snakemake, which has to make them for one new run, would then make again every
    run that was made from them.
    """
    targets = [str(results / "data" / f"{dataset}.safetensors") for dataset in names_of(config)]
    return _snakemake(targets, overlays, "--keep-going")


def take_over(files: Iterable[str], overlays: Sequence[Path], results: Path) -> str | None:
    """Let Snakemake note that restored files are up to date, as if its rules had just made them; why it cannot.

    Each is given the present time, after those that it is made from, and the records of code, parameters and inputs
    with which later changes are noticed. Those of earlier runs, also of files that are not there, make room for them.
    """
    targets = [str(results / path) for path in files]
    if not targets:
        # Without a target, Snakemake takes all.
        return None
    # It touches the data files too, which are older than the arrays of runs that were stopped halfway: with the present
    # time, they would void those.
    times = {path: path.stat().st_mtime_ns for path in (results / "data").glob("*.safetensors")}
    trouble = _snakemake(targets, overlays, "--touch", "--forceall")
    for path, time in times.items():
        os.utime(path, ns=(time, time))
    return trouble


def _snakemake(targets: Sequence[str], overlays: Sequence[Path], *options: str) -> str | None:
    chosen = ["--configfile", *map(str, overlays)] if overlays else []
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", *options]
    done = subprocess.run([*command, *chosen, "--", *targets], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return complaint(done.stdout + done.stderr)


def complaint(said: str) -> str:
    """The line of Snakemake's output in which a job reports why it failed, or the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next(
        (line for line in lines if re.search(r"\(log: [^)]*\)$", line)), lines[-1] if lines else "no word of why"
    )


# The command line


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reproduction.publication.kept", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command, option, words in (
        ("keep", "--replace", "keep what differs from what is kept, in its place"),
        ("restore", "--force", "put what is kept in the place of files with another content"),
    ):
        one = commands.add_parser(command)
        one.add_argument("name")
        one.add_argument(
            "--configfile", nargs="+", action="extend", type=Path, default=[], help="overlays; else config/NAME.yaml"
        )
        one.add_argument(option, action="store_true", dest="overwrite", help=words)
    given = parser.parse_args(arguments)
    try:
        return _keep(given) if given.command == "keep" else _restore(given)
    except EigendriftError as error:
        print(error, file=sys.stderr)
        return 1


def _keep(given: argparse.Namespace) -> int:
    store = STORE / given.name
    done = keep(configured(given.name, given.configfile), Path("results", given.name), store, given.overwrite)
    print(f"{store}: {len(done['written'])} tables kept now; {done['finished']} of {done['parts']} parts are finished")
    for name, reason in list(done["unfinished"].items())[:1]:
        print(f"not finished: {name} ({reason})" + (", and others" if len(done["unfinished"]) > 1 else ""))
    return 0


def _restore(given: argparse.Namespace) -> int:
    results, store = Path("results", given.name), STORE / given.name
    config = configured(given.name, given.configfile)
    overlays = overlays_of(given.name, given.configfile)
    found = restorable(config, results, store, given.overwrite)
    if is_locked(results):
        raise DataError(
            f"{results}: Snakemake is at work there, or was killed; nothing is restored: let it end, or type "
            "snakemake --unlock, and restore again"
        )
    restore(found, results, store)
    if (trouble := prepare_data(config, overlays, results)) is not None:
        print(
            f"{results}/data: not made ({trouble}). As long as no run is added, none is needed; before that, restore "
            "again, or Snakemake makes all runs again",
            file=sys.stderr,
        )
    if (trouble := take_over(found.files, overlays, results)) is not None:
        raise DataError(f"{results}: Snakemake does not take the restored files over ({trouble}); restore again")
    written = len(found.missing) + len(found.other)
    print(f"{results}: {written} tables restored of {len(found.files)} that are kept")
    if found.due:
        print(f"due: {found.due[0]}" + (f" and {len(found.due) - 1} more" if len(found.due) > 1 else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
