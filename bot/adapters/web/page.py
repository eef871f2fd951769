"""How the page looks: one tab's view of a session, drawn with NiceGUI.

Knows no HTTP and starts no reply; what people do here goes to the session, and what happens there comes back as calls.
The composer (`static/composer.js`) sends messages and files over HTTP by itself.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Request
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from bot.adapters.base import ConversationBrowser
from bot.adapters.web.channel import MAX_FILE_BYTES
from bot.adapters.web.formatting import render_markdown
from bot.adapters.web.session import Session, Sessions
from bot.adapters.web.transcript import Bubble, Offer, ShownPicture, Speaker
from bot.types import PersonaCard

STATIC = Path(__file__).parent / "static"
FAVICON = (STATIC / "favicon.svg").read_text(encoding="utf-8")
RIGHT_TO_LEFT = {"ar", "arc", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"}
NOBODY = PersonaCard(id="", name="Commedia", summary="Nobody is on stage yet.", language="en")
PERSONAS_INTERVAL_S = 2.0


def add_page(sessions: Sessions, browser: ConversationBrowser) -> None:
    """Register the page at `/`."""

    @ui.page("/", response_timeout=30.0)
    async def chat(request: Request) -> None:
        session = sessions.of(request.session["id"])
        await session.open()
        ui.add_head_html(_head())
        page = ChatPage(session, browser)
        session.watch(page)
        ui.context.client.on_delete(lambda: session.unwatch(page))


def _head() -> str:
    def address(name: str) -> str:
        return f"/static/{name}?{hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"

    return f'<link rel="stylesheet" href="{address("page.css")}"><script src="{address("page.js")}"></script>'


class Tag(TextElement):
    """A plain HTML element. Attributes are written as `aria_label="…"`."""

    def __init__(self, tag: str, text: str = "", *, of: str = "", **attributes: str) -> None:
        super().__init__(tag=tag, text=text)
        self.classes(of)
        for name, value in attributes.items():
            self.props[name.replace("_", "-")] = value


class Composer(ui.element, component="static/composer.js"):
    """Where people write and add pictures."""

    def __init__(self, *, max_files: int, on_stop: Callable[[], None]) -> None:
        super().__init__()
        self.props["maxFiles"] = max_files
        self.props["maxFileBytes"] = MAX_FILE_BYTES
        self.on("stop", on_stop)

    def address(self, name: str) -> None:
        """Say whom the message goes to."""
        self.props["label"] = f"Write to {name}"

    def show_answering(self, is_answering: bool) -> None:
        """Offer to stop while an answer is written."""
        self.props["answering"] = is_answering


class ShownBubble:
    """A bubble on the page."""

    def __init__(self, bubble: Bubble, card: PersonaCard, on_pick: Callable[[Offer, str], Any]) -> None:
        self._bubble = bubble
        name = {Speaker.USER: "You", Speaker.PERSONA: card.name, Speaker.NOTICE: "Notice"}[bubble.speaker]
        with Tag("article", of=f"row {bubble.speaker}", aria_label=name):
            if bubble.speaker is Speaker.PERSONA:
                Tag("img", of="face small", src=_face(card), alt="")
            with Tag("div", of="bubble"):
                self._pictures = Tag("div", of="pictures")
                self._text = self._draw_text(bubble)
                if bubble.offer:
                    self._draw_offer(bubble.offer, on_pick)
        self._draw_pictures(bubble.pictures)

    def update(self, bubble: Bubble) -> None:
        """Show what has changed."""
        if bubble.text != self._bubble.text:
            self._set_text(bubble)
        if bubble.pictures != self._bubble.pictures:
            self._draw_pictures(bubble.pictures)
        self._bubble = bubble

    def _draw_text(self, bubble: Bubble) -> ui.html | Tag:
        if bubble.speaker is Speaker.USER:
            text: ui.html | Tag = Tag("div", bubble.text, of="text plain", dir="auto")
        else:
            text = ui.html(render_markdown(bubble.text)).classes("text prose")
            text.props["dir"] = "auto"
        text.set_visibility(bool(bubble.text))
        return text

    def _set_text(self, bubble: Bubble) -> None:
        if isinstance(self._text, Tag):
            self._text.text = bubble.text
        else:
            self._text.content = render_markdown(bubble.text)
        self._text.set_visibility(bool(bubble.text))

    def _draw_pictures(self, pictures: tuple[ShownPicture, ...]) -> None:
        self._pictures.clear()
        self._pictures.set_visibility(bool(pictures))
        with self._pictures:
            for picture in pictures:
                if picture.url:
                    with Tag("button", of="thumb", type="button", aria_label=f"Enlarge {picture.name}"):
                        Tag("img", src=picture.url, alt=picture.name)
                else:
                    Tag("span", picture.name, of="chip")

    def _draw_offer(self, offer: Offer, on_pick: Callable[[Offer, str], Any]) -> None:
        with Tag("div", of="offer"):
            for choice in offer.choices:
                Tag("button", choice.label, of="pill", type="button").on(
                    "click", lambda value=choice.value: on_pick(offer, value)
                )


class ChatPage:
    """One tab. Implements `SessionView`."""

    def __init__(self, session: Session, browser: ConversationBrowser) -> None:
        self._session = session
        self._browser = browser
        self._cards: tuple[PersonaCard, ...] = ()
        self._search = ""
        self._shown: dict[str, ShownBubble] = {}
        self._stage = Tag("div", of="stage")
        with self._stage:
            self._draw_cast()
            Tag("div", of="veil", data_cast="close")
            with Tag("main", of="chat"):
                self._draw_top()
                self._draw_log()
                self._composer = Composer(max_files=session.max_files, on_stop=session.stop)
        self._live = Tag("div", of="unseen", aria_live="polite", role="status")
        self._sure = self._draw_question()
        ui.timer(PERSONAS_INTERVAL_S, self._reread_personas)
        self.refresh()

    # What the session tells

    def show_bubble(self, bubble: Bubble) -> None:
        """Add a bubble, or show how it has changed."""
        if bubble.id in self._shown:
            self._shown[bubble.id].update(bubble)
        else:
            with self._messages:
                self._shown[bubble.id] = ShownBubble(bubble, self._card, self._session.run_choice)

    def show_activity(self) -> None:
        """Show the dots while nothing can be read, and the stop button while there is something to stop."""
        self._typing.set_visibility(self._session.is_waiting)
        self._composer.show_answering(self._session.is_answering)

    def show_finished(self, text: str) -> None:
        """Let screen readers say a reply once it is complete."""
        self._live.text = f"{self._card.name}: {text}"

    def refresh(self) -> None:
        """Draw all of it anew."""
        self._cards = self._browser.personas()
        card = self._card
        with self._stage:
            ui.page_title("Commedia" if card is NOBODY else f"{card.name} · Commedia")
        self._name.text, self._summary.text = card.name, card.summary
        self._who.props["aria-label"] = f"{card.name}. Choose another persona"
        self._face.props["src"] = self._typing_face.props["src"] = _face(card)
        self._log.props["lang"] = card.language
        self._log.props["dir"] = "rtl" if card.language.split("-")[0] in RIGHT_TO_LEFT else "ltr"
        self._composer.address(card.name)
        self._fill_intro(card)
        self._fill_cast()
        self._messages.clear()
        self._shown.clear()
        for bubble in self._session.transcript:
            self.show_bubble(bubble)
        self.show_activity()

    @property
    def _card(self) -> PersonaCard:
        return next((card for card in self._cards if card.id == self._session.persona_id), NOBODY)

    def _reread_personas(self) -> None:
        cards = self._browser.personas()
        if cards != self._cards:
            self.refresh()

    # Drawing

    def _draw_cast(self) -> None:
        with Tag("aside", of="cast", id="cast", aria_label="Personas"):
            with Tag("div", of="brand"):
                Tag("img", src="/static/favicon.svg", alt="")
                Tag("span", "Commedia")
                Tag("button", of="icon close-cast", type="button", aria_label="Close", data_cast="close")
            Tag("input", of="search", type="search", placeholder="Find a persona", aria_label="Find a persona").on(
                "input", self._find, js_handler="(event) => emit(event.target.value)"
            )
            self._cast = Tag("nav", of="cards", aria_label="Choose a persona")

    def _fill_cast(self) -> None:
        self._cast.clear()
        words = self._search.casefold().split()
        with self._cast:
            found = [card for card in self._cards if all(word in _searchable(card) for word in words)]
            for card in found:
                self._draw_card(card)
            if not found:
                Tag("p", "Nobody by that name." if words else "No personas yet.", of="nobody")

    def _draw_card(self, card: PersonaCard) -> None:
        is_current = card.id == self._session.persona_id
        with Tag("button", of="card", type="button", lang=card.language, data_cast="pick") as button:
            if is_current:
                button.props["aria-current"] = "true"
            Tag("img", of="face", src=_face(card), alt="")
            with Tag("span", of="about"):
                Tag("span", card.name, of="name")
                Tag("span", card.summary, of="summary")
        button.on("click", lambda: self._choose(card.id))

    def _draw_top(self) -> None:
        with Tag("header", of="top"):
            with Tag("button", of="who", type="button", data_cast="open", aria_controls="cast") as self._who:
                self._face = Tag("img", of="face", alt="")
                with Tag("span", of="about"):
                    self._name = Tag("span", of="name")
                    self._summary = Tag("span", of="summary")
            Tag("button", of="icon start-over", type="button", aria_label="Start over", title="Start over").on(
                "click", lambda: self._sure.open()
            )
            Tag("button", of="icon theme", type="button", aria_label="Dark or light", title="Dark or light")

    def _draw_log(self) -> None:
        self._log = Tag("section", of="log", aria_label="Conversation", tabindex="0")
        with self._log, Tag("div", of="column-of-bubbles"):
            self._intro = Tag("div", of="intro")
            self._messages = Tag("div", of="messages")
            self._typing = Tag("div", of="row persona typing", role="img", aria_label="Writing an answer")
            with self._typing:
                self._typing_face = Tag("img", of="face small", alt="")
                with Tag("div", of="bubble dots"):
                    for _ in range(3):
                        Tag("i")
        Tag("button", of="latest", type="button", aria_label="Jump to the latest message")

    def _fill_intro(self, card: PersonaCard) -> None:
        self._intro.clear()
        with self._intro:
            Tag("img", of="face", src=_face(card), alt="")
            Tag("h1", card.name, of="name")
            Tag("p", card.summary, of="summary")

    def _draw_question(self) -> ui.dialog:
        with ui.dialog() as dialog, Tag("div", of="sheet", role="document"):
            Tag("h2", "Start over?")
            Tag("p", "This conversation will be forgotten. The other ones stay.")
            with Tag("div", of="answers"):
                Tag("button", "Keep it", of="pill", type="button").on("click", dialog.close)
                Tag("button", "Start over", of="pill strong", type="button").on("click", self._start_over)
        return dialog

    # What people do

    async def _choose(self, persona_id: str) -> None:
        if persona_id != self._session.persona_id:
            await self._session.choose(persona_id)

    async def _start_over(self) -> None:
        self._sure.close()
        await self._session.start_over()

    def _find(self, event: GenericEventArguments) -> None:
        self._search = str(event.args)
        self._fill_cast()


def _face(card: PersonaCard) -> str:
    return "/static/favicon.svg" if card is NOBODY else f"/avatar/{card.id}"


def _searchable(card: PersonaCard) -> str:
    return f"{card.name} {card.id} {card.summary}".casefold()
