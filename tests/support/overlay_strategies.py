"""Generated overlays of the shipped configuration: sound ones, hostile values, and keys that are none."""

import datetime
from typing import Any

import hypothesis.strategies as st
from experiments import at, read

NASTY_TEXT = st.sampled_from(
    [
        "",
        " ",
        "../../../etc/passwd",
        "..",
        "/",
        "~",
        "a/b",
        "a\\b",
        "$(reboot)",
        "`id`",
        "; rm -rf / #",
        "a && b | c > d",
        "'\"",
        "{seed}",
        "{",
        "%s%n",
        "*",
        "a\nb",
        "config: name: fine\n",
        "demo\n",
        "32\n",
        "\x00",
        "\x1b[2J",
        "\r",
        "\u2028",
        "\u202e",
        "\ud800",
        "é" * 50,
        "x" * 100_000,
        "9" * 5000,
        "1e" + "9" * 5000,
        "1e400",
        "nan",
        "None",
        "true",
        "1e-3",
        "0x10",
        "٣",
    ]
)
NUMBERS = st.sampled_from(
    [
        0,
        -1,
        1,
        2,
        3,
        5,
        10,
        64,
        1437,
        1438,
        1439,
        2**31,
        2**53,
        10**9,
        10**10,
        10**18,
        -(10**19),
        0.0,
        -0.0,
        0.3,
        1.0,
        2.0,
        1e-3,
        1e-7,
        0.1,
        1e300,
        5e-324,
        float("inf"),
        float("-inf"),
        float("nan"),
        1j,
    ]
) | st.sampled_from([4000, 5000]).map(lambda digits: 10**digits)
OTHERS = st.sampled_from([None, True, False, b"bytes", datetime.date(2020, 1, 1), (1, 2), frozenset({1}), object])
SCALARS = NASTY_TEXT | NUMBERS | OTHERS | st.text(max_size=20)
KEYS = NASTY_TEXT | NUMBERS | st.sampled_from([None, True, (1, "a"), b"k", "class", "lr", "full", "MNIST", "sgd"])


def nested(depth: int) -> Any:
    value: Any = 1
    for position in range(depth):
        value = [value] if position % 2 else {"a": value}
    return value


VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=4),
    st.dictionaries(KEYS, SCALARS, max_size=3),
    st.dictionaries(KEYS, st.dictionaries(KEYS, SCALARS, max_size=3), max_size=2),
    st.integers(5, 4000).map(nested),
)
# Values that may be right, by the key that they may be right for.
SOUND = {
    "name": st.sampled_from(["demo", "x", "A_1"]),
    "datasets": st.lists(st.sampled_from(["digits", "digits_noisy", "MNIST", "FashionMNIST"]), max_size=4),
    "data.root": NASTY_TEXT,
    "model.hidden": st.lists(st.integers(1, 300), max_size=4),
    "training.steps": st.integers(1, 10**9) | st.sampled_from([2000.0, 4000.0]),
    "training.batch_size": st.integers(1, 2000) | st.just("full"),
    "training.seeds": st.lists(st.integers(0, 2**31 - 1), max_size=6),
    "optimizers": st.dictionaries(
        st.sampled_from(["a", "sgd", "nan", "True", "a\n"]), st.just({"class": "SGD", "lr": 1})
    ),
    "optimizers.new": st.fixed_dictionaries(
        {"class": st.sampled_from(["SGD", "Adam", "AdamW", "Adadelta", "Rprop", "SAM"]), "lr": st.floats(0, 2)},
        optional={
            "momentum": st.floats(-1, 2),
            "betas": st.lists(st.floats(-1, 2), max_size=3),
            "rho": st.floats(-1, 2),
            "base": st.sampled_from(["SGD", "Adam"]),
            "foreach": st.booleans(),
        },
    ),
    "snapshots.every": st.integers(1, 10**6),
    "snapshots.waiting_times": st.lists(st.integers(0, 3000), max_size=5).map(sorted),
    "snapshots.lags_per_decade": st.integers(1, 1000),
    "eigen.k": st.integers(1, 20),
    "eigen.dense_k": st.integers(1, 1000),
    "eigen.dense_every": st.integers(1, 10**9),
    "eigen.snapshots_per_job": st.integers(1, 10**9),
    "eigen.tolerance_for": st.dictionaries(
        st.sampled_from(["digits", "MNIST"]), st.dictionaries(st.sampled_from(["sgd", "adam"]), st.floats(1e-9, 0.1))
    ),
    "sweeps.batch_size": st.dictionaries(
        st.integers(1, 2000) | st.sampled_from(["full", "full\n", "32\n", " 32", "3_2"]),
        st.integers(1, 10**9),
        max_size=3,
    ),
    "sweeps.learning_rate": st.dictionaries(
        st.integers(0, 50).map(lambda n: n / 10), st.integers(1, 10**9), max_size=3
    ),
    "sweeps.seeds": st.lists(st.integers(0, 2), max_size=3),
    "sweeps.snapshots.every": st.integers(1, 10**4),
    "interpolation.points": st.integers(1, 20_000),
}


def paths(block: dict[Any, Any], path: str = "") -> list[str]:
    found = []
    for key, value in block.items():
        found.append(f"{path}{key}")
        if isinstance(value, dict):
            found += paths(value, f"{path}{key}.")
    return found


SHIPPED = read("config.yaml")
KNOWN_PATHS = st.sampled_from(paths(SHIPPED))
BLOCKS = st.sampled_from(
    ["", "training.", "optimizers.", "optimizers.sgd.", "sweeps.batch_size.", "eigen.tolerance_for."]
)


@st.composite
def overlays(draw: st.DrawFn) -> dict[Any, Any]:
    """One change of the shipped configuration."""
    kind = draw(st.sampled_from(["sound", "sound", "sound", "value", "key"]))
    if kind == "sound":
        path = draw(st.sampled_from(sorted(SOUND)))
        return at(path, draw(SOUND[path]))
    if kind == "value":
        return at(draw(KNOWN_PATHS), draw(VALUES))
    block = draw(BLOCKS)
    inner = {draw(KEYS): draw(VALUES)}
    return at(block[:-1], inner) if block else inner
