"""The checksum of a file's header."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def seal(header: Mapping[str, Any]) -> str:
    """sha256 of a file's header (JSON values), apart from its own entry `seal`, as hexadecimal digits."""
    # As it is read back, where all keys are text, which sorts in another way than numbers do.
    read = json.loads(json.dumps({key: value for key, value in header.items() if key != "seal"}))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()
