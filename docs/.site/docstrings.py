"""Extension of Griffe, which reads the docstrings for the site and parses examples under the plural only."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Reads the section `Example:` as one with doctests."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Rename the section of one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
