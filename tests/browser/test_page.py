"""The page in a real browser, as somebody uses it. Skipped where Chromium is not installed."""

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from tests.bot.adapters.web.conftest import serving
from tests.bot.adapters.web.rehearsal import RehearsalChat
from tests.browser.drive import Chromium, Page, chromium, find_chromium

EXECUTABLE = find_chromium()
pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    assert EXECUTABLE is not None
    async with chromium(EXECUTABLE) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[tuple[str, RehearsalChat]]:
    chat = RehearsalChat()
    async with serving(chat) as adapter:
        yield adapter.url or "", chat


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Chromium, stage: tuple[str, RehearsalChat]) -> AsyncIterator[Page]:
    """A tab of somebody who was never here before."""
    page = await browser.new_page(context=True)
    await page.resize(1200, 800)
    await page.open(stage[0])
    yield page
    assert page.messages == []
    assert page.strangers() == []
    await page.aclose()


@pytest.fixture
def chat(stage: tuple[str, RehearsalChat]) -> RehearsalChat:
    stage[1].gate.set()
    stage[1].received.clear()
    return stage[1]


@pytest.fixture
def dog(tmp_path: Path) -> Path:
    path = tmp_path / "dog.png"
    Image.new("RGB", (64, 48), "#b98a5a").save(path)
    return path


async def say(page: Page, text: str) -> None:
    await page.run("document.querySelector('.composer textarea').focus()")
    await page.type(text)
    await page.press("Enter")


async def test_a_message_with_a_picture_is_answered(page: Page, chat: RehearsalChat, dog: Path) -> None:
    assert await page.run("document.querySelector('.round').disabled")
    chat.gate.clear()
    await page.attach(dog)
    await page.wait_for("document.querySelector('.previews img') && !document.querySelector('.previews .busy')")
    await say(page, "Who is this?")
    await page.wait_for("document.querySelector('.typing').checkVisibility() && document.querySelector('.stop')")
    assert await page.run("document.querySelector('.composer textarea').value") == ""
    chat.gate.set()
    await page.wait_for("!document.querySelector('.stop') && document.querySelector('.messages ol')")
    assert await page.text(".row.user .text") == "Who is this?"
    assert await page.run("document.querySelector('.messages .row:last-child strong').innerText") == "good dog"
    await page.wait_for("document.querySelector('.thumb img')?.src.includes('/picture/')")
    await page.wait_for("document.querySelector('.thumb img').naturalWidth === 64")
    await page.click(".thumb")
    await page.wait_for("document.querySelector('dialog.enlarged[open]')")
    await page.press("Escape")
    await page.wait_for("!document.querySelector('dialog.enlarged')")
    await page.reload()
    assert await page.run("document.querySelectorAll('.messages .row').length") == 3
    await page.wait_for("document.querySelector('.thumb img').naturalWidth === 64")


async def test_keys_write_lines_and_send(page: Page, chat: RehearsalChat) -> None:
    await page.run("document.querySelector('.composer textarea').focus()")
    await page.type("one")
    await page.press("Enter", shift=True)
    await page.type("two")
    assert chat.received == []
    await page.press("Enter")
    await page.wait_for("document.querySelector('.row.user')")
    assert chat.received[0].text == "one\ntwo"


