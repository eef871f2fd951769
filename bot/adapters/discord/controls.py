"""Buttons, menus and fields, and the commands behind them.

Owns their look and their ids. Each carries its command in its own id, so it works after a restart too. Does not know
what any command does, nor how its answer is shown.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import discord

from bot.commands import Argument, CommandReply
from bot.types import Control

logger = logging.getLogger(__name__)

MAX_LABEL_LENGTH = 100
MAX_BUTTON_LABEL_LENGTH = 80
MAX_BUTTONS = 5
MAX_CONTROLS = 25
MAX_MENU_OPTIONS = 25
MAX_MENUS = 5
MAX_CUSTOM_ID_LENGTH = 100
MAX_TITLE_LENGTH = 45
MAX_FIELD_LENGTH = 4000

BUTTON, MENU, FIELD = "button", "menu", "field"


@dataclass(frozen=True, slots=True)
class Pressed:
    """What somebody chose: the command `path` with `arguments`. `is_filled`: a field was filled for it."""

    path: tuple[str, ...]
    arguments: Mapping[str, str]
    is_filled: bool = False


def view_of_controls(controls: Iterable[Control]) -> discord.ui.View | None:
    """Buttons in rows of five; `None` for none. One that Discord would refuse is left out, so that the text arrives."""
    buttons: dict[str, discord.ui.Button[discord.ui.View]] = {}
    for control in controls:
        custom_id = _custom_id(BUTTON, control.path, control.argument, control.value)
        if len(custom_id) > MAX_CUSTOM_ID_LENGTH or not control.label.strip():
            logger.warning("the button of /%s has too long names for Discord, or none", " ".join(control.path))
        else:
            buttons.setdefault(custom_id, _button(control.label, custom_id))
    return _view(list(buttons.values())[:MAX_CONTROLS]) if buttons else None


def view_of_choices(reply: CommandReply) -> discord.ui.View | None:
    """The choices of a command's answer: a few as buttons, many as menus. Raises `ValueError` for too long names."""
    if not reply.choices:
        return None
    path, argument = reply.choice_path, reply.choice_argument
    if len(reply.choices) <= MAX_BUTTONS:
        ids = [_checked(_custom_id(BUTTON, path, argument, choice.value)) for choice in reply.choices]
        return _view([_button(choice.label, id_) for choice, id_ in zip(reply.choices, ids, strict=True)])
    shown = reply.choices[: MAX_MENU_OPTIONS * MAX_MENUS]
    menus: list[discord.ui.Item[discord.ui.View]] = []
    for start in range(0, len(shown), MAX_MENU_OPTIONS):
        options = [
            discord.SelectOption(label=shorten(choice.label, MAX_LABEL_LENGTH), value=choice.value)
            for choice in shown[start : start + MAX_MENU_OPTIONS]
        ]
        custom_id = _checked(_custom_id(MENU, path, argument, str(start)))
        menus.append(discord.ui.Select(custom_id=custom_id, placeholder="Choose…", options=options))
    return _view(menus)


def field_for(pressed: Pressed, prose: Argument, prefill: str) -> discord.ui.Modal:
    """A field in which somebody writes the argument `prose` of what they pressed."""
    argument, value = next(iter(pressed.arguments.items()), ("", ""))
    custom_id = _checked(_custom_id(f"{FIELD}:{prose.name}", pressed.path, argument, value))
    modal = discord.ui.Modal(title=shorten(" ".join(pressed.path).capitalize(), MAX_TITLE_LENGTH), custom_id=custom_id)
    text: discord.ui.TextInput[discord.ui.Modal] = discord.ui.TextInput(
        style=discord.TextStyle.paragraph,
        # Half of a text would be taken for all of it, and the rest be lost.
        default=prefill if 0 < len(prefill) <= MAX_FIELD_LENGTH else None,
        max_length=MAX_FIELD_LENGTH,
        required=prose.is_required,
        custom_id=prose.name,
    )
    modal.add_item(discord.ui.Label(text=shorten(prose.description, MAX_TITLE_LENGTH), component=text))
    # What has ended is not kept in memory: `pressed_in` finds the command by the id alone.
    modal.stop()
    return modal


def pressed_in(data: Mapping[str, Any]) -> Pressed | None:
    """What was pressed, chosen or filled, or `None` where it is none of ours."""
    kind, _, rest = str(data.get("custom_id", "")).partition(":")
    if kind == FIELD:
        prose, _, rest = rest.partition(":")
        chosen = _chosen(rest)
        written = _written(data.get("components", ()), prose)
        return Pressed(chosen.path, {**chosen.arguments, prose: written}, is_filled=True) if chosen else None
    if kind == MENU:
        values: Sequence[object] = data.get("values", ())
        return _chosen(rest, str(values[0])) if values else None
    return _chosen(rest) if kind == BUTTON else None


def shorten(text: str, max_length: int) -> str:
    """`text`, with a sign at its end where it had to be cut."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def _chosen(rest: str, instead: str | None = None) -> Pressed | None:
    """Path, argument and value out of an id; `instead` is the value where a menu has it."""
    parts = rest.split(":", 2)
    if len(parts) != 3:
        return None
    path, argument, value = parts
    return Pressed(tuple(path.split(".")), {argument: value if instead is None else instead} if argument else {})


def _written(components: Sequence[Mapping[str, Any]], name: str) -> str:
    """The text of the field `name`, however deep Discord has put it."""
    for component in components:
        if component.get("custom_id") == name:
            return str(component.get("value") or "")
        inside = [*component.get("components", ()), *([component["component"]] if "component" in component else [])]
        if inside and (found := _written(inside, name)):
            return found
    return ""


def _button(label: str, custom_id: str) -> discord.ui.Button[discord.ui.View]:
    return discord.ui.Button(
        label=shorten(label, MAX_BUTTON_LABEL_LENGTH), style=discord.ButtonStyle.secondary, custom_id=custom_id
    )


def _view(items: Sequence[discord.ui.Item[discord.ui.View]]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for item in items:
        view.add_item(item)
    # What has ended is not kept in memory: `pressed_in` finds the command by the id alone.
    view.stop()
    return view


def _custom_id(kind: str, path: tuple[str, ...], argument: str, value: str) -> str:
    return ":".join((kind, ".".join(path), argument, value))


def _checked(custom_id: str) -> str:
    if len(custom_id) > MAX_CUSTOM_ID_LENGTH:
        raise ValueError(f"the names of command and argument are too long for a button: {custom_id}")
    return custom_id
