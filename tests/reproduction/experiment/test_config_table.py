"""The table of keys on two pages is the one that the schema and config.yaml give."""

from pathlib import Path

import pytest
from pages import marked

from reproduction.experiment.config_table import PAGES, markdown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_table_of_keys_is_up_to_date(page: Path) -> None:
    shown = marked(page.read_text(encoding="utf-8"), "configuration")
    assert shown == markdown(), "python -m reproduction.experiment.config_table writes it"
