"""The worker's image, built and run where there is no Docker engine: by Buildah, in a chroot.

Where the base image cannot be pulled either, a Debian with its own Python stands in for it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.11-slim"  # as deploy/Dockerfile has it, with its registry
DEBIAN, MIRROR = "bookworm", "http://deb.debian.org/debian"
PACKAGES = "python3.11,python3.11-venv,python3-pip,ca-certificates,netbase,tzdata"
PULL_S, BUILD_S, RUN_S = 60, 1_200, 60
CHROOT = "--isolation=chroot"  # needs no runtime, no namespaces and no control groups
# What pip needs behind a proxy or with an index of its own; a file is taken along.
PIP = ("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


class Builder:
    """Buildah with a storage of its own below ``home``."""

    def __init__(self, home: Path) -> None:
        if shutil.which("buildah") is None:
            pytest.skip("buildah is not installed: no image is built here")
        if os.geteuid() != 0:
            pytest.skip("building an image in a chroot needs root")
        self.home = home
        self._storage = ["--storage-driver=vfs", f"--root={home}/root", f"--runroot={home}/run"]

    def command(self, *arguments: str) -> list[str]:
        """What a shell would be told."""
        return ["buildah", *self._storage, *arguments]

    def __call__(self, *arguments: str, timeout_s: float = RUN_S) -> str:
        """Run it; returns what it prints."""
        done = self.attempt(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout.strip()

    def attempt(self, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """The same, whatever comes of it."""
        command = self.command(*arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)

    def remove(self) -> None:
        """Forget all containers and images, and free what they took."""
        self.attempt("rm", "--all", timeout_s=BUILD_S)
        shutil.rmtree(self.home)

    def build(self) -> str:
        """Build deploy/Dockerfile from what is checked out; returns the name of the image."""
        self._base()
        file, name = str(ROOT / "deploy" / "Dockerfile"), "stream-app"
        options = ["--pull-never", "--format=docker", f"--file={file}", f"--tag={name}"]
        self("build", CHROOT, *options, str(ROOT), timeout_s=BUILD_S)
        return name

    def _base(self) -> None:
        """Have the base image, with what pip needs on this machine."""
        try:
            pulled = self.attempt("pull", "--quiet", BASE, timeout_s=PULL_S).returncode == 0
        except subprocess.TimeoutExpired:  # some networks refuse nothing and answer nothing
            pulled = False
        container = self("from", "--pull-never", BASE if pulled else "scratch")
        if not pulled:
            self("copy", "--quiet", container, str(self._debian()), "/", timeout_s=BUILD_S)
            self("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
        for name in PIP:
            if value := os.environ.get(name):
                self("config", f"--env={name}={value}", container)
                if Path(value).is_file():
                    self("copy", "--quiet", container, value, value)
        self("commit", "--quiet", container, BASE, timeout_s=BUILD_S)
        self("rm", container)

    def _debian(self) -> Path:
        if shutil.which("debootstrap") is None:
            pytest.skip(f"{BASE} cannot be pulled, and debootstrap is not installed")
        home = self.home / DEBIAN
        options = ["--variant=minbase", f"--include={PACKAGES}", DEBIAN, str(home), MIRROR]
        done = subprocess.run(
            ["debootstrap", *options], capture_output=True, text=True, timeout=BUILD_S
        )
        if done.returncode != 0:
            pytest.skip(f"debootstrap cannot fetch {DEBIAN}: {done.stdout[-300:]}")
        for name in ("python", "python3"):
            (home / "usr" / "local" / "bin" / name).symlink_to("/usr/bin/python3.11")
        (home / "usr" / "lib" / "python3.11" / "EXTERNALLY-MANAGED").unlink()
        return home


class Container:
    """A container of ``image``; what it runs is a process of this machine, on its network."""

    def __init__(self, builder: Builder, image: str) -> None:
        self._builder = builder
        self.name = builder("from", "--pull-never", f"localhost/{image}")
        told = json.loads(builder("inspect", "--type=container", self.name))
        self.config: dict[str, Any] = told["Docker"]["config"]

    def command(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        mounted: Sequence[Path] = (),
    ) -> list[str]:
        """What to start on this machine so that ``arguments`` run inside, as the image's user."""
        options = [f"--env={name}={value}" for name, value in (environment or {}).items()]
        options += [f"--volume={path}:{path}:ro" for path in mounted]
        return self._builder.command("run", CHROOT, *options, self.name, "--", *arguments)

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run something to its end; returns what it prints."""
        command = self.command(arguments, environment=environment)
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout.strip()


def inside(pid: int) -> int:
    """The process that a container's command became: the last child of children."""
    while True:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        if not children:
            return pid
        pid = children[0]
