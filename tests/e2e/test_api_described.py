"""A tool that knows nothing but our description finds no fault with the API.

schemathesis calls every operation with what the description allows, with what it forbids and with
the borders between, follows links from one to the next, and holds each answer to what is promised.
What a schema cannot say is in `schemathesis.toml`. A failure prints the call that shows it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.api import Site

TOOL = Path(sys.executable).with_name("schemathesis")
SETTINGS = Path(__file__).with_name("schemathesis.toml")


def described(site: Site, folder: Path, *options: str) -> None:
    command = [
        TOOL, "--no-color", "--config-file", SETTINGS,
        "run", f"{site.url}/openapi.json",
        "--header", f"Authorization: Bearer {site.key}",
        "--checks", "all", "--continue-on-failure", "--generation-database", "none",
        "--warnings", "off", *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    paths = site.get("/openapi.json", key="").json()["paths"]
    assert f"Tested: {sum(map(len, paths.values()))}" in done.stdout, done.stdout


@pytest.mark.timeout(400)
def test_the_api_does_as_it_is_described(site: Site, tmp_path: Path) -> None:
    described(
        site, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "8", "--seed", "1",
        "--no-shrink",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_api_does_as_it_is_described_at_length(site: Site, tmp_path: Path, seed: int) -> None:
    described(site, tmp_path, "--max-examples", "150", "--seed", str(seed))
