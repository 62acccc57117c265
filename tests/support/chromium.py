"""Pages in headless Chromium."""

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest


def shown_title(page: Path, width: int, profile: Path) -> str:
    """The title of a page once its scripts have run in a window of this width: what they measure, they put there."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium here")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000")
    done = subprocess.run(
        [browser, *options, f"--window-size={width},900", f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    found = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert found is not None, done.stdout[:2000]
    return html.unescape(found[1])
