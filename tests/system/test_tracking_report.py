"""The page about a tracked run, in a browser."""

import re
from pathlib import Path

import pytest
import torch
from chromium import shown_title
from torch import nn
from training_loops import data, plain, train

from eigendrift import HessianOperator, Tracker

MEASURE = """<script>
const words = {
  width: document.documentElement.scrollWidth,
  images: [...document.images].map(image => image.complete && image.naturalWidth > 0),
};
document.title = JSON.stringify(words);
</script></body>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracked")
    model = plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    with Tracker(model, folder / "run", every=2, quiet=True).attach(optimizer) as tracker:
        train(model, optimizer, 12)
    track = tracker.solve(HessianOperator(model, nn.CrossEntropyLoss(), *data()), k=3)
    return track.report(folder / "report.html")


@pytest.mark.parametrize("width", [500, 1200])
def test_every_image_is_shown_and_nothing_is_wider_than_the_window(report: Path, width: int, tmp_path: Path) -> None:
    measured, page = tmp_path / "page.html", report.read_text(encoding="utf-8")
    measured.write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    found = shown_title(measured, width, tmp_path / "profile")
    images = re.search(r'"images":\[([a-z,]*)\]', found)
    assert images is not None
    assert images[1].split(",") == ["true"] * page.count("<img ")
    assert page.count("<img ") > 3
    shown = re.search(r'"width":(\d+)', found)
    assert shown is not None
    assert int(shown[1]) <= width
