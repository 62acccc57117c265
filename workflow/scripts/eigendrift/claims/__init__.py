"""Score the paper's claims: operational tests from paper/claims.yaml, measured on the tables of one results folder.

`load_claims` reads and checks the tests, `load_evidence` the tables, `score_claims` gives one scored part for every
test, dataset and optimizer, and `claims_table`, `markdown` and `latex` write them down. Imports no torch.
"""

from eigendrift.claims.definition import Claim, Condition, Requirement, OperationalTest, load_claims, parse_claims
from eigendrift.claims.evidence import Evidence, FinalEigenvector, build_evidence, load_evidence
from eigendrift.claims.report import CLAIMS_UNITS, claims_table, latex, markdown
from eigendrift.claims.scoring import VERDICTS, Part, ScoredClaim, score_claims
from eigendrift.claims.statistics import Estimate, bootstrap_interval

__all__ = [
    "CLAIMS_UNITS",
    "VERDICTS",
    "Claim",
    "Condition",
    "Estimate",
    "Evidence",
    "FinalEigenvector",
    "OperationalTest",
    "Part",
    "Requirement",
    "ScoredClaim",
    "bootstrap_interval",
    "build_evidence",
    "claims_table",
    "latex",
    "load_claims",
    "load_evidence",
    "markdown",
    "parse_claims",
    "score_claims",
]
