"""What machines read of the project and of what is published: an RO-Crate, Croissant, and records for archives.

With src and workflow/scripts in PYTHONPATH: python -m reproduction.publication.machine_readable writes all of it.

Sources: RO-Crate 1.1 with the profile Workflow Run Crate 0.5 (w3id.org/ro/wfrun/workflow), Croissant 1.0, CodeMeta 2.0,
Zenodo's metadata of deposits. Title, version, authors and licence are those of CITATION.cff.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reproduction.experiment.table_catalogue import TABLES
from reproduction.jobs.checkout import SCRIPTS
from reproduction.publication.packed import unpack, write_whole

ROOT = SCRIPTS.parents[1]
PUBLISHED = "paper/published"
# When the results were first published, in the repository; a release has a date of its own.
FIRST_PUBLISHED = "2026-11-28"
_RESTORE = "bring it back with git checkout, or publish again"
CRATE, CROISSANT, CODEMETA, ZENODO = "ro-crate-metadata.json", "croissant.json", "codemeta.json", ".zenodo.json"
CITATION = "CITATION.cff"
MIT, CC_BY = "https://spdx.org/licenses/MIT", "https://creativecommons.org/licenses/by/4.0/"
PAPER = "https://arxiv.org/abs/2606.30226"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_TYPES = {
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".tex": "application/x-tex",
}


def citation(root: Path = ROOT) -> dict[str, Any]:
    """CITATION.cff, the one place of title, version, authors and licence."""
    read: dict[str, Any] = yaml.safe_load((root / CITATION).read_text(encoding="utf-8"))
    return read


def _date(cited: Mapping[str, Any]) -> str:
    return str(cited.get("date-released", FIRST_PUBLISHED))


def _reference(name: str) -> dict[str, str]:
    return {"@id": name}


def _authors(cited: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Persons and groups as schema.org has them."""
    found = []
    for author in cited["authors"]:
        if "name" in author:
            found.append({"@type": "Organization", "name": author["name"]})
        else:
            person = {"givenName": author["given-names"], "familyName": author["family-names"]}
            orcid = {"@id": author["orcid"]} if "orcid" in author else {}
            found.append({"@type": "Person", "name": " ".join(person.values()), **person, **orcid})
    return found


def files(root: Path = ROOT) -> Iterator[str]:
    """Paths of all published files below the root, without what describes them."""
    for path in sorted((root / PUBLISHED).rglob("*")):
        if path.is_file() and path.name != CROISSANT:
            yield path.relative_to(root).as_posix()


