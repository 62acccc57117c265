# Finds this checkout, whoever includes these rules, and lets Python import its packages; no rules.
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def git(folder, *arguments):
    """What a command of git says in a folder."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def checkout(rules):
    """The folder of the checkout with these rules: where they lie, or a clone where Snakemake reads them from git.

    Python cannot import from what Snakemake reads, which is single files of a bare repository.
    """
    if isinstance(rules, os.PathLike):
        return Path(rules).absolute().parents[1]
    repository = Path(rules.repo_path if hasattr(rules, "repo_path") else rules.hosted_repo.repo_clone).absolute()
    commit = git(repository, "rev-parse", "--verify", f"{rules.ref}^{{commit}}")
    clone = Path(".snakemake", "eigendrift", commit).absolute()
    if not clone.is_dir():
        clone.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=clone.parent) as folder:
            git(folder, "clone", "--quiet", "--no-checkout", str(repository), "clone")
            git(f"{folder}/clone", "checkout", "--quiet", "--detach", commit)
            os.rename(f"{folder}/clone", clone)
    return clone


CHECKOUT = checkout(workflow.current_basedir)
sys.path.insert(0, str(CHECKOUT / "workflow" / "scripts"))
