"""What a refusal must say: not its words, but what it names."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(kind: type[Exception], *named: object) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """An error of this kind in the block, whose message is one line and has each of `named` in it."""
    with pytest.raises(kind) as caught:
        yield caught
    message = str(caught.value)
    assert "\n" not in message
    for name in named:
        assert str(name) in message, f"{name!r} is not named in: {message}"
