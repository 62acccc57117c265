# Where Snakemake looks first; the workflow itself is in workflow/, where catalogues and other Snakefiles look.
include: "workflow/Snakefile"


# Snakemake takes no default target from a file that is included.
workflow.default_target = "all"
