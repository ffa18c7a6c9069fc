"""A small Matrix homeserver in memory: what a bot needs of it, and nothing more."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.contract.servers import Answer, Request

PREFIX = "/_matrix/client/v3/"


def said(document: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document).encode())


def error(status: int, code: str, **more: Any) -> Answer:
    return said({"errcode": code, "error": "in words", **more}, status)


@dataclass
class Homeserver:
    """Rooms by alias, members by room, events by transaction; `strangers` have no profile."""

    strangers: frozenset[str] = frozenset()
    rooms: dict[str, str] = field(default_factory=dict)
    members: dict[str, dict[str, str]] = field(default_factory=dict)
    events: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Answer:
        path = urlsplit(request.path).path.removeprefix(PREFIX)
        parts = [unquote(part) for part in path.split("/")]
        document = json.loads(request.body) if request.body else {}
        with self._lock:
            match request.method, *parts:
                case "GET", "directory", "room", alias:
                    room = self.rooms.get(alias)
                    return said({"room_id": room}) if room else error(404, "M_NOT_FOUND")
                case "GET", "profile", user:
                    return error(404, "M_NOT_FOUND") if user in self.strangers else said({})
                case "POST", "createRoom":
                    return self._create(document)
                case "GET", "rooms", room, "state", "m.room.member", user:
                    return self._member(room, user)
                case "POST", "rooms", room, "invite":
                    self.members[room][document["user_id"]] = "invite"
                    return said({})
                case "PUT", "rooms", room, "send", "m.room.message", transaction:
                    name = f"${room[1:]}-{transaction}"
                    self.events.setdefault(name, (room, document))
                    return said({"event_id": name})
        return error(404, "M_UNRECOGNIZED")

    def _create(self, document: dict[str, Any]) -> Answer:
        alias = f"#{document['room_alias_name']}:example.org"
        if alias in self.rooms:
            return error(400, "M_ROOM_IN_USE")
        self.created.append(document)
        room = self.rooms[alias] = f"!room{len(self.rooms)}"
        self.members[room] = dict.fromkeys(document["invite"], "invite")
        return said({"room_id": room})

    def _member(self, room: str, user: str) -> Answer:
        membership = self.members[room].get(user)
        return said({"membership": membership}) if membership else error(404, "M_NOT_FOUND")
