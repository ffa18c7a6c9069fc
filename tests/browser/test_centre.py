"""The preference centre in a real browser: on a phone, in light and dark, and without scripts.

It needs Debian's chromium. Screenshots are kept in the test's folder (`--basetemp` says where).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.domain.consent import Scope
from app.domain.tokens import Purpose, Rights
from app.domain.vocabulary import Kind
from app.usecases.consent.preferences import change_preferences, read_preferences
from app.usecases.consent.voices import Named, Voice
from app.usecases.operating.apply import BrandWish, Declared, apply
from app.usecases.people.customers import put_customers
from tests.e2e.api import Site, house, sink, site  # noqa: F401  # fixtures
from tests.statements import Statement, record
from tests.store.conftest import DECLARED, intent

pytestmark = pytest.mark.debian

PHONE = {"width": 390, "height": 844}
SHOP = BrandWish(
    settings={"title": "Field & Garden", "default_locale": "en", "default_sender": "store"},
    senders={
        "store": {"name": "Field & Garden Store", "email": "store@shop.example"},
        "care": {"name": "Customer care", "email": "care@shop.example"},
    },
    topics={
        "orders": "Your orders",
        "appointments": "Appointments and reminders",
        "news": "News and offers",
    },
)


@dataclass
class Centre:
    """A customer's preference centre, and what the ledger knows of it."""

    site: Site
    browser: Browser
    ada: Named
    url: str
    shots: Path

    @contextmanager
    def opened(self, *, scripts: bool = False, scheme: str = "light") -> Iterator[Page]:
        """The page on a phone."""
        context = self.browser.new_context(
            viewport=PHONE,
            device_scale_factor=2,
            is_mobile=True,
            has_touch=True,
            java_script_enabled=scripts,
            color_scheme=scheme,
        )
        context.set_default_timeout(15_000)
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(self.url)
        yield page
        assert all(url.startswith(self.site.url) for url in asked), asked
        context.close()

    def now(self) -> dict[str, Any]:
        """What the ledger says."""
        return read_preferences(self.site.house.runtime, self.ada)

    def shoot(self, page: Page, name: str) -> None:
        page.screenshot(path=self.shots / f"{name}.png", full_page=True)


@pytest.fixture
def centre(site: Site, chromium: Browser, tmp_path: Path) -> Centre:  # noqa: F811  # a fixture
    runtime = site.house.runtime
    apply(runtime, Declared({"garden": SHOP}, DECLARED.policies))
    runtime.catalog.forget()
    brand = runtime.catalog().brands["garden"]
    ada = Named(brand.id, "ada")
    known = {"ref": "ada", "email": "ada.lovelace@example.com", "phone": "+12025550101"}
    known |= {"locale": "en-GB", "chat": "matrix:@ada:example.org"}
    put_customers(runtime, brand.id, [known])
    (key,) = site.house.rows(
        "SELECT id FROM customers WHERE brand_id = :brand AND ref = 'ada'", brand=brand.id
    )[0]
    token = runtime.words.signer.sign(
        Purpose.PREFERENCES, key, expires_at=datetime.now(UTC) + timedelta(days=1)
    )
    return Centre(site, chromium, ada, f"{site.url}/p/{token}", tmp_path)


def busy(centre: Centre) -> None:
    """Let the page have everything on it that it can have."""
    runtime = centre.site.house.runtime
    voice = Voice("preferences", own=True, actor="customer")
    wanted = {
        "topics": {"orders": True, "news": False},
        "marketing": True,
        "everything": {"muted": True, "until": (datetime.now(UTC) + timedelta(days=7)).isoformat()},
        "senders": {"care": {"muted": True, "until": None}},
        "channels": ["sms"],
        "quiet_hours": {"from": "21:00", "to": "08:00"},
        "timezone": "Europe/Berlin",
    }
    told = change_preferences(runtime, centre.ada, wanted, voice)
    (person,) = centre.site.house.rows(
        "SELECT id FROM customers WHERE brand_id = :brand AND ref = 'ada'",
        brand=centre.ada.brand_id,
    )
    store = runtime.catalog().brands["garden"].senders["store"].id
    noes = [
        Scope(endpoint_id=next(a["id"] for a in told["addresses"] if a["channel"] == "sms")),
        Scope(sender_id=store, kind=Kind.MARKETING),
    ]
    record(
        runtime,
        centre.ada.brand_id,
        [Statement(person.id, scope, allow=False, source="text") for scope in noes],
    )
    new = {"ref": "ada", "email": "ada@example.net"}
    put_customers(runtime, centre.ada.brand_id, [new])
    centre.site.house.execute(
        "UPDATE endpoints SET state = 'invalid' WHERE channel = 'chat' AND brand_id = :brand",
        brand=centre.ada.brand_id,
    )


