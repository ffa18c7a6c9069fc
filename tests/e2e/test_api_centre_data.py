"""What customers do with their own data in the preference centre: download it, and erase it."""

from typing import Any

import pytest

from app.domain.tokens import Purpose
from tests.e2e.api import Site
from tests.e2e.test_api_centre import Visitor
from tests.store.conftest import intent

ACTS = ("download", "erase", "erase-surely")
STAYS = "a code made from your address"


@pytest.fixture
def ada(site: Site) -> Visitor:
    """Ada, beside somebody who must not be seen in what is hers; both were written to."""
    eve = {"email": "eve@example.com", "phone": "+12025550102"}
    assert site.put("/v1/customers/eve", eve).status_code == 200
    for ref in ("ada", "eve"):
        content = {"subject": "Hello", "text": f"Only for {ref}."}
        assert site.post("/v1/intents", intent(to=ref, content=content)).status_code == 201
    site.house.run()
    return Visitor(site)


def audited(site: Site) -> list[tuple[str, str]]:
    """Who gave out or erased customers."""
    rows = site.house.rows(
        "SELECT actor, action FROM audit WHERE action IN ('customer.export', 'customer.erase')"
        " ORDER BY id"
    )
    return [(row.actor, row.action) for row in rows]


def test_the_download_is_one_file_of_ones_own_data_alone(ada: Visitor, site: Site) -> None:
    page = ada.get().text
    assert 'name="do" value="download"' in page
    answer = ada.send(do="download")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="my-data.json"'
    assert answer.headers["Cache-Control"] == "no-store"
    told: dict[str, Any] = answer.json()
    assert told["customer"]["ref"] == "ada"
    assert {one["address"] for one in told["endpoints"]} == {"ada@example.com", "+12025550101"}
    (one,) = told["intents"]
    assert one["said"]["text"] == "Only for ada."
    for strange in ("eve@example.com", "+12025550102", "Only for eve."):
        assert strange not in answer.text
    assert audited(site) == [("customer", "customer.export")]


def test_who_only_looks_gets_no_data_and_erases_nothing(ada: Visitor, site: Site) -> None:
    for act in ACTS:
        answer = ada.get(f"{ada.path}?do={act}")
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "Content-Disposition" not in answer.headers
        assert "Only for ada." not in answer.text
    asked = ada.send(do="erase")
    assert (asked.status_code, "Erase your data?" in asked.text) == (200, True)
    assert STAYS in asked.text
    assert f'href="{ada.path[3:]}"' in asked.text, "there is a way back"
    assert ada.get().status_code == 200
    assert audited(site) == []


def test_who_erases_themselves_is_gone_and_their_no_stays(ada: Visitor, site: Site) -> None:
    ada.act(do="pause", **{"for": "good"})
    site.put("/v1/customers/ada", {"locale": "de"})
    assert "Meine Daten löschen" in ada.send(do="erase").text
    done = ada.send(do="erase-surely")
    assert done.status_code == 200
    assert "Ihre Daten wurden gelöscht" in done.text
    assert done.headers["Cache-Control"] == "no-store"
    assert site.get("/v1/customers/ada").status_code == 404
    assert ada.get().status_code == 410
    for act in ACTS:
        again = ada.send(do=act)
        assert (again.status_code, "has been erased" in again.text) == (410, True)
        assert "newer message" not in again.text
    assert audited(site) == [("customer", "customer.erase")]
    assert len(site.house.rows("SELECT hash FROM suppressions")) == 2, "of the mail and the phone"
    assert site.get("/v1/customers/eve").status_code == 200
    (other,) = site.get("/v1/customers/eve/export").json()["intents"]
    assert other["said"]["text"] == "Only for eve."


def test_forged_tokens_neither_download_nor_erase(ada: Visitor, site: Site) -> None:
    (key,) = site.house.rows("SELECT id FROM customers WHERE ref = 'ada'")[0]
    good = ada.path[3:]
    forged = [good[:-1] + chr(ord(good[-1]) ^ 1), "x" * 36]
    forged += [ada.token(key, purpose) for purpose in Purpose if purpose is not Purpose.PREFERENCES]
    for token in forged:
        for act in ACTS:
            answer = site.call("POST", f"/p/{token}", key="", data={"do": act})
            assert answer.status_code == 404, (token, act)
            assert "ada@example.com" not in answer.text
    old = site.call("POST", f"/p/{ada.token(key, days=-1)}", key="", data={"do": "download"})
    assert (old.status_code, "ada@example.com" in old.text) == (410, False)
    assert site.get("/v1/customers/ada").status_code == 200
    assert audited(site) == []
