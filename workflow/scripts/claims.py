"""Score the paper's claims on the tables of one results folder: CSV, Markdown, a page of HTML and LaTeX."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from reproduction.claims.grades import GRADES_UNITS, grades_table, latex_tables
from reproduction.claims.primary import load_primary_tests
from reproduction.claims.report import CLAIMS_UNITS, claims_table, latex, markdown, page
from reproduction.claims.definition import load_claims
from reproduction.claims.evidence import load_evidence
from reproduction.claims.scoring import score_claims
from reproduction.claims.statistics import BOOTSTRAP_SEED, RESAMPLES
from reproduction.files.atomic import atomic_path
from reproduction.files.tables import write_table


def run(
    tables: Mapping[str, Sequence[str]],
    claims: str,
    primary: str,
    output: Mapping[str, str],
    layout: Mapping[str, Any],
    roles: Mapping[str, str],
    scale: Mapping[str, Any],
) -> None:
    """Score `claims` and grade the tests of `primary` on `tables`: outputs csv, md, html, tex, grades and
    grades_tex.
    """
    evidence = load_evidence(
        tables,
        datasets=list(layout["datasets"]),
        # A role whose optimizer is not configured is played by none.
        optimizer_roles={role: name for role, name in roles.items() if name in layout["optimizers"]},
        dense_seed=int(layout["dense_seed"]),
    )
    labels = {**layout["datasets"], **layout["optimizers"]}
    scored = score_claims(load_claims(claims), evidence, labels)
    texts = {"md": markdown(scored, labels, scale).encode(), "tex": latex(scored, labels, scale).encode()}
    identity = {
        "sha256": {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()},
        "scale": dict(scale),
        "datasets": dict(evidence.dataset_of),
        "optimizers": dict(evidence.optimizer_of),
        "bootstrap": {"resamples": RESAMPLES, "seed": BOOTSTRAP_SEED},
    }
    write_table(output["csv"], claims_table(scored), kind="claims", identity=identity, units=CLAIMS_UNITS)
    texts["html"] = page(scored, labels, scale).encode()
    tests = load_primary_tests(primary)
    grades = grades_table(tests, evidence)
    texts["grades_tex"] = latex_tables(grades, tests).encode()
    sealed = {"sha256": hashlib.sha256(texts["grades_tex"]).hexdigest(), "scale": dict(scale)}
    write_table(output["grades"], grades, kind="grades", identity=sealed, units=GRADES_UNITS)
    for name, text in texts.items():
        with atomic_path(output[name], len(text)) as part:
            part.write_bytes(text)


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


run(
    {kind: _listed(paths) for kind, paths in snakemake.input.items() if kind not in ("claims", "primary", "modules")},
    snakemake.input.claims,
    snakemake.input.primary,
    {name: snakemake.output[name] for name in ("csv", "md", "html", "tex", "grades", "grades_tex")},
    snakemake.params.layout,
    snakemake.params.roles,
    snakemake.params.scale,
)