def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 A and AA, and its best practices."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


def too_small(page: Page) -> list[str]:
    """Controls under 44 pixels in height, which thumbs miss."""
    small: list[str] = page.eval_on_selector_all(
        "button, select, summary, a, label[for*='-yes'], label[for*='-no'], "
        "input:not([type=hidden]):not([type=radio])",
        """all => all.filter(one => one.checkVisibility())
                     .filter(one => one.getBoundingClientRect().height < 44)
                     .map(one => one.outerHTML)""",
    )
    return small


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en", "de"])
def test_axe_finds_nothing_and_everything_fits_a_phone(
    centre: Centre, scheme: str, locale: str
) -> None:
    centre.site.house.execute("UPDATE customers SET locale = :locale", locale=locale)
    with centre.opened(scripts=True, scheme=scheme) as page:
        centre.shoot(page, f"plain-{scheme}-{locale}")
        assert violations(page) == []
    busy(centre)
    with centre.opened(scripts=True, scheme=scheme) as page:
        for summary in page.locator("summary").all():
            summary.click()
        centre.shoot(page, f"busy-{scheme}-{locale}")
        assert violations(page) == []
        assert too_small(page) == []
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"]
        page.locator("#addresses details[open] button[value=remove]").first.click()
        centre.shoot(page, f"remove-{scheme}-{locale}")
        assert violations(page) == []
        page.get_by_role("link").click()
        page.locator("#addresses summary", has_text="+1").click()
        page.locator("#addresses input[type=tel]").fill("x")
        page.locator("#addresses form:has(input[type=tel]) button[value=correct]").click()
        expect(page.get_by_role("alert")).to_be_visible()
        centre.shoot(page, f"wrong-{scheme}-{locale}")
        assert violations(page) == []
        page.goto(f"{centre.site.url}/p/nonsense")
        centre.shoot(page, f"sorry-{scheme}-{locale}")
        assert violations(page) == []
        page.goto(centre.url)
        page.locator("#data button[value=erase]").click()
        centre.shoot(page, f"erase-{scheme}-{locale}")
        assert violations(page) == []
        assert too_small(page) == []
        page.locator("button.danger").click()
        centre.shoot(page, f"erased-{scheme}-{locale}")
        assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en", "de"])
