"""paper/published and the page beside it, as they are committed."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from experiments import CLAIM_NUMBERS, FIGURE_NAMES, SUPPLEMENT_NAMES
from snakemake_process import ROOT, copy_checkout
from test_published import call

from reproduction.claims.definition import load_claims
from reproduction.publication.publish import DETAILS, PAGE, PAGES, PUBLISHED, filled_pages

DRAWN_WITH = ("matplotlib", "numpy", "pandas")


def test_all_figures_are_there_in_less_than_30_megabytes() -> None:
    for name in (*FIGURE_NAMES, *SUPPLEMENT_NAMES):
        for kind in ("pdf", "png", "csv.gz"):
            assert (PUBLISHED / "figures" / f"{name}.{kind}").stat().st_size > 100
    assert (PUBLISHED / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert sum(path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file()) < 30e6


def test_it_is_the_paper_s_network_and_data_at_its_length() -> None:
    config = json.loads((PUBLISHED / "provenance.json").read_text())["config"]
    assert config["datasets"] == ["MNIST", "FashionMNIST"]
    assert config["model"]["hidden"] == [100, 100]
    assert config["training"]["steps"] == 100_000
    assert len(config["training"]["seeds"]) >= 3


def test_all_claims_have_a_verdict_at_this_scale() -> None:
    claims = pd.read_csv(PUBLISHED / "claims" / "claims.csv", comment="#")
    whole = claims[claims["part"] == "claim"]
    assert sorted(whole["number"]) == CLAIM_NUMBERS
    assert set(whole["verdict"]) <= {"reproduced", "direction only", "not reproduced"}


def test_one_cause_is_tested_for_each_claim_that_came_out_otherwise() -> None:
    claims = pd.read_csv(PUBLISHED / "claims" / "claims.csv", comment="#")
    whole = claims[claims["part"] == "claim"]
    differing = set(whole.loc[whole["verdict"] != "reproduced", "number"])
    assert differing
    assert {cause.number for cause in load_claims(ROOT / "paper" / "causes.yaml")} == differing


def test_the_page_s_numbers_are_those_that_are_published() -> None:
    pages = [PUBLISHED.with_name(page) for page in PAGES]
    for page, text in filled_pages(pages, PUBLISHED).items():
        assert page.read_text(encoding="utf-8") == text
        # What a mark says of a run that is not there, which a mistyped name would give too.
        assert "not drawn" not in text.lower()


@pytest.mark.parametrize("page", ["README.md", f"paper/{PAGE}", f"paper/{DETAILS}"])
def test_what_the_pages_show_and_link_to_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    assert len(targets) > 3
    for target in targets:
        assert ((ROOT / page).parent / target).exists(), target


def test_every_figure_is_drawn_again_to_the_byte_elsewhere_and_without_torch(tmp_path: Path) -> None:
    versions = json.loads((PUBLISHED / "provenance.json").read_text())["versions"]
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    checkout = copy_checkout(tmp_path / "checkout")
    done = call(checkout, "redraw", before=str(tmp_path), TZ="Asia/Tokyo", PYTHONHASHSEED="3")
    said, _, differing = done.stdout.strip().partition("differs in ")
    # A redraw that broke off says neither.
    assert differing or said.endswith("every file as published, to the byte"), done.stderr
    names = {name for name in differing.split(", ") if name}
    if any(versions[name] != version(name) for name in DRAWN_WITH):
        # Other versions draw other lines; the numbers under them stay.
        names = {name for name in names if name.endswith(".gz")}
    # Another TeX sets the same document in other bytes.
    assert names <= {"paper.pdf"}
