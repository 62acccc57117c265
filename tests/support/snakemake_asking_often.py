"""snakemake, whose plugin for SLURM asks for its jobs every two seconds.

By itself the plugin waits longer each time, up to three minutes, as is right for jobs of hours.
"""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)

if __name__ == "__main__":
    main()
