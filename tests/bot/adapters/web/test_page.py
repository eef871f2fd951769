"""What a tab shows and does, without a browser: elements as the server knows them."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from nicegui import ui
from nicegui.functions.download import download
from nicegui.functions.navigate import Navigate
from nicegui.functions.notify import notify
from nicegui.testing import User

from bot.adapters.web import WebAdapter
from bot.adapters.web.page import Composer, Tag
from bot.types import PersonaCard
from tests.bot.adapters.web.conftest import serving
from tests.bot.adapters.web.rehearsal import CARDS, GREETINGS, RehearsalChat


@pytest.fixture
async def adapter(chat: RehearsalChat) -> AsyncIterator[WebAdapter]:
    async with serving(chat) as adapter:
        yield adapter


@pytest.fixture
async def user(adapter: WebAdapter) -> AsyncIterator[User]:
    async with httpx.AsyncClient(base_url=adapter.url or "", trust_env=False) as client:
        user = User(client)
        try:
            await user.open("/")
            yield user
        finally:
            ui.navigate, ui.notify, ui.download = Navigate(), notify, download


def shown(user: User, of: str) -> list[Tag]:
    """The elements of a class that can be seen, in the page's order."""
    assert user.client is not None
    found = [element for element in user.client.elements.values() if isinstance(element, Tag)]
    return [element for element in found if set(of.split()) <= set(element.classes) and element.visible]


def click(element: Tag) -> None:
    """What a browser sends for a click."""
    for listener in element._event_listeners.values():
        if listener.type == "click":
            element._handle_event({"listener_id": listener.id, "args": []})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def names(user: User) -> list[str]:
    """Whom the cast shows."""
    return [card.default_slot.children[1].default_slot.children[0].text for card in shown(user, "card")]  # type: ignore[attr-defined]


async def test_everybody_is_in_the_cast_and_the_chosen_one_is_marked(user: User) -> None:
    assert names(user) == [card.name for card in CARDS]
    [current] = [card for card in shown(user, "card") if "aria-current" in card.props]
    assert current.props["lang"] == "en"


async def test_search_finds_by_name_and_by_summary(user: User) -> None:
    [search] = shown(user, "search")
    [listener] = search._event_listeners.values()
    search._handle_event({"listener_id": listener.id, "args": "WEATHER river"})
    assert names(user) == ["Captain Brask"]
    search._handle_event({"listener_id": listener.id, "args": "zzz"})
    assert [note.text for note in shown(user, "nobody")] == ["Nobody by that name."]


async def test_choosing_shows_the_other_conversation_in_its_language(user: User, chat: RehearsalChat) -> None:
    click(shown(user, "card")[-1])
    await until(lambda: shown(user, "log")[0].props["lang"] == "ar")
    assert shown(user, "log")[0].props["dir"] == "rtl"
    assert shown(user, "who")[0].default_slot.children[0].props["src"] == "/avatar/nadia"
    await user.should_see(GREETINGS["nadia"][:10])


async def test_dots_and_the_stop_button_show_while_an_answer_is_due(user: User, chat: RehearsalChat) -> None:
    assert user.client is not None
    [composer] = [element for element in user.client.elements.values() if isinstance(element, Composer)]
    chat.gate.clear()
    assert not shown(user, "typing")
    await user.http_client.post("/say", json={"text": "Hello"})
    assert shown(user, "typing")
    assert composer.props["answering"] is True
    [stop] = [listener for listener in composer._event_listeners.values() if listener.type == "stop"]
    composer._handle_event({"listener_id": stop.id, "args": []})
    await until(lambda: not shown(user, "typing"))
    assert composer.props["answering"] is False
    await user.should_see("Stopped before an answer came.")


async def test_a_finished_reply_is_announced_once(user: User, chat: RehearsalChat) -> None:
    [live] = shown(user, "unseen")
    assert live.text == ""
    await user.http_client.post("/say", json={"text": "Hello"})
    await until(lambda: live.text != "")
    assert live.text == f"Mina Okoro: {chat.lines['mina']}"


async def test_start_over_asks_first(user: User, chat: RehearsalChat) -> None:
    await user.http_client.post("/say", json={"text": "Hello"})
    await until(lambda: len(shown(user, "row persona")) == 2)
    click(shown(user, "start-over")[0])
    assert len(shown(user, "row user")) == 1
    click(shown(user, "pill strong")[0])
    await until(lambda: not shown(user, "row user"))
    assert len(shown(user, "row persona")) == 1


async def test_choices_are_buttons(user: User) -> None:
    await user.http_client.post("/say", json={"text": "/persona list"})
    pills = [pill for pill in shown(user, "pill") if pill.text == "Captain Brask"]
    assert len(pills) == 1
    click(pills[0])
    await user.should_see("Fog's coming.")


async def test_a_new_persona_appears_by_itself(user: User, chat: RehearsalChat) -> None:
    chat.cards = (*CARDS, PersonaCard("zoe", "Zoe", "New here.", "en"))
    assert user.client is not None
    [timer] = [element for element in user.client.elements.values() if isinstance(element, ui.timer)]
    assert timer.interval <= 2.0
    timer.callback()  # type: ignore[misc]
    assert names(user)[-1] == "Zoe"


async def test_a_closed_tab_stops_watching(user: User, adapter: WebAdapter, chat: RehearsalChat) -> None:
    assert user.client is not None
    [session] = adapter._sessions._by_id.values()
    chat.gate.clear()
    await user.http_client.post("/say", json={"text": "Hello"})
    user.client.delete()
    chat.gate.set()
    await until(lambda: session.is_idle)
    assert len(await chat.history(session.room)) == 3
