"""The table of keys in docs/configuration.md is the one that the schema and config.yaml give."""

from pages import marked, read

from reproduction.experiment.config_table import markdown


def test_the_table_of_keys_is_up_to_date() -> None:
    shown = marked(read("docs/configuration.md"), "configuration")
    assert shown == markdown(), "put the output of python -m reproduction.experiment.config_table between the marks"
