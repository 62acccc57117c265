"""Seeds of independent random streams."""

import hashlib


def stream_seed(*names: object) -> int:
    """A seed for one random stream, from what the stream is for; independent streams for different names.

    The first 63 bits of sha256 of the names, so it does not depend on the machine, the process or the order of use.
    """
    text = "/".join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
