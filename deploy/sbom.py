"""Write a CycloneDX 1.6 bill of the packages installed here to standard output.

Called by the Dockerfile with the interpreter that the image runs. The same packages give the same
bytes: no time, no random serial number.
"""

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def component(found: Distribution) -> dict[str, Any]:
    """One package: name as PyPI writes it, version, licence as it states it."""
    name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
    url = f"pkg:pypi/{name}@{found.version}"
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": found.version,
        "purl": url,
    }
    licence = found.metadata.get("License-Expression")
    if licence:
        made["licenses"] = [{"expression": licence}]
    return made


def bill() -> dict[str, Any]:
    """The whole document, ordered by package."""
    components = {part["bom-ref"]: part for part in map(component, distributions())}
    ordered = [components[key] for key in sorted(components)]
    ours = [part for part in ordered if part["name"] == "stream-app"]
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": [part for part in ordered if part not in ours],
    }
    if ours:
        document["metadata"] = {"component": ours[0] | {"type": "application"}}
    return document


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
