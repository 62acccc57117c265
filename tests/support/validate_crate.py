"""Validate an RO-Crate with the reference validator, without a network: python validate_crate.py FOLDER PROFILE.

Prints what the profile requires and the crate lacks, and ends with 1 if there is such a thing. The validator asks for
the context of RO-Crate 1.1 by its address, and gets the one of the package rocrate. That is the one of version 1.3,
with the names of Bioschemas as version 1.1 has them. No other address is there.
"""

import re
import sys
from pathlib import Path

import requests
import rocrate
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

CONTEXT = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_text(encoding="utf-8")
CONTEXT = re.sub("bioschemas.org/terms/(?=[A-Z])", "bioschemas.org/", CONTEXT)
CONTEXT = CONTEXT.replace("bioschemas.org/terms/", "bioschemas.org/properties/")


def get(self: HttpRequester, url: str, **_: object) -> requests.Response:
    answer = requests.Response()
    found = url == "https://w3id.org/ro/crate/1.1/context"
    answer.status_code = 200 if found else 404
    answer._content = CONTEXT.encode() if found else b""
    answer.headers["Content-Type"] = "application/ld+json"
    return answer


HttpRequester.get = get
HttpRequester.head = get
folder, profile = sys.argv[1:]
result = services.validate(
    services.ValidationSettings(
        rocrate_uri=folder, profile_identifier=profile, requirement_severity=models.Severity.REQUIRED
    )
)
for issue in result.get_issues():
    print(issue.check.identifier, issue.message)
sys.exit(not result.passed())
