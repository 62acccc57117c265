"""Print what every rule of the workflow in this folder declares, as JSON. No command of Snakemake lists that."""

import json
import sys
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, ResourceSettings

with SnakemakeApi() as api:
    workflow = api.workflow(
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(configfiles=[Path(path) for path in sys.argv[1:]]),
        snakefile=Path("Snakefile"),
    )
    rules = {
        rule.name: {
            "file": Path(str(rule.snakefile)).name,
            "docstring": rule.docstring,
            "log": [str(path) for path in rule.log],
            "conda_env": str(rule.conda_env),
            "resources": sorted(rule.resources),
            "script": rule.script and str(rule.script),
            "shell": rule.shellcmd,
            "inputs": sorted(name for name, _ in rule.input._allitems() if name),
            "modules": list(getattr(rule.input, "modules", [])),
        }
        for rule in workflow._workflow.rules
    }
print(json.dumps(rules))
