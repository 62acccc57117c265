"""A SLURM cluster on this machine: controller, nodes and munge as processes of the tests.

Folders and ports are its own. Its GPUs are device files that nothing computes on.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import IN_CI

# What a user edits in the profile. There is no GPU behind those of the cluster, so "auto" computes on the CPU.
EDITS = {"device: cuda": "device: auto", "status: sacct": "status: squeue"}
# So that the tests do not wait for a file system and a queue that are not there.
ASKING_OFTEN = (str(Path(__file__).with_name("snakemake_asking_often.py")),)
QUICK = ("--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "1")
DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel")
# Of all GPUs.
MODEL = "tesla"
_SBIN = "/usr/sbin:/sbin"


def missing_programs() -> list[str]:
    """What a cluster needs and this machine lacks."""
    return [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name, path=f"{os.environ['PATH']}:{_SBIN}") is None]


def edit_profile(folder: Path, **more: str) -> None:
    """Edit the profile of a checkout as a user would; `more` is what else to write, by the word before the colon."""
    path = folder / "profiles" / "slurm" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    for old, new in [*EDITS.items(), *((f'{word}: ""', f"{word}: {value}") for word, value in more.items())]:
        assert text.count(f"  {old}\n") == 1, old
        text = text.replace(f"  {old}\n", f"  {new}\n")
    path.write_text(text, encoding="utf-8")


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} seconds: no {what}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Node:
    """A node, which is in the partition `gpu` if it has any, else in `cpu`."""

    name: str
    cpus: int
    gpus: int = 0


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


# A busy machine is no dead node.
SILENCE = 120


class SlurmCluster:
    """The cluster in a folder; `start` it, `stop` it.

    `silence` is for how many seconds a node may say nothing before it counts as dead and its jobs start elsewhere.
    """

    def __init__(self, folder: Path, nodes: Sequence[Node], silence: int = SILENCE) -> None:
        self.folder = folder
        self._silence = silence
        self.nodes = {node.name: node for node in nodes}
        self.conf = folder / "slurm.conf"
        self._munge_socket = folder / "munge.socket"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the cluster."""
        # Plugin and steps drop SLURM_CONF from the environment of an inner srun, which a script in PATH gives back.
        return {"SLURM_CONF": str(self.conf), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}:{_SBIN}"}

    def start(self) -> None:
        """Start everything and wait until every node can take jobs."""
        self._write_configuration()
        munge = {"socket": self._munge_socket}
        munge |= {f"{name}-file": self.folder / f"munge.{name}" for name in ("key", "pid", "log", "seed")}
        # Forced, since its folder may lie under one that others can write to.
        self._daemon("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in munge.items()))
        wait_until(self._munge_socket.exists, "socket of munged")
        self._daemon("slurmctld", "-D", "-f", str(self.conf))
        for name in self.nodes:
            self.start_node(name)
        wait_until(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "idle nodes")

    def stop(self) -> None:
        """End all jobs and processes."""
        if "slurmctld" in self._processes and self._processes["slurmctld"].poll() is None:
            self.run("scancel", "--user=root", check=False)
            wait_until(lambda: not self.run("squeue", "--noheader", check=False), "end of the jobs")
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        self._daemon(name, "-D", "-f", str(self.conf), "-N", name, program="slurmd")

    def kill_node(self, name: str) -> list[str]:
        """A power cut of a node: its daemon and the processes of its jobs are gone. Gives the jobs' numbers."""
        lost = self.run("squeue", "--noheader", "--states=running", f"--nodelist={name}", "--format=%i").split()
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        for number in self._processes_of(lost):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return lost

    def preempt(self, node: str) -> None:
        """A job of a partition of higher priority takes a node for a moment."""
        urgent = ("--partition=urgent", f"--nodelist={node}", "--output=/dev/null", "--comment=urgent")
        self.run("sbatch", *urgent, "--wrap=true")

    def run(self, *command: str, check: bool = True) -> str:
        """What a SLURM command prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}\n{self.log('slurmctld')[-2000:]}")
        return done.stdout

    def log(self, name: str) -> str:
        """What a daemon wrote."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def states(self) -> dict[str, str]:
        """Node -> state."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %t", check=False).splitlines()
        return dict(line.split() for line in lines)

    def jobs(self) -> list[dict[str, str]]:
        """Every job that the controller remembers, as it has it: finished ones too."""
        # A name before "=" starts with a capital and follows a blank; values may hold blanks and "=".
        lines = self.run("scontrol", "show", "jobs", "--details", "--oneliner").splitlines()
        found = [dict(re.findall(r"(?:^|(?<=\s))([A-Z]\S*?)=(.*?)(?=\s+[A-Z]\S*?=|\s*$)", line)) for line in lines]
        return [job for job in found if "JobId" in job]

    def _processes_of(self, jobs: list[str]) -> list[int]:
        numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [number for number in numbers if self._belongs_to(Path(f"/proc/{number}"), jobs)]

    def _belongs_to(self, process: Path, jobs: list[str]) -> bool:
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            return False
        # The daemon of a step overwrites its own environment with its title. Its socket tells whose it is: another
        # cluster has jobs of the same numbers.
        if command.startswith(tuple(f"slurmstepd: [{job}." for job in jobs)):
            return bool(self._sockets() & _targets(process / "fd"))
        ours = any(variable.startswith(f"PATH={self.folder}/bin:") for variable in variables)
        return ours and any(f"SLURM_JOB_ID={job}" in variables for job in jobs)

    def _sockets(self) -> set[str]:
        """The Unix sockets in the cluster's folder, as the descriptors of a process name them."""
        lines = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]
        fields = [line.split() for line in lines]
        return {f"socket:[{field[6]}]" for field in fields if field[-1].startswith(f"{self.folder}/")}

    def _daemon(self, name: str, *arguments: str, program: str = "") -> None:
        executable = shutil.which(program or name, path=f"{os.environ['PATH']}:{_SBIN}")
        assert executable, program or name
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                [executable, *arguments],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _write_configuration(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", "bin", *(f"spool.{node}" for node in self.nodes)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        srun = self.folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {shutil.which("srun")} "$@"\n', encoding="utf-8")
        srun.chmod(0o755)
        self.conf.write_text(self._slurm_conf(), encoding="utf-8")
        (self.folder / "gres.conf").write_text(self._gres_conf(), encoding="utf-8")

    def _slurm_conf(self) -> str:
        host = socket.gethostname().split(".")[0]
        controller_port, *ports = _free_ports(1 + len(self.nodes))
        settings = {
            "ClusterName": "tests",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": controller_port,
            # Jobs of a dead node wait for their credentials to expire before they start elsewhere.
            "AuthInfo": f"socket={self._munge_socket},cred_expire=10",
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool.%n",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.%n.pid",
            # No cgroups, no database.
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "JobCompType": "jobcomp/filetxt",
            "JobCompLoc": self.folder / "finished_jobs",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            # Nodes have what is written here, whatever the machine has.
            "SlurmdParameters": "config_overrides",
            "GresTypes": "gpu",
            # Who comes from a partition of a higher tier puts others back into the queue.
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "ReturnToService": 2,
            # Tests read at their end what the jobs were given.
            "MinJobAge": 7200,
            "SlurmdTimeout": self._silence,
            # A busy machine takes its time to answer and to start a job; not found in time, it would be started again.
            "MessageTimeout": max(10, self._silence // 2),
            "BatchStartTimeout": max(10, self._silence),
            # A job past its time is killed within seconds.
            "KillWait": 2,
            "SchedulerParameters": "sched_interval=2,bf_interval=2,requeue_delay=1",
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        for node, port in zip(self.nodes.values(), ports, strict=True):
            gpus = f" Gres=gpu:{MODEL}:{node.gpus}" if node.gpus else ""
            where = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            lines.append(f"NodeName={node.name} {where} CPUs={node.cpus} RealMemory=32000{gpus}")
        for partition, has_gpus in (("cpu", False), ("gpu", True)):
            names = ",".join(node.name for node in self.nodes.values() if bool(node.gpus) == has_gpus)
            tier = f"Default={'NO' if has_gpus else 'YES'} PriorityTier=1"
            lines.append(f"PartitionName={partition} Nodes={names} {tier} State=UP")
        lines.append("PartitionName=urgent Nodes=ALL PriorityTier=2 State=UP")
        return "\n".join(lines) + "\n"

    def _gres_conf(self) -> str:
        lines = ["AutoDetect=off"]
        for node in self.nodes.values():
            for number in range(node.gpus):
                device = self.folder / f"{node.name}.gpu{number}"
                # The same device as /dev/null.
                os.mknod(device, 0o600 | 0o020000, os.makedev(1, 3))
                lines.append(f"NodeName={node.name} Name=gpu Type={MODEL} File={device}")
        return "\n".join(lines) + "\n"


def _targets(descriptors: Path) -> set[str]:
    """What the descriptors of a process are of; none where it has ended."""
    found = set()
    with suppress(OSError):
        for entry in descriptors.iterdir():
            found.add(str(entry.readlink()))
    return found


@contextmanager
def running_cluster(nodes: Sequence[Node], silence: int = SILENCE) -> Iterator[SlurmCluster]:
    """A cluster of these nodes; where SLURM is not installed, the test is skipped."""
    missing = missing_programs()
    if missing or os.getuid() != 0:
        reason = f"SLURM is not installed: no {', '.join(missing)}" if missing else "only root can start a cluster"
        (pytest.fail if IN_CI else pytest.skip)(reason)
    # Each step of a job has a Unix socket in this folder, whose path may have 107 characters: a test's own is too long.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        cluster = SlurmCluster(Path(folder), nodes, silence)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
