"""A real homeserver, Synapse, in an environment of its own, and people who have accounts there.

The environment is made from requirements-synapse.txt at the first use and kept in .venv-synapse.
"""

import base64
import fcntl
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import requests

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements-synapse.txt"
FOLDER = ROOT / ".venv-synapse"
SERVER = "example.org"
SECRET = "registers everybody"
AS_TOKEN, HS_TOKEN = "ours-for-the-tests", "theirs-for-the-tests"
T = TypeVar("T")


def wait_for(what: Callable[[], T | None], why: str, most_s: float = 60.0) -> T:
    """Wait until `what` returns something true, and return that."""
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {most_s:.0f} s: {why}")


def python_with_synapse() -> Path:
    """The Python that has Synapse; installs it if need be, and raises where that fails."""
    python, mark = FOLDER / "bin/python", FOLDER / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True, timeout=120)
            pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
            install = [*pip, "install", "--require-hashes", "-r", REQUIREMENTS]
            subprocess.run(install, check=True, timeout=600)
            mark.write_text(wanted)
    return python


@dataclass
class Synapse:
    """One homeserver with its data in `folder`, which pushes to the application service at `us`."""

    folder: Path
    port: int
    us: str
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def configure(self) -> None:
        """Write its configuration and ours, as docs/matrix.md has it."""
        registration = {
            "id": "converge",
            "url": self.us,
            "as_token": AS_TOKEN,
            "hs_token": HS_TOKEN,
            "sender_localpart": "converge",
            "rate_limited": False,
            "receive_ephemeral": True,
            "namespaces": {
                "aliases": [{"regex": r"#converge_[0-9a-f]{40}:example\.org", "exclusive": True}]
            },
        }
        homeserver = {
            "server_name": SERVER,
            "listeners": [
                {
                    "port": self.port,
                    "bind_addresses": ["127.0.0.1"],
                    "type": "http",
                    "resources": [{"names": ["client"]}],
                }
            ],
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "home.db")}},
            "signing_key_path": str(self.folder / "signing.key"),
            "media_store_path": str(self.folder / "media"),
            "registration_shared_secret": SECRET,
            "macaroon_secret_key": SECRET,
            "form_secret": SECRET,
            "report_stats": False,
            "trusted_key_servers": [],
            "app_service_config_files": [self._write("converge.yaml", registration)],
        }
        self._write("homeserver.yaml", homeserver)
        key = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        (self.folder / "signing.key").write_text(f"ed25519 a_test {key}\n")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [python_with_synapse(), "-m", "synapse.app.homeserver", "-c", "homeserver.yaml"]
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=output, stderr=output)
        wait_for(self._answers, f"Synapse to answer; see {self.folder / 'output'}")

    def stop(self) -> None:
        """End it, whatever that takes."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(20)
            self._process = None

    def register(self, name: str) -> "Person":
        """A new account, made with the shared secret."""
        path = "/_synapse/admin/v1/register"
        nonce = requests.get(self.url + path, timeout=20).json()["nonce"]
        told = "\0".join([nonce, name, "a password", "notadmin"])
        mac = hmac.new(SECRET.encode(), told.encode(), "sha1").hexdigest()
        account = {"nonce": nonce, "username": name, "password": "a password", "mac": mac}
        made = requests.post(self.url + path, json=account, timeout=20).json()
        return Person(self.url, made["user_id"], made["access_token"])

    def us_as_person(self) -> "Person":
        """The application service's own user."""
        return Person(self.url, f"@converge:{SERVER}", AS_TOKEN)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self.folder / "output").read_text()[-3000:]
        try:
            return requests.get(f"{self.url}/_matrix/client/versions", timeout=5).ok
        except requests.ConnectionError:
            return False

    def _write(self, name: str, document: dict[str, Any]) -> str:
        path = self.folder / name
        path.write_text(json.dumps(document))  # which is YAML, too
        return str(path)


@dataclass
class Person:
    """Somebody with an account, and what their app does for them."""

    url: str
    user: str
    token: str = field(repr=False)
    since: str | None = None

    def call(self, method: str, path: str, document: Any = None, **query: Any) -> Any:
        """Make a request of the client-server API, which must succeed."""
        answer = self.attempt(method, path, document, **query)
        assert answer.ok, answer.text
        return answer.json()

    def attempt(self, method: str, path: str, document: Any, **query: Any) -> requests.Response:
        """Make a request that may fail."""
        return requests.request(
            method,
            f"{self.url}/_matrix/client/v3/{path}",
            json=document,
            params=query,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=30,
        )

    def rooms(self, kind: str) -> dict[str, Any]:
        """Rooms that are new to them, or have something new: `join`, `invite` or `leave`."""
        query = {"since": self.since} if self.since else {}
        news = self.call("GET", "sync", timeout=500, **query)
        self.since = news["next_batch"]
        found: dict[str, Any] = news.get("rooms", {}).get(kind, {})
        return found

    def accept_invitation(self) -> str:
        """Join the one room that they are invited to."""
        invited = wait_for(lambda: self.rooms("invite"), f"an invitation of {self.user}")
        [room] = invited
        self.call("POST", f"rooms/{quote(room)}/join", {})
        return str(room)

    def messages(self, room: str) -> list[dict[str, Any]]:
        """What was written in a room, oldest first."""
        chunk = self.call("GET", f"rooms/{quote(room)}/messages", dir="b", limit=100)["chunk"]
        return [event for event in reversed(chunk) if event["type"] == "m.room.message"]

    def read(self, room: str, event: str) -> None:
        """Let it be known that they have read up to here."""
        self.call("POST", f"rooms/{quote(room)}/receipt/m.read/{quote(event)}", {})

    def write(self, room: str, text: str, answers: str | None = None) -> str:
        """Write a message, which may answer another."""
        content: dict[str, Any] = {"msgtype": "m.text", "body": text}
        if answers:
            content["m.relates_to"] = {"m.in_reply_to": {"event_id": answers}}
        path = f"rooms/{quote(room)}/send/m.room.message/{time.monotonic_ns()}"
        return str(self.call("PUT", path, content)["event_id"])
