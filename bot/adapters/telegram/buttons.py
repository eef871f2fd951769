"""Inline buttons that run commands, and carry all they need in 64 bytes of their own, so that a restart harms none.

Owns that encoding and the keyboard's shape. Runs nothing.
"""

import hashlib
import math
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import replace

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from bot.commands import Argument, Command, CommandCall, CommandReply, CommandTable
from bot.types import Control

_MAX_BUTTONS = 96  # the server takes 100
_MAX_CALLBACK_BYTES = 64
_SHORT_LABEL = 16
_CONTROLS_IN_A_ROW = 6


class CommandButtons:
    """Choices and controls as buttons.

    A button carries four characters for command and argument, then the value, in at most 64 bytes. A value too long
    for that is carried as its digest, and found again among the argument's suggestions.
    """

    def __init__(self, table: CommandTable) -> None:
        self._targets: dict[str, tuple[Command, Argument | None]] = {}
        for command in table:
            for argument in (None, *command.arguments):
                key = short_digest("\0".join([*command.path, argument.name if argument else ""]), 3)
                if key in self._targets:
                    raise ValueError(f"rename the argument {argument} of {command.path}: its button key is taken")
                self._targets[key] = command, argument
        self._keys = {
            (command.path, argument.name if argument else ""): key for key, (command, argument) in self._targets.items()
        }

    def keyboard(self, reply: CommandReply) -> InlineKeyboardMarkup | None:
        """The buttons of `reply`, if it offers a choice of something that can be run."""
        key = self._keys.get((reply.choice_path, reply.choice_argument)) if reply.choice_argument else None
        if key is None or not reply.choices:
            return None
        buttons = [
            InlineKeyboardButton(choice.label or choice.value, callback_data=_callback_data(key, choice.value))
            for choice in reply.choices[:_MAX_BUTTONS]
        ]
        width = 2 if all(len(button.text) <= _SHORT_LABEL for button in buttons) else 1
        return _in_rows(buttons, width)

    def controls(self, controls: Sequence[Control]) -> InlineKeyboardMarkup | None:
        """The buttons under a reply; what stands for no command is left out."""
        buttons = [
            InlineKeyboardButton(control.label or control.path[-1], callback_data=_callback_data(key, control.value))
            for control in controls[:_MAX_BUTTONS]
            if (key := self._keys.get((control.path, control.argument))) is not None
        ]
        if not buttons:
            return None
        num_rows = math.ceil(len(buttons) / _CONTROLS_IN_A_ROW)
        return _in_rows(buttons, math.ceil(len(buttons) / num_rows))

    def key(self, command: Command, argument: Argument) -> str:
        """Four characters for an argument of a command."""
        return self._keys[command.path, argument.name]

    def target(self, key: str) -> tuple[Command, Argument] | None:
        """The argument that `key` stands for."""
        command, argument = self._targets.get(key, (None, None))
        return None if command is None or argument is None else (command, argument)

    async def resolve(self, data: str, call: CommandCall) -> tuple[Command, CommandCall] | None:
        """The command that a pressed button stands for, and `call` with its argument; `None` if it is out of date."""
        command, argument = self._targets.get(data[:4], (None, None))
        if command is None:
            return None
        if argument is None:
            return command, call
        mark, value = data[4:5], data[5:]
        if mark == "#":
            choices = await argument.suggest(call, "") if argument.suggest else ()
            matching = (choice.value for choice in choices if short_digest(choice.value, 15) == value)
            found = next(matching, None)
            if found is None:
                return None
            value = found
        return command, replace(call, arguments={argument.name: value})


def _in_rows(buttons: Sequence[InlineKeyboardButton], width: int) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([buttons[at : at + width] for at in range(0, len(buttons), width)])


def _callback_data(key: str, value: str) -> str:
    plain = f"{key}={value}"
    return plain if len(plain.encode()) <= _MAX_CALLBACK_BYTES else f"{key}#{short_digest(value, 15)}"


def short_digest(text: str, num_bytes: int, *, secret: bytes = b"") -> str:
    """A digest of `text` in letters, digits, `-` and `_`: four of them for three bytes."""
    return urlsafe_b64encode(hashlib.blake2b(text.encode(), digest_size=num_bytes, key=secret).digest()).decode()
