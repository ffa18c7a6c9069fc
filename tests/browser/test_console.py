"""The console in a real browser: on a phone and on a desk, in light and dark, without scripts.

It needs Debian's chromium. Screenshots are kept in the test's folder (`--basetemp` says where).
"""

from pathlib import Path
from uuid import UUID

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from app.domain.consent import Scope
from app.usecases.deciding.decide import decide_intents
from tests.e2e.api import Site, house, intent, sink, site  # noqa: F401  # fixtures
from tests.e2e.test_api_reading import seen
from tests.e2e.test_api_timeline import says, wrote

pytestmark = pytest.mark.debian

SIZES = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1200, "height": 900}}


def busy(site: Site) -> str:  # noqa: F811  # a fixture's name
    """A customer to whom a lot happened; the intent of which most is to be told."""
    seen(site, "order-991-shipped")
    wrote(site, "order-991-shipped")
    slow = site.post("/v1/intents", intent(key="refund-1299")).json()["id"]
    site.house.run()
    site.house.execute(
        "UPDATE deliveries SET handed_over_at = now() - interval '31 minutes' "
        "WHERE intent_id = CAST(:id AS uuid)",
        id=slow,
    )
    decide_intents(site.house.runtime, [UUID(slow)])
    says(site, False, Scope(), "preferences")
    site.post("/v1/intents", intent(key="appointment-0412-reminder", campaign="spring"))
    late = intent(
        key="invoice-7", send_after="2999-01-01T00:00:00Z", expires_at="2999-02-01T00:00:00Z"
    )
    site.post("/v1/intents", late)
    site.house.execute(
        """UPDATE customers SET wishes = '{"channels": ["sms"],
           "quiet": {"from": "21:00", "to": "08:00"}}', timezone = 'Europe/Berlin'"""
    )
    return str(slow)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_readable_for_everybody(
    site: Site,  # noqa: F811  # a fixture
    chromium: Browser,
    tmp_path: Path,
    scheme: str,
    size: str,
) -> None:
    told = busy(site)
    wide = {"viewport": SIZES[size], "is_mobile": size == "phone"}
    signed = {"username": "ops", "password": site.key}
    with_scripts = chromium.new_context(
        color_scheme=scheme, http_credentials=signed, bypass_csp=True, **wide
    )
    plain = chromium.new_context(
        color_scheme=scheme, http_credentials=signed, java_script_enabled=False, **wide
    )
    for name, path in (
        ("find", "/console"),
        ("intent", f"/console/intents/{told}"),
        ("customer", "/console/customers/ada"),
    ):
        page = plain.new_page()
        page.goto(site.url + path)
        page.screenshot(path=tmp_path / f"{name}-{size}-{scheme}.png", full_page=True)
        checked = with_scripts.new_page()
        checked.goto(site.url + path)
        found = Axe().run(checked)
        assert found.violations_count == 0, found.generate_report()
        narrow = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert checked.evaluate(narrow), f"{path} is wider than the screen"
    page = plain.new_page()
    page.goto(site.url + "/console")
    page.get_by_label("Intent or customer").fill("refund-1299")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("refund-1299")
    page.get_by_role("link", name="ada").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("ada")
    plain.close()
    with_scripts.close()
