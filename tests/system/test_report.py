"""snakemake --report of the tiny run, and of one of its figures, as a file and in a browser."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from chromium import shown_title
from conftest import TinyRun
from experiments import CLAIM_NUMBERS, FIGURE_NAMES
from snakemake_process import TINY, run_snakemake

from reproduction.experiment.figure_catalogue import CLAIMS_PART, FIGURES, PROVENANCE_PART, entry, figure_name, part_of

# Shows the start page, then one figure, and what of them a person sees.
MEASURE = """<script>
const start = () => ({
  width: document.documentElement.scrollWidth,
  heading: document.querySelector("#app h1").getBoundingClientRect().top,
  claims: [...document.querySelectorAll("#app .claims details")].filter(claim => claim.offsetHeight > 0).length,
});
setTimeout(() => {
  const words = {start: start()};
  const path = Object.keys(results).find(name => name.endsWith("fig03.png"));
  app.setView({content: "img", contentPath: results[path].data_uri, resultPath: path});
  setTimeout(() => {
    const image = [...document.images].find(image => image.src === results[path].data_uri);
    words.figure = {natural: image.naturalWidth, shown: image.width, width: document.documentElement.scrollWidth};
    document.title = JSON.stringify(words);
  }, 500);
}, 500);
</script></body>"""


def report(tiny_run: TinyRun, path: Path, *targets: str) -> Path:
    # No server is reached: the page's own scripts come with Snakemake.
    blocked = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    run_snakemake(tiny_run.folder, *targets, "--report", str(path), *TINY, **blocked)
    return path


@pytest.fixture(scope="module")
def whole(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(tiny_run, tmp_path_factory.mktemp("report") / "report.html")


def part(page: Path, name: str) -> Any:
    """One of the values that the page's scripts show."""
    written = rf'<script id="{name.replace("_", "-")}">\s+var {name} = (.*);$'
    found = re.search(written, page.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def content(result: dict[str, Any]) -> bytes:
    return base64.b64decode(result["data_uri"].partition(";base64,")[2])


def test_every_figure_is_there_with_label_and_caption_in_the_papers_order(whole: Path, tiny_run: TinyRun) -> None:
    results, categories = part(whole, "results"), part(whole, "categories")
    shown = []
    # Snakemake lists categories by their names, and results by those of their files.
    for name in sorted(categories):
        shown += [Path(path).stem for paths in categories[name].values() for path in sorted(paths)]
    assert shown == [*FIGURE_NAMES, "claims", "manifest"]
    for number in FIGURES:
        path = f"results/tiny/figures/{figure_name(number)}.png"
        assert path in categories[part_of(number)]["Other"]
        assert results[path]["labels"] == {"figure": f"Figure {number}", "shows": entry(number)["title"]}
        assert len(results[path]["caption"]) > 80
        assert content(results[path]) == (tiny_run.folder / path).read_bytes()
    assert list(categories[CLAIMS_PART].values()) == [["results/tiny/claims/claims.html"]]
    assert list(categories[PROVENANCE_PART].values()) == [["results/tiny/figure_set/manifest.json"]]


def test_the_claims_are_a_page_and_no_download(whole: Path) -> None:
    claims = part(whole, "results")["results/tiny/claims/claims.html"]
    assert claims["mime_type"] == "text/html"
    assert content(claims).count(b"<details>") == len(CLAIM_NUMBERS)


def test_the_start_page_has_what_was_found_and_what_made_it(whole: Path) -> None:
    start = part(whole, "workflow_desc")
    assert "system-message" not in start
    assert "arXiv:2606.30226" in start
    assert start.count("not assessed at this scale</span>") > len(CLAIM_NUMBERS)
    assert re.search(r"&quot;commit&quot;: |\"commit\": ", start)


def test_one_figure_has_a_report_of_its_own(tiny_run: TinyRun, tmp_path: Path) -> None:
    page = report(tiny_run, tmp_path / "report.html", "fig03")
    assert list(part(page, "results")) == ["results/tiny/figures/fig03.png"]
    assert "system-message" not in part(page, "workflow_desc")


@pytest.mark.parametrize("width", [500, 1280])
def test_a_person_sees_it_in_a_window_of_any_width(whole: Path, width: int, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = whole.read_text(encoding="utf-8")
    page.write_text(MEASURE.join(text.rsplit("</body>", 1)), encoding="utf-8")
    words = json.loads(shown_title(page, width, tmp_path / "profile"))
    start, figure = words["start"], words["figure"]
    assert start["width"] <= width
    # The top of the page is in reach, and in a wide window in sight.
    assert 0 <= start["heading"] < (200 if width > 1000 else 900)
    assert start["claims"] == len(CLAIM_NUMBERS)
    assert figure["natural"] > 0
    assert figure["shown"] > width / 3
    assert figure["width"] <= width