def test_the_page_of_a_message_shows_no_address_and_sends_a_link(
    centre: Centre, scheme: str, locale: str
) -> None:
    runtime = centre.site.house.runtime
    centre.site.house.execute("UPDATE customers SET locale = :locale", locale=locale)
    signer = runtime.words.signer
    number = signer.read(centre.url[-36:], Purpose.PREFERENCES, datetime.now(UTC)).id
    until = datetime.now(UTC) + timedelta(days=1)
    token = signer.sign(Purpose.PREFERENCES, number, Rights.CHOOSE, until)
    busy(centre)
    centre.url = f"{centre.site.url}/p/{token}"
    with centre.opened(scripts=True, scheme=scheme) as page:
        centre.shoot(page, f"paused-{scheme}-{locale}")
        assert violations(page) == []
        expect(page.locator("#link button")).to_have_count(0)
        page.locator("#pause button").click()
        centre.shoot(page, f"choose-{scheme}-{locale}")
        assert violations(page) == []
        assert too_small(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert "a***@example.net" in page.locator("#link").inner_text()
        assert "ada@example.net" not in page.content()
        page.locator("#link button").first.click()
        expect(page.locator("#link").get_by_role("status")).to_be_visible()
        centre.shoot(page, f"sent-{scheme}-{locale}")
        assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_unsubscribing_takes_one_button_and_leads_to_all_choices(
    centre: Centre, scheme: str
) -> None:
    runtime = centre.site.house.runtime
    assert centre.site.post("/v1/intents", intent(kind="conversational")).ok
    centre.site.house.run()
    mime = centre.site.house.sink.messages[-1].mime.decode()
    found = re.search(r"/u/[\w-]{36}", mime)
    assert found
    centre.url = centre.site.url + found[0]
    with centre.opened(scripts=True, scheme=scheme) as page:
        centre.shoot(page, f"unsubscribe-{scheme}")
        assert violations(page) == []
        assert too_small(page) == []
        page.get_by_role("button", name="Unsubscribe").click()
        expect(page.get_by_role("heading")).to_have_text("You are unsubscribed")
        centre.shoot(page, f"unsubscribed-{scheme}")
        assert violations(page) == []
        choices = page.get_by_role("link", name="All your choices").get_attribute("href")
        assert choices
        assert choices.startswith(runtime.words.public_url + "/p/")


def test_everything_works_without_scripts(centre: Centre) -> None:
    with centre.opened() as page:
        orders = page.get_by_role("radiogroup", name=re.compile("^Your orders"))
        orders.get_by_text("Yes", exact=True).click()
        page.locator("#topics").get_by_role("button", name="Save").click()
        expect(page.locator("#topics").get_by_role("status")).to_have_text("Saved.")
        assert centre.now()["topics"]["orders"] is True

        care = page.locator("#senders details", has_text="Customer care")
        care.locator("summary").click()
        care.get_by_role("button", name="For an hour").click()
        expect(page.locator("#senders")).to_contain_text("Muted until")
        assert centre.now()["senders"]["care"]["muted"]
        page.get_by_role("button", name="Unmute").click()
        expect(page.get_by_role("button", name="Unmute")).to_have_count(0)
        assert not centre.now()["senders"]["care"]["muted"]

        page.get_by_label("First", exact=True).select_option(label="Text message")
        page.locator("#channels").get_by_role("button", name="Save").click()
        expect(page.locator("#channels").get_by_role("status")).to_have_text("Saved.")
        assert centre.now()["channels"] == ["sms"]

        page.get_by_label("From").fill("22:00")
        page.get_by_label("To", exact=True).fill("07:30")
        page.get_by_label("Your time zone").select_option("Europe/Berlin")
        page.locator("#quiet").get_by_role("button", name="Save").click()
        expect(page.locator("#quiet").get_by_role("status")).to_have_text("Saved.")
        assert centre.now()["quiet_hours"] == {"from": "22:00", "to": "07:30"}
        assert centre.now()["timezone"] == "Europe/Berlin"

        phone = page.locator("#addresses details:has(input[type=tel])")
        phone.locator("summary").click()
        phone.get_by_label("Your phone number").fill("+49 30 901820")
        phone.get_by_role("button", name="Save").click()
        expect(phone.locator("summary")).to_contain_text("+49 30 901820")
        mail = page.locator("#addresses details:has(input[type=email])")
        mail.locator("summary").click()
        mail.get_by_role("button", name="Remove").click()
        expect(page.get_by_role("heading")).to_have_text("Remove this address?")
        page.get_by_role("button", name="Remove").click()
        expect(page.get_by_role("heading", name="Remove this address?")).to_have_count(0)
        have = [one["address"] for one in centre.now()["addresses"]]
        assert have == ["@ada:example.org", "+4930901820"]

        with page.expect_download() as download:
            page.get_by_role("button", name="Download my data").click()
        assert download.value.suggested_filename == "my-data.json"
        assert "@ada:example.org" in download.value.path().read_text()

        page.get_by_text("Pause everything").click()
        page.locator("#pause").get_by_role("button", name="For a week").click()
        expect(page.locator("#pause")).to_contain_text("Everything is paused")
        assert centre.now()["everything"]["muted"]
        page.get_by_role("button", name="Send me messages again").click()
        expect(page.locator("#pause")).not_to_contain_text("Everything is paused")
        assert not centre.now()["everything"]["muted"]


def test_a_wrong_answer_is_told_at_its_field_and_nothing_typed_is_lost(centre: Centre) -> None:
    with centre.opened() as page:
        page.get_by_label("From").fill("21:00")
        page.get_by_label("To", exact=True).fill("21:00")
        page.locator("#quiet").get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("two different times")
        expect(page.get_by_role("alert")).to_be_in_viewport()
        expect(page.get_by_label("From")).to_have_value("21:00")
        expect(page.get_by_label("From")).to_have_attribute("aria-invalid", "true")
        assert centre.now()["quiet_hours"] is None
        assert page.title().startswith("Please check")
