# Reads and validates the configuration; names folders; no rules.
import os
import sys
from pathlib import Path

from reproduction.experiment.command_line import typed
from reproduction.experiment.config import validate
from reproduction.errors import ConfigError
from reproduction.experiment.datasets import loader_modules
from reproduction.jobs.slurm import watch
from reproduction.experiment.figure_catalogue import (
    CLAIMS_PART,
    FIGURES,
    PROVENANCE_PART,
    SUPPLEMENT,
    drawing,
    drawn_by,
    entry,
    figure_name,
    part_of,
)
from reproduction.jobs.checkout import use_this_copy
from reproduction.jobs.dependencies import library_files
from reproduction.jobs.gpu import ALLOWED as ALLOWED_GPUS
from reproduction.jobs.terminal import drawn_over, follow, results_line
from reproduction.jobs.warm_start import SWITCH as WARM_START
from reproduction.experiment.resources import JobResources, gpus
from reproduction.experiment.result_paths import table_paths, variant_table_paths
from reproduction.experiment.table_catalogue import KEPT_TABLES, SCORED_TABLES, TABLES, columns
from reproduction.experiment.recorded import experiment_of
from reproduction.experiment.runs import Run

use_this_copy()
if not workflow.is_main_process:
    # A Snakemake of its own for one job, as on a node of a cluster, has nobody to share an import of torch with.
    os.environ[WARM_START] = "0"
try:
    # In place: scripts read the device and the folder of raw data from it.
    config.update(typed(config, workflow.config_settings.config))
    EXPERIMENT = experiment_of(validate(config))
except ConfigError as error:
    # One line for the user, to whom a traceback of the workflow's code is of no use.
    sys.exit(str(error))

RESOURCES = JobResources(EXPERIMENT)
# The limit of a local run (profiles/default, --resources gpu=4) is a number of GPUs.
GPUS = workflow.global_resources["gpu"].value if "gpu" in workflow.global_resources else None
if workflow.is_main_process and GPUS is not None:
    os.environ[ALLOWED_GPUS] = str(GPUS)
RESULTS = f"results/{EXPERIMENT.config['name']}"
RUN = f"{RESULTS}/runs/{{dataset}}/{{optimizer}}/{{variant}}/seed{{seed}}"
# What a job took is in a file of the same name in `benchmarks`; its script writes it.
LOGS, SCRATCH = f"{RESULTS}/logs", f"{RESULTS}/.scratch"
# The figure set, which does not wait for the supplement, empties the other one when it is done.
SUPPLEMENT_SCRATCH = f"{RESULTS}/.supplement"


wildcard_constraints:
    dataset="|".join(EXPERIMENT.datasets()),
    optimizer="|".join(EXPERIMENT.config["optimizers"]),
    variant="|".join(map(re.escape, EXPERIMENT.variants)),
    seed=r"\d+",
    chunk=r"\d+",


def source(path):
    """A file of this checkout, relative to the working directory: a checkout can move, and results can lie elsewhere."""
    return os.path.relpath(CHECKOUT / path)


def library(script, *modules):
    """A script and the files of ours that decide, with these modules, what it writes: their content starts it again."""
    path = source(f"workflow/scripts/{script}.py")
    return [path, *(source(file) for file in library_files(path, *modules, *EXPERIMENT.own_modules()))]


def run_of(wildcards):
    """The run that a job's wildcards name."""
    return Run(wildcards.dataset, wildcards.optimizer, wildcards.variant, int(wildcards.seed))


def own_code(wildcards):
    """The files of a network of the user's own: an edit of one starts again all that is computed with the network."""
    return [source(file) for file in EXPERIMENT.model_sources()]


def data_of(wildcards):
    """The file of a data set; of recorded runs only their problem knows the data."""
    return [] if EXPERIMENT.is_recorded else f"{RESULTS}/data/{wildcards.dataset}.safetensors"


def scratch_of(wildcards):
    """Where the jobs of a run keep what is half done."""
    return SUPPLEMENT_SCRATCH if EXPERIMENT.is_supplementary(run_of(wildcards)) else SCRATCH


def run_files(name, runs):
    """The file of this name of each run."""
    return [f"{RESULTS}/runs/{run.folder}/{name}" for run in runs]


def bulky(path):
    """Big arrays go once their readers are done, unless the configuration keeps them."""
    return path if EXPERIMENT.config["storage"]["keep_arrays"] else temp(path)


def eigenpairs(wildcards):
    """The chunks of a run's eigenpairs, in order."""
    run = run_of(wildcards)
    return [
        path for chunk in range(EXPERIMENT.chunks(run)) for path in run_files(f"eigenpairs-{chunk}.safetensors", [run])
    ]


def table(kind):
    """The file of one kind of table, with the wildcards of its rule."""
    return f"{RUN if TABLES[kind].of_run else RESULTS}/{TABLES[kind].path}"


def variant_table(kind):
    """The same for a variant that has a table of its own."""
    return f"{RESULTS}/{TABLES[kind].variant_path}"


def tables(kind, selections):
    """The files of one kind of table, of the runs or the datasets that any of the selections takes."""
    return [f"{RESULTS}/{path}" for path in table_paths(EXPERIMENT, kind, selections)]


def missing(number):
    """Why a figure does not apply; None for one that does."""
    return EXPERIMENT.missing(entry(number).get("needs", ()))


def missing_table(kind):
    """Whether an experiment cannot have a kind of table: recorded runs have no test set, by which solutions are chosen."""
    return EXPERIMENT.is_recorded and TABLES[kind].rule == "interpolation"


def figure_inputs(number):
    """Named inputs of a figure or of one of the supplement; none of one that does not apply."""
    if missing(number) is not None:
        return {}
    return {kind: tables(kind, selections) for kind, selections in entry(number)["inputs"].items()}


def drawn_already(*names):
    """Those of the figures that there are."""
    return [path for name in names if os.path.exists(path := f"{RESULTS}/figures/{name}.pdf")]


def figure_labels(number):
    """How the report lists a figure."""
    return {"figure": f"Figure {number}", "shows": entry(number)["title"]}


LINES = None
if workflow.is_main_process and not (workflow.output_settings.dryrun or workflow.output_settings.verbose):
    LINES = follow(logger, lambda: results_line(RESULTS), quiet=bool(workflow.output_settings.quiet))


onstart:
    # Snakemake's default limit of 100 jobs a second makes every pass of its scheduler start a timer thread for another
    # pass, and these threads accumulate by the thousand. A limit that is not the default one is kept.
    limiter = workflow.scheduler.job_rate_limiter
    if limiter is not None and limiter.max_jobs == 100:
        workflow.scheduler.job_rate_limiter = None
        logger.debug("No limit on jobs a second.")
    # Jobs can share each GPU. A job of a cluster has its own.
    if not workflow.non_local_exec and GPUS is not None:
        workflow.scheduler.resources["gpu"] = GPUS * EXPERIMENT.config["training"]["jobs_per_gpu"]
    if (warning := drawn_over(RESULTS, EXPERIMENT.recorded())) is not None:
        logger.warning(warning)
    # A local job reports its failure itself, in one line.
    if workflow.non_local_exec:
        watch(logger, Path.cwd())


onsuccess:
    if LINES is not None:
        LINES.succeeded()


onerror:
    if LINES is not None:
        LINES.stopped(workflow.logger_manager.get_logfile())
