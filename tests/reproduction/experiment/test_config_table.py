"""The README's table of keys is the one that the schema and config.yaml give."""

from pathlib import Path

from reproduction.experiment.config_table import markdown

ROOT = Path(__file__).parents[3]


def test_readme_table_is_up_to_date() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert markdown() in readme, "paste the output of python -m reproduction.experiment.config_table into README.md"
