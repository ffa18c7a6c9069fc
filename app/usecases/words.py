"""What this process knows of contents: templates, compiled skeletons, and the ids of contents.

Contents never change under their id or hash, so nothing here ever goes stale.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from app.content.cache import Kept
from app.content.check import Checker
from app.content.templates import Templates
from app.domain.tokens import Signer
from app.store.contents import load_contents

KEPT = 2_000


@dataclass(frozen=True, slots=True)
class Words:
    """Templates by name and locale, the signer of links, and caches; safe over threads."""

    templates: Templates
    checker: Checker
    signer: Signer
    public_url: str
    ids: Kept[int] = field(default_factory=lambda: Kept(KEPT))
    documents: Kept[dict[str, Any]] = field(default_factory=lambda: Kept(KEPT))
    skeletons: Kept[Any] = field(default_factory=lambda: Kept(KEPT))

    def load(self, engine: Engine, ids: Collection[int]) -> dict[int, dict[str, Any]]:
        """The documents of contents by id; the ledger is asked for those not known yet alone."""
        found = {key: self.documents.find(key) for key in ids}
        missing = [key for key, document in found.items() if document is None]
        if missing:
            with engine.begin() as connection:
                loaded = load_contents(connection, missing)
            for key, document in loaded.items():
                found[key] = self.documents.keep(key, document)
        return {key: document for key, document in found.items() if document is not None}
