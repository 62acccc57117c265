# Where Snakemake looks first; the workflow itself is in workflow/, where catalogues and other Snakefiles look.
include: "workflow/Snakefile"
