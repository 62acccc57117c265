# Reads and validates the configuration; names folders; no rules.
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(workflow.basedir, "workflow", "scripts"))

from eigendrift.config import validate
from eigendrift.errors import ConfigError
from eigendrift.figures import FIGURES
from eigendrift.modules import library_files
from eigendrift.needs import Needs
from eigendrift.runs import Experiment, Run

try:
    EXPERIMENT = Experiment(validate(config))
except ConfigError as error:
    # One line for the user, who has no use for a traceback of ours.
    sys.exit(str(error))

NEEDS = Needs(EXPERIMENT)
RESULTS = f"results/{EXPERIMENT.config['name']}"
RUN = f"{RESULTS}/runs/{{dataset}}/{{optimizer}}/{{variant}}/seed{{seed}}"
LOGS, BENCHMARKS, SCRATCH = f"{RESULTS}/logs", f"{RESULTS}/benchmarks", f"{RESULTS}/.scratch"


wildcard_constraints:
    dataset="|".join(EXPERIMENT.config["datasets"]),
    optimizer="|".join(EXPERIMENT.config["optimizers"]),
    variant="|".join(map(re.escape, EXPERIMENT.variants)),
    seed=r"\d+",
    chunk=r"\d+",


def library(rule_name):
    """The library's files that a rule's script imports: an edit in one of them reruns the rule."""
    return library_files(Path(workflow.basedir) / "workflow" / "scripts" / f"{rule_name}.py")


def run_of(wildcards):
    """The run that a job's wildcards name."""
    return Run(wildcards.dataset, wildcards.optimizer, wildcards.variant, int(wildcards.seed))


def run_files(name, runs):
    """The file of this name of each run."""
    return [f"{RESULTS}/runs/{run.folder}/{name}" for run in runs]


def bulky(path):
    """Big arrays go once their readers are done, unless the configuration keeps them."""
    return path if EXPERIMENT.config["storage"]["keep_arrays"] else temp(path)


def gpus():
    """GPUs that a computing job asks for: none on a machine without one, so that nobody there notices the tag."""
    device = EXPERIMENT.config["training"]["device"]
    return int(device == "cuda" or (device == "auto" and os.path.exists("/dev/nvidiactl")))
