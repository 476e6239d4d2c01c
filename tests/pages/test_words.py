"""No page says a word that cannot be translated, and none is cut when words are longer."""

import gettext
import re

import pytest
from playwright.async_api import Browser, Page

from keybearer.adapters.languages import Language, language
from keybearer.domain.errors import PROBLEMS
from keybearer.settings import Settings
from keybearer.web.pages import rendering, site, words
from tests.pages.conftest import context_of
from tests.pages.site import Site
from tests.pages.states import MEMBERS, VISITORS, populate

_ACCENTED = str.maketrans("aeiouAEIOUcn", "àéîöûÀÉÎÖÛçñ")


class Pseudo(gettext.NullTranslations):
    """Every message in brackets, with accents, and half as long again: `[Ñàmé~~]`."""

    def gettext(self, message: str) -> str:
        parts = re.split(r"(\{\w+\})", message)
        changed = "".join(
            part if part.startswith("{") else part.translate(_ACCENTED) for part in parts
        )
        return f"[{changed}{'~' * (len(message) // 2)}]"

    def ngettext(self, one: str, many: str, n: int) -> str:
        return self.gettext(one if n == 1 else many)


@pytest.fixture
def pseudo(monkeypatch: pytest.MonkeyPatch) -> Language:
    import babel

    made = Language("en", Pseudo(), babel.Locale.parse("en"))

    def spoken(tag: str | None) -> Language:
        return made if tag in (None, "en") else language(tag)

    monkeypatch.setattr(site, "language", spoken)
    monkeypatch.setattr(rendering, "language", spoken)
    return made


# What people, programs and CLDR have written, and proper names.
_NOT_OURS = re.compile(
    r"""
    kb_\w+… | keybearer | /dev/outbox | ann@example\.com | [\w-]+:[\w-]+ | \.env | curl | Python
    | GitHub\ Actions | CSV | JSON | python-\w+/[\d.]+ | curl/[\d.]+ | Chrome\ \d+
    | [0-9a-f]{8}-[0-9a-f-]{27} | [0-9a-f]{16} | [\d.]+/\d+ | 2001:db8::/32 | \d+\.\d+\.\d+\.\d+
    | \w{3}\ \d+,\ \d{4},\ \d+:\d+\s[AP]M(\ UTC)? | \w+\ \d+,\ \d{4}
    | (in\ )?\d+\ (second|minute|hour|day|month|year)s?(\ ago)? | [\d,.%]+ | [~·…()|:/n]
    """,
    re.VERBOSE,
)
_THEIRS = (
    *("Trial of the new billing export", "Old laptop", "GitHub Actions", "Deploys to production"),
    *("Nightly backup", "Runs on the backup host at two in the morning", "Grafana dashboard"),
    *(
        "Mobile app",
        "The app in the shops.",
        "Ask before you touch it.",
        "CI job",
        "CI",
        "Deploys",
        "To be revoked",
        "Not mine",
    ),
    "A name of sixty-four characters, as long as a name can ever get.",
    *("deploy", "files", "users", "read", "write", "run"),
)


async def plain_words(page: Page) -> list[str]:
    """What stands on the page outside of brackets, and is nobody's but ours."""
    text = await page.locator("body").inner_text()
    for tag in Settings().locales:
        text = text.replace(language(tag).name, "")
    while re.search(r"\[[^\[\]]*\]", text):
        text = re.sub(r"\[[^\[\]]*\]", " ", text)
    for theirs in sorted(_THEIRS, key=len, reverse=True):
        text = text.replace(theirs, " ")
    text = re.sub(r'curl -H "Authorization: Bearer \S+ \S+', " ", text)
    left = _NOT_OURS.sub(" ", text)
    return re.findall(r"[A-Za-z]{2,}", left)


async def test_every_word_of_every_page_can_be_translated(
    chromium: Browser, site: Site, pseudo: Language
) -> None:
    town = await populate(site)
    found: dict[str, list[str]] = {}
    async with context_of(chromium, site) as context:
        page = await context.new_page()
        for states in (VISITORS, MEMBERS):
            await context.clear_cookies()
            if states is MEMBERS:
                await site.log_in(context)
            for name, state in states.items():
                await state(page, town, "en")
                if plain := await plain_words(page):
                    found[name] = plain
    assert not found, found


async def test_longer_words_are_not_cut_off_on_a_phone(
    chromium: Browser, site: Site, pseudo: Language
) -> None:
    town = await populate(site)
    cut: dict[str, list[str]] = {}
    async with context_of(chromium, site) as context:
        await site.log_in(context)
        page = await context.new_page()
        await page.set_viewport_size({"width": 390, "height": 844})
        for name, state in {**MEMBERS, **VISITORS}.items():
            await state(page, town, "en")
            found: list[str] = await page.evaluate(
                """() => [...document.querySelectorAll("h1, h2, p, a, button, label, dt, dd")]
                   .filter(each => each.checkVisibility() && !each.closest(".sr, .scroll, pre"))
                   .filter(each => !["sr", "skip", "description"].includes(each.className))
                   .filter(each => each.getBoundingClientRect().right > 391
                     || each.getBoundingClientRect().left < -1)
                   .map(each => each.outerHTML.slice(0, 90))"""
            )
            if found:
                cut[name] = found
    assert not cut, cut


def test_every_code_that_a_page_can_meet_has_words() -> None:
    say = language("en")
    for code in PROBLEMS:
        assert words.problem(say, code, Settings()).strip()


@pytest.mark.parametrize(
    ("agent", "short"),
    [
        (None, ""),
        ("", ""),
        ("curl/8.7", "curl/8.7"),
        ("python-requests/2.32 extra", "python-requests/2.32"),
        ("Mozilla/5.0 (X11) AppleWebKit/537 Chrome/156.0.0.0 Safari/537", "Chrome 156"),
        ("Mozilla/5.0 (X11) AppleWebKit/537 Chrome/156.0 Safari/537 Edg/156.0", "Edge 156"),
        ("Mozilla/5.0 (X11; rv:131.0) Gecko/20100101 Firefox/131.0", "Firefox 131"),
        ("Mozilla/5.0 (Mac) AppleWebKit/605 Version/18.1 Safari/605", "Safari 18"),
        ("Mozilla/5.0", "Mozilla/5.0"),
        ("x" * 300, "x" * 40),
    ],
)
def test_a_client_has_a_short_name(agent: str | None, short: str) -> None:
    assert words.client(agent) == short


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (60_000, "1 minute"),
        (90_000, "90 seconds"),
        (7_200_000, "2 hours"),
        (86_400_000, "1 day"),
        (1_500, "1,500 milliseconds"),
    ],
)
def test_a_span_is_said_in_the_unit_that_it_is_whole_in(ms: int, said: str) -> None:
    assert words.span(language("en"), ms) == said