async def test_hostile_text_stays_text(page: Page, chat: RehearsalChat) -> None:
    hostile = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>![x](https://example.org/a.png)"
    chat.lines["mina"], line = hostile, chat.lines["mina"]
    try:
        await say(page, hostile)
        await page.wait_for(
            "document.querySelectorAll('.messages .row').length === 3 && !document.querySelector('.stop')"
        )
    finally:
        chat.lines["mina"] = line
    assert "onerror" in await page.text(".row.user .text")
    assert "onerror" in await page.text(".row.persona:last-child .text")
    assert await page.run("document.querySelectorAll('.text img, .text script').length") == 0
    assert not await page.run("'hacked' in window")


@pytest.mark.parametrize("event", ["paste", "drop"])
async def test_pictures_are_pasted_and_dropped(page: Page, chat: RehearsalChat, event: str) -> None:
    data = BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    await page.run(
        f"""(() => {{
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array({list(data.getvalue())})], "p.png", {{ type: "image/png" }}));
            const init = {{ bubbles: true, cancelable: true }};
            if ("{event}" === "paste") {{
                init.clipboardData = transfer;
                document.querySelector("textarea").dispatchEvent(new ClipboardEvent("paste", init));
            }} else {{
                init.dataTransfer = transfer;
                for (const name of ["dragenter", "dragover", "drop"])
                    document.querySelector(".log").dispatchEvent(new DragEvent(name, init));
            }}
        }})()"""
    )
    await page.wait_for("document.querySelector('.previews img') && !document.querySelector('.previews .busy')")
    await page.click(".previews button")
    await page.wait_for("!document.querySelector('.previews')")
    assert await page.run("document.querySelector('.round').disabled")


async def test_no_more_pictures_than_the_bot_looks_at(page: Page, chat: RehearsalChat, dog: Path) -> None:
    assert "at most 4 pictures" in await page.run("document.querySelector('.line .icon').ariaLabel")
    await page.attach(*[dog] * 6)
    await page.wait_for("document.querySelectorAll('.previews img').length === 4")
    assert await page.text(".trouble") == "At most 4 pictures in one message: the others are left out."
    await page.click(".previews button")
    await page.wait_for("!document.querySelector('.trouble') && !document.querySelector('.previews .busy')")
    chat.gate.clear()
    await say(page, "Who are these?")
    await page.wait_for("[...document.querySelectorAll('.thumb img')].filter((img) => img.naturalWidth).length === 3")
    assert len(chat.received[0].files) == 3
    chat.gate.set()
    await page.wait_for("!document.querySelector('.stop') && !document.querySelector('.thumb img[src*=sent]')")


async def test_stop_and_start_over(page: Page, chat: RehearsalChat) -> None:
    chat.gate.clear()
    await say(page, "Hello")
    await page.wait_for("document.querySelector('.stop')")
    await page.click(".stop")
    await page.wait_for("document.querySelector('.row.notice') && !document.querySelector('.stop')")
    await page.click(".start-over")
    await page.wait_for("document.querySelector('.sheet .strong')?.checkVisibility()")
    await page.run("document.querySelector('.sheet .strong').click()")
    await page.wait_for("document.querySelectorAll('.messages .row').length === 1")


async def test_personas_are_found_and_chosen_by_keyboard(page: Page) -> None:
    await page.click(".who")
    await page.type("weather")
    await page.wait_for("document.querySelectorAll('.card').length === 1")
    await page.press("ArrowDown")
    assert await page.run("document.activeElement.classList.contains('card')")
    await page.press("Enter")
    await page.wait_for("document.querySelector('.who .name').innerText === 'Captain Brask'")
    assert await page.run("document.title") == "Captain Brask · Commedia"
    assert "Fog" in await page.text(".messages")


async def test_the_theme_follows_the_system_until_it_is_chosen(page: Page) -> None:
    theme = "document.documentElement.dataset.theme"
    await page.prefer("dark")
    await page.wait_for(f"{theme} === 'dark'")
    await page.click(".theme")
    assert await page.run(theme) == "light"
    await page.reload()
    assert await page.run(theme) == "light"
    await page.click(".theme")
    await page.prefer("light")
    await page.wait_for(f"{theme} === 'light'")


async def test_a_phone_shows_all_of_it(page: Page, chat: RehearsalChat) -> None:
    await page.resize(360, 740, is_phone=True)
    await say(page, "a" * 200)
    await page.wait_for("document.querySelectorAll('.messages .row').length === 3 && !document.querySelector('.stop')")
    assert await page.run("document.documentElement.scrollWidth") <= 360
    box = "document.querySelector('.cast').getBoundingClientRect()"
    await page.wait_for(f"{box}.right <= 0")
    await page.click(".who")
    await page.wait_for(f"{box}.left === 0")
    await page.press("Escape")
    await page.wait_for(f"{box}.right <= 0")


async def test_tabs_of_one_browser_share_and_other_browsers_do_not(
    browser: Chromium, stage: tuple[str, RehearsalChat], chat: RehearsalChat
) -> None:
    one, two, other = [await browser.new_page() for _ in range(2)] + [await browser.new_page(context=True)]
    for page in (one, two, other):
        await page.open(stage[0])
    chat.gate.clear()
    await say(one, "A secret")
    await two.wait_for("document.querySelector('.row.user')")
    await one.aclose()
    chat.gate.set()
    await two.wait_for("document.querySelectorAll('.messages .row').length === 3 && !document.querySelector('.stop')")
    await asyncio.sleep(0.1)
    assert await other.run("document.querySelectorAll('.messages .row').length") == 1
    await two.aclose()
    await other.aclose()