def ro_crate(root: Path = ROOT) -> dict[str, Any]:
    """The checkout as a Workflow Run Crate: the workflow, what it was run with, and what is published of it."""
    cited, record = citation(root), json.loads((root / PUBLISHED / "provenance.json").read_text(encoding="utf-8"))
    published = list(files(root))
    authors = [{"@id": f"#author-{number}", **author} for number, author in enumerate(_authors(cited), start=1)]
    licences = {MIT: "MIT License", CC_BY: "Creative Commons Attribution 4.0 International"}
    language = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
    configuration, figure_set, run = "#configuration", "#figure-set", "#run"
    of_work = {f"{PUBLISHED}/provenance.json": configuration, f"{PUBLISHED}/manifest.json": figure_set}
    hours = sum(record["hours"].values())
    entities: list[dict[str, Any]] = [
        {
            "@id": CRATE,
            "@type": "CreativeWork",
            "about": _reference("./"),
            "conformsTo": [
                _reference("https://w3id.org/ro/crate/1.1"),
                _reference("https://w3id.org/workflowhub/workflow-ro-crate/1.0"),
            ],
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": cited["title"],
            "description": cited["abstract"].strip(),
            "datePublished": _date(cited),
            "license": _reference(MIT),
            "author": [_reference(author["@id"]) for author in authors],
            "publisher": _reference(authors[0]["@id"]),
            "citation": _reference(PAPER),
            "conformsTo": [_reference(profile) for profile in PROFILES],
            "hasPart": [_reference(name) for name in ("workflow/Snakefile", "README.md", "config.yaml", *published)],
            "mainEntity": _reference("workflow/Snakefile"),
            "mentions": _reference(run),
        },
        *(
            {"@id": profile, "@type": "CreativeWork", "name": name, "version": profile.rpartition("/")[2]}
            for profile, name in PROFILES.items()
        ),
        {
            "@id": "workflow/Snakefile",
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            "name": cited["title"],
            "version": str(cited["version"]),
            "license": _reference(MIT),
            "author": [_reference(author["@id"]) for author in authors],
            "creator": [_reference(author["@id"]) for author in authors],
            "dateCreated": _date(cited),
            "description": "All figures and claims of arXiv:2606.30226 from raw data.",
            "programmingLanguage": _reference(language),
            "input": [_reference(configuration)],
            "output": [_reference(figure_set)],
            "encodingFormat": "text/plain",
            "conformsTo": _reference("https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"),
        },
        {
            "@id": language,
            "@type": "ComputerLanguage",
            "name": "Snakemake",
            "identifier": _reference("https://doi.org/10.1093/bioinformatics/bts480"),
            "url": _reference("https://snakemake.github.io"),
            "version": record["versions"]["snakemake"],
        },
        {
            "@id": configuration,
            "@type": "FormalParameter",
            "additionalType": "File",
            "name": "config",
            "description": "The configuration: data sets, network, optimizers, seeds, snapshots.",
            "valueRequired": False,
            "conformsTo": _reference("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
        },
        {
            "@id": figure_set,
            "@type": "FormalParameter",
            "additionalType": "File",
            "name": "manifest",
            "description": "The figure set: names and checksums of its files, and what it was made with.",
            "conformsTo": _reference("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
        },
        {
            "@id": run,
            "@type": "CreateAction",
            "name": f"The run {record['config']['name']}",
            "description": f"{hours:.1f} hours of one core, on {record['device']}, at commit {record['commit']}.",
            "instrument": _reference("workflow/Snakefile"),
            "actionStatus": "http://schema.org/CompletedActionStatus",
            "agent": _reference(authors[0]["@id"]),
            "object": [_reference(f"{PUBLISHED}/provenance.json")],
            "result": [_reference(name) for name in published if not name.endswith("provenance.json")],
        },
        {
            "@id": "README.md",
            "@type": "File",
            "name": "README",
            "encodingFormat": "text/markdown",
            "about": _reference("./"),
            "license": _reference(CC_BY),
        },
        {
            "@id": "config.yaml",
            "@type": "File",
            "name": "The demo's configuration",
            "encodingFormat": "application/yaml",
        },
        {
            "@id": PAPER,
            "@type": "ScholarlyArticle",
            "name": cited["references"][0]["title"],
            "identifier": "arXiv:2606.30226",
        },
        *({"@id": key, "@type": "CreativeWork", "name": name, "url": key} for key, name in licences.items()),
        *authors,
    ]
    for name in published:
        content = (root / name).read_bytes()
        entities.append(
            {
                "@id": name,
                "@type": "File",
                "name": name.removeprefix(f"{PUBLISHED}/"),
                "encodingFormat": _TYPES.get(Path(name).suffix, "application/octet-stream"),
                "contentSize": str(len(content)),
                "sha256": hashlib.sha256(content).hexdigest(),
                "license": _reference(CC_BY),
                **({"exampleOfWork": _reference(of_work[name])} if name in of_work else {}),
            }
        )
    context = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
    return {"@context": context, "@graph": [_plain(entity) for entity in entities]}


def _plain(entity: Mapping[str, Any]) -> dict[str, Any]:
    """A list of one as the one, as RO-Crate recommends."""
    return {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in entity.items()}


def croissant(root: Path = ROOT) -> dict[str, Any]:
    """The published tables in Croissant: every file with its sha256, and what its columns are.

    There are no record sets: the tables' first line is a comment, which Croissant 1.0 has no way to skip, and a reader
    that takes it for the names of the columns would be wrong.
    """
    cited = citation(root)
    distribution = []
    for path in sorted((root / PUBLISHED / "tables").rglob("*.csv.gz")):
        header = json.loads(unpack(path, _RESTORE).split(b"\n", 1)[0].lstrip(b"# "))
        columns = ", ".join(f"{name} ({unit})" for name, unit in header["units"].items())
        name = path.relative_to(root / PUBLISHED).as_posix()
        content = f"One row: {TABLES[header['kind']].row}. " if header["kind"] in TABLES else ""
        distribution.append(
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name.removesuffix(".csv.gz").replace("/", "-"),
                "description": f"{content}The first line is a comment with identity and checksum. Columns: {columns}.",
                "contentUrl": name,
                "encodingFormat": ["text/csv", "application/gzip"],
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
    return {
        "@context": _CROISSANT_CONTEXT,
        "@type": "sc:Dataset",
        "name": "eigendrift-tables",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": "Tables of top Hessian eigenpairs along training runs: displacement, localization, alignment.",
        "license": CC_BY,
        "url": PAPER,
        "version": str(cited["version"]),
        "datePublished": _date(cited),
        "creator": _authors(cited),
        "citeAs": f"{cited['title']}, version {cited['version']}",
        "distribution": distribution,
    }


def codemeta(root: Path = ROOT) -> dict[str, Any]:
    """The software in CodeMeta."""
    cited = citation(root)
    return {
        "@context": "https://doi.org/10.5063/schema/codemeta-2.0",
        "@type": "SoftwareSourceCode",
        "name": "eigendrift",
        "description": cited["abstract"].strip(),
        "version": str(cited["version"]),
        "license": MIT,
        "author": _authors(cited),
        "keywords": cited["keywords"],
        "programmingLanguage": "Python",
        "runtimePlatform": "Python 3.11",
        "datePublished": _date(cited),
        "referencePublication": PAPER,
        "developmentStatus": "active",
    }


def zenodo(root: Path = ROOT) -> dict[str, Any]:
    """What Zenodo fills into the form of a release."""
    cited = citation(root)
    creators = []
    for author in cited["authors"]:
        name = author.get("name") or f"{author['family-names']}, {author['given-names']}"
        orcid = author.get("orcid", "").rpartition("/")[2]
        creators.append({"name": name, **({"orcid": orcid} if orcid else {})})
    return {
        "title": cited["title"],
        "description": cited["abstract"].strip(),
        "upload_type": "software",
        "version": str(cited["version"]),
        "license": "mit",
        "creators": creators,
        "keywords": cited["keywords"],
        "notes": "Code: MIT. Tables, figures and text: CC BY 4.0. The data sets are no part of it.",
        "related_identifiers": [{"identifier": "arXiv:2606.30226", "relation": "isSupplementTo", "scheme": "arxiv"}],
    }


def records(root: Path = ROOT) -> dict[str, bytes]:
    """Every file that describes the project to machines, by its path below the root."""
    made = {
        f"{PUBLISHED}/{CROISSANT}": croissant(root),
        CRATE: ro_crate(root),
        CODEMETA: codemeta(root),
        ZENODO: zenodo(root),
    }
    return {name: (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode() for name, record in made.items()}


def write(root: Path = ROOT) -> None:
    """Write them where they belong."""
    for name, content in records(root).items():
        write_whole(root / name, content)


_CROISSANT_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


if __name__ == "__main__":
    write()
