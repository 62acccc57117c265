"""The figures of the paper and those of the supplement, drawn from tables alone.

`FIGURES` says what each figure reads and what draws it. It imports nothing heavy, so the Snakefile builds its rules
from it: the input `kind` of figure n is the list of the tables of that kind (`table_catalogue`) of every selected run,
or one a data set where there is no table of each run: then the key `datasets` counts, and `variants: sensitivity` means
the tables that the variants of figure S1 have of their own. A selection's keys are the
arguments of `Experiment.select`:

- datasets: first | last | all of the configured ones, or sweep: the one dataset of the sweeps
- variants: main | batch_size | learning_rate; a sweep brings the main runs of its seeds, which show its middle value;
  sensitivity: the runs of figure S1
- seeds: all, or dense: the one seed for which more eigenpairs are taken; a sweep has its own

Several selections for one kind mean their union, each run once.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from reproduction.experiment.labels import Drawing, drawing_function


class Selection(TypedDict, total=False):
    """Which runs, or which data sets."""

    datasets: str
    variants: str
    seeds: str


class FigureEntry(TypedDict):
    """What a figure shows, in a few words, which function draws it, and what it reads.

    `draw` is a module of `reproduction.figures` and a function in it, `module.function`, or any other function as
    `package.module:function`. It takes the tables in the order of `inputs`, the layout and the `options`; with
    `settings`, those of the experiment too. `needs` names what not every experiment has, and without which the figure
    says why it does not apply: "steps" (gradients and updates), "test" (a test set), "sweeps".
    """

    title: str
    draw: str
    inputs: dict[str, list[Selection]]
    options: NotRequired[dict[str, Any]]
    settings: NotRequired[bool]
    needs: NotRequired[tuple[str, ...]]


_FIRST: list[Selection] = [{"datasets": "first", "variants": "main", "seeds": "all"}]
_LAST: list[Selection] = [{"datasets": "last", "variants": "main", "seeds": "all"}]
_ALL: list[Selection] = [{"datasets": "all", "variants": "main", "seeds": "all"}]
_LAST_DENSE: list[Selection] = [{"datasets": "last", "variants": "main", "seeds": "dense"}]
_ALL_DENSE: list[Selection] = [{"datasets": "all", "variants": "main", "seeds": "dense"}]
_BATCH_SIZE: list[Selection] = [{"variants": "batch_size"}]
_LEARNING_RATE: list[Selection] = [{"variants": "learning_rate"}]

FIGURES: Mapping[int, FigureEntry] = {
    1: {
        "title": "Displacement of the leading eigenvector, first dataset",
        "draw": "two_time.displacement_by_optimizer",
        "inputs": {"displacement": _FIRST, "baseline": [{"datasets": "first"}]},
    },
    2: {
        "title": "Update alignment against gradient alignment",
        "draw": "alignment.update_against_gradient",
        "inputs": {"alignment": _ALL},
        "needs": ("steps",),
    },
    3: {
        "title": "Localization of the leading eigenvector",
        "draw": "localization.ipr_over_training",
        "inputs": {"ipr": _ALL},
    },
    4: {
        "title": "Training loss",
        "draw": "performance.training_loss",
        "inputs": {"history": _ALL},
    },
    5: {
        "title": "Final test accuracy",
        "draw": "performance.final_accuracy",
        "inputs": {"history": _ALL},
        "needs": ("test",),
    },
    6: {
        "title": "Leading eigenvalues",
        "draw": "spectrum.eigenvalues",
        "inputs": {"ipr": _ALL},
    },
    7: {
        "title": "Convergence of the leading eigenvectors",
        "draw": "spectrum.convergence",
        "inputs": {"alignment": _ALL, "displacement": _ALL},
    },
    8: {
        "title": "Loss between solutions, and their sharpness",
        "draw": "interpolation.draw_interpolation",
        "inputs": {"interpolation": [{"datasets": "all"}], "solutions": [{"datasets": "all"}]},
        "needs": ("test",),
    },
    9: {
        "title": "Displacement of the leading eigenvector, last dataset",
        "draw": "two_time.displacement_by_optimizer",
        "inputs": {"displacement": _LAST, "baseline": [{"datasets": "last"}]},
    },
    10: {
        "title": "Displacement of the weights",
        "draw": "two_time.weight_displacement",
        "inputs": {"displacement": _ALL},
    },
    11: {
        "title": "Two-time update alignment",
        "draw": "two_time.two_time_alignment",
        "inputs": {"displacement": _ALL},
    },
    12: {
        "title": "Alignments during one run, last dataset",
        "draw": "alignment.alignment_over_training",
        "inputs": {"alignment": _LAST_DENSE},
        "needs": ("steps",),
    },
    13: {
        "title": "Run-mean alignments",
        "draw": "alignment.run_means",
        "inputs": {"alignment": _ALL},
        "needs": ("steps",),
    },
    14: {
        "title": "Run-mean alignments with many eigenvectors",
        "draw": "alignment.means_of_many",
        "inputs": {"alignment": _ALL_DENSE},
        "needs": ("steps",),
    },
    15: {
        "title": "Localization of many eigenvectors",
        "draw": "localization.ipr_of_many",
        "inputs": {"ipr": _ALL_DENSE},
    },
    16: {
        "title": "Leading eigenvector in the shape of the layers, first dataset",
        "draw": "eigenvector_map.draw_eigenvector_map",
        "inputs": {"final_eigenvector": _FIRST},
    },
    17: {
        "title": "Update against gradient alignment, by batch size and learning rate",
        "draw": "alignment_sweeps.update_against_gradient_by_value",
        "inputs": {"alignment": _BATCH_SIZE + _LEARNING_RATE},
        "needs": ("sweeps",),
    },
    18: {
        "title": "Localization by batch size",
        "draw": "localization.ipr_by_value",
        "options": {"sweep": "batch_size"},
        "inputs": {"ipr": _BATCH_SIZE},
        "needs": ("sweeps",),
    },
    19: {
        "title": "Localization by learning rate",
        "draw": "localization.ipr_by_value",
        "options": {"sweep": "learning_rate"},
        "inputs": {"ipr": _LEARNING_RATE},
        "needs": ("sweeps",),
    },
    20: {
        "title": "Displacement by batch size",
        "draw": "two_time.displacement_by_value",
        "options": {"sweep": "batch_size"},
        "inputs": {"displacement": _BATCH_SIZE, "baseline": [{"datasets": "sweep"}]},
        "needs": ("sweeps",),
    },
    21: {
        "title": "Displacement by learning rate",
        "draw": "two_time.displacement_by_value",
        "options": {"sweep": "learning_rate"},
        "inputs": {"displacement": _LEARNING_RATE, "baseline": [{"datasets": "sweep"}]},
        "needs": ("sweeps",),
    },
}

# Figures for questions that the paper's own figures leave open; they are no part of the figure set.
SUPPLEMENT: Mapping[str, FigureEntry] = {
    "S1": {
        "title": "What the choices that the paper leaves open decide",
        "draw": "sensitivity.sensitivity",
        "settings": True,
        "inputs": {
            "ipr": [{"variants": "sensitivity"}, *_ALL],
            "displacement": [{"variants": "sensitivity"}, *_ALL],
            "alignment": [{"variants": "sensitivity"}, *_ALL],
            "history": [{"variants": "sensitivity"}, *_ALL],
            "final_eigenvector": [{"variants": "sensitivity"}, *_ALL],
            "baseline": [{"datasets": "all"}, {"variants": "sensitivity"}],
        },
    },
    "S2": {
        "title": "Null models of the overlap between eigenvectors",
        "draw": "null_models.null_models",
        "inputs": {"baseline_overlaps": [{"datasets": "all"}], "permuted_overlaps": [{"datasets": "all"}]},
    },
    "S3": {
        "title": "Displacement against solver accuracy",
        "draw": "solver_accuracy.displacement_and_accuracy",
        "inputs": {"displacement": _ALL},
    },
    "S4": {
        "title": "Displacement and identity: how much is exchange of order",
        "draw": "exchanges.displacement_and_identity",
        "inputs": {"displacement": _ALL, "identity": _ALL, "baseline": [{"datasets": "all"}]},
    },
}


# The parts of the report, in the paper's order: the last figure of each, and its name.
PARTS: Mapping[int, str] = {
    3: "1 Main text",
    8: "2 Performance and spectrum (appendix B)",
    11: "3 Displacement (appendix C)",
    14: "4 Alignment (appendix D)",
    16: "5 Localization (appendix E)",
    21: "6 Batch size and learning rate (appendix F)",
}
SUPPLEMENT_PART, CLAIMS_PART, PROVENANCE_PART = "7 Supplement", "8 Claims", "9 Provenance"


def part_of(number: int | str) -> str:
    """The part of the report that a figure belongs to."""
    if isinstance(number, str):
        return SUPPLEMENT_PART
    return next(name for last, name in PARTS.items() if number <= last)


def figure_name(number: int | str) -> str:
    """The name of a figure's rule and files: fig01 for 1, figS1 for S1."""
    return f"fig{number:02d}" if isinstance(number, int) else f"fig{number}"


def entry(number: int | str) -> FigureEntry:
    """The entry of a figure of the paper (by number) or of the supplement (by name)."""
    return FIGURES[number] if isinstance(number, int) else SUPPLEMENT[number]


def drawing(number: int | str, settings: Mapping[str, Any], missing: str | None = None) -> Drawing:
    """The parameters of a figure's rule: an edit of one entry draws one figure again.

    `missing`: why the figure does not apply to the experiment, if it does not.
    """
    found = entry(number)
    if missing is not None:
        return {
            "name": figure_name(number),
            "number": number,
            "title": found["title"],
            "draw": "panels.not_applicable",
            "kinds": [],
            "options": {"title": found["title"], "reason": missing},
        }
    return {
        "name": figure_name(number),
        "number": number,
        "title": found["title"],
        "draw": found["draw"],
        "kinds": list(found["inputs"]),
        "options": {**found.get("options", {}), **({"settings": settings} if found.get("settings") else {})},
    }


def drawn_by(number: int | str) -> str:
    """The module that draws a figure."""
    return drawing_function(entry(number)["draw"]).partition(":")[0]
