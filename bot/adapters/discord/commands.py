"""The table of commands as Discord's slash commands, entries under a message, autocompletion, buttons and fields.

Owns their shape on Discord and running them. Does not know what any command does; `controls.py` has the ids by which
buttons find their command, `answers.py` shows what comes of it.
"""

import asyncio
import hashlib
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands

from bot.adapters.discord.answers import answer, respond
from bot.adapters.discord.channel import Channels
from bot.adapters.discord.controls import MAX_LABEL_LENGTH, Pressed, field_for, pressed_in, shorten
from bot.adapters.discord.errors import REQUEST_ERRORS, describe
from bot.adapters.discord.messages import MessageTranslator, author_of
from bot.adapters.discord.places import is_moderator, place_of
from bot.adapters.discord.tasks import TaskSet
from bot.commands import Argument, Choice, Command, CommandCall, CommandReply, CommandTable
from bot.errors import BotError
from bot.types import ChatKind

logger = logging.getLogger(__name__)

SUGGESTION_TIMEOUT_S = 2.0
# A field has to be opened within Discord's three seconds; what stands in it already is a convenience.
PREFILL_TIMEOUT_S = 1.5
MAX_SUGGESTIONS = 25
MAX_ENTRIES_UNDER_A_MESSAGE = 5
PICTURE_OPTION = "picture"
FILE_OPTION = "file"
REPLY_ENTRY = "Reply in persona"

APOLOGY = "Something went wrong here, and it has been written down. Please try again."
OUTDATED = "This button belongs to a command that is no longer there. /help shows what there is."
FOR_MODERATORS = "That is for moderators: people here who may manage messages."
_CONTEXTS = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=False)
_INSTALLS = app_commands.AppInstallationType(guild=True, user=False)
_MODERATORS = discord.Permissions(manage_messages=True)


Suggest = Callable[[CommandCall, str], Awaitable[tuple[Choice, ...]]]
Completion = Callable[[discord.Interaction, str], Coroutine[Any, Any, list[app_commands.Choice[str]]]]
Summon = Callable[[discord.Interaction, discord.Message], Coroutine[Any, Any, None]]


class SlashCommands:
    """Renders a `CommandTable` and runs what people choose from it. `summon` is what “Reply in persona” does."""

    def __init__(
        self,
        table: CommandTable,
        tasks: TaskSet,
        translator: MessageTranslator,
        channels: Channels,
        *,
        summon: Summon,
    ) -> None:
        self._table = table
        self._tasks = tasks
        self._translator = translator
        self._channels = channels
        self._summon = summon
        self._synced_digest: str | None = None
        # A name that Discord would refuse should stop the start, not be found out when the bot is already online.
        self.tree(discord.Client(intents=discord.Intents(guilds=True)))

    def tree(self, client: discord.Client) -> app_commands.CommandTree[discord.Client]:
        """All commands, ready for `client`."""
        tree = app_commands.CommandTree(client, allowed_contexts=_CONTEXTS, allowed_installs=_INSTALLS)
        groups: dict[str, app_commands.Group] = {}
        for command in self._table:
            if len(command.path) == 1:
                tree.add_command(self._native(command))
                continue
            name = command.path[0]
            if name not in groups:
                groups[name] = self._group(name)
                tree.add_command(groups[name])
            groups[name].add_command(self._native(command))
        for entry in self._entries_under_a_message():
            tree.add_command(entry)
        return tree

    async def sync(self, tree: app_commands.CommandTree[discord.Client]) -> None:
        """Tell Discord the commands, unless it was told the same since the process started."""
        payload = [command.to_dict(tree) for command in tree.get_commands()]
        digest = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
        if digest == self._synced_digest:
            return
        try:
            await tree.sync()
        except REQUEST_ERRORS as error:
            logger.warning("Discord did not take the commands, so they may be missing in its menu: %s", describe(error))
        else:
            self._synced_digest = digest

    def press(self, interaction: discord.Interaction) -> None:
        """Run the command behind a button, a menu's entry or a field."""
        data: Mapping[str, Any] = interaction.data or {}
        pressed = pressed_in(data)
        if pressed is None:
            return
        command = self._table.find(*pressed.path)
        if command is None:
            self._tasks.spawn(_tell(interaction, OUTDATED))
            return
        call = self._call(interaction, pressed.arguments)
        if interaction.message is not None:
            call = replace(call, message_id=str(interaction.message.id))
        self._start(interaction, command, call, pressed)

    def _group(self, name: str) -> app_commands.Group:
        # Discord lets only a whole group be hidden from people.
        inside = [command for command in self._table if len(command.path) > 1 and command.path[0] == name]
        are_all_for_moderators = all(command.for_moderators for command in inside)
        permissions = _MODERATORS if are_all_for_moderators else None
        return app_commands.Group(name=name, description=f"/{name} …", default_permissions=permissions)

    def _native(self, command: Command) -> app_commands.Command[Any, ..., None]:
        async def callback(interaction: discord.Interaction, **options: str | discord.Attachment | None) -> None:
            texts = {name: value for name, value in options.items() if isinstance(value, str)}
            attached = [value for value in options.values() if isinstance(value, discord.Attachment)]
            call = replace(self._call(interaction, texts), files=tuple(map(self._translator.file, attached)))
            self._start(interaction, command, call, Pressed(command.path, texts))

        # discord.py reads a command's arguments off its function's signature.
        callback.__signature__ = _signature(command)  # type: ignore[attr-defined]
        native: app_commands.Command[Any, ..., None] = app_commands.Command(
            name=command.path[-1], description=shorten(command.description, MAX_LABEL_LENGTH), callback=callback
        )
        if command.for_moderators and len(command.path) == 1:
            native.default_permissions = _MODERATORS
        descriptions = {argument.name: argument.description for argument in command.arguments}
        if command.takes_picture:
            descriptions[PICTURE_OPTION] = "Which picture, if not the last one here"
        if command.takes_file:
            descriptions[FILE_OPTION] = "The file that it is about"
        app_commands.describe(**{name: shorten(text, MAX_LABEL_LENGTH) for name, text in descriptions.items()})(native)
        for argument in command.arguments:
            if argument.suggest is not None:
                native.autocomplete(argument.name)(self._completion(argument.suggest))
        return native

    def _entries_under_a_message(self) -> list[app_commands.ContextMenu]:
        async def reply(interaction: discord.Interaction, message: discord.Message) -> None:
            self._tasks.spawn(self._summon(interaction, message))

        about = [command for command in self._table if command.is_about_message]
        own = [self._under_a_message(command) for command in about[: MAX_ENTRIES_UNDER_A_MESSAGE - 1]]
        return [app_commands.ContextMenu(name=REPLY_ENTRY, callback=reply), *own]

    def _under_a_message(self, command: Command) -> app_commands.ContextMenu:
        async def callback(interaction: discord.Interaction, message: discord.Message) -> None:
            about = self._translator.replied_to(interaction.client, message)
            call = replace(self._call(interaction, {}), reply_to=about)
            self._start(interaction, command, call, Pressed(command.path, {}))

        entry = app_commands.ContextMenu(name=command.path[-1].capitalize(), callback=callback)
        if command.for_moderators:
            entry.default_permissions = _MODERATORS
        return entry

    def _completion(self, suggest: Suggest) -> Completion:
        async def complete(interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
            typed = {name: str(value) for name, value in interaction.namespace if value is not None}
            try:
                async with asyncio.timeout(SUGGESTION_TIMEOUT_S):
                    choices = await suggest(self._call(interaction, typed), current)
            except (BotError, TimeoutError) as error:
                logger.info("No suggestions for a command: %s", error)
                return []
            return [
                app_commands.Choice(name=shorten(choice.label, MAX_LABEL_LENGTH), value=choice.value)
                for choice in choices[:MAX_SUGGESTIONS]
            ]

        return complete

    def _call(self, interaction: discord.Interaction, arguments: Mapping[str, str]) -> CommandCall:
        channel_id = interaction.channel_id or 0
        place = place_of(interaction.channel, channel_id, interaction.guild_id)
        return CommandCall(
            room=place.room,
            kind=place.kind,
            author=author_of(interaction.user),
            arguments=arguments,
            is_moderator=interaction.guild_id is not None and is_moderator(interaction.permissions),
            channel=self._channels.open(channel_id),
        )

    def _start(self, interaction: discord.Interaction, command: Command, call: CommandCall, pressed: Pressed) -> None:
        prose = next((one for one in command.arguments if one.is_prose and not call.arguments.get(one.name)), None)
        if not _may_use(command, call):
            self._tasks.spawn(_tell(interaction, FOR_MODERATORS))
        elif prose is not None and not pressed.is_filled:
            self._tasks.spawn(_open_field(interaction, call, pressed, prose))
        else:
            self._tasks.spawn(answer(interaction, _run(command, call), " ".join(command.path)))


def _may_use(command: Command, call: CommandCall) -> bool:
    # Whoever manages a server can let others see the command, which lets them do no more.
    return not command.for_moderators or call.is_moderator or call.kind is ChatKind.DIRECT


def _signature(command: Command) -> inspect.Signature:
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("interaction", positional, annotation=discord.Interaction)]
    for argument in sorted(command.arguments, key=lambda argument: not _has_to_be_typed(argument)):
        default = inspect.Parameter.empty if _has_to_be_typed(argument) else None
        parameters.append(inspect.Parameter(argument.name, positional, annotation=str, default=default))
    for is_taken, name in ((command.takes_picture, PICTURE_OPTION), (command.takes_file, FILE_OPTION)):
        if is_taken:
            parameters.append(inspect.Parameter(name, positional, annotation=discord.Attachment, default=None))
    return inspect.Signature(parameters)


def _has_to_be_typed(argument: Argument) -> bool:
    # For a longer text, a field is opened.
    return argument.is_required and not argument.is_prose


async def _open_field(interaction: discord.Interaction, call: CommandCall, pressed: Pressed, prose: Argument) -> None:
    """Let somebody write a longer text; where that cannot be for them, say why."""
    try:
        field = field_for(pressed, prose, await _prefill(call, prose))
        await interaction.response.send_modal(field)
    except BotError as error:
        await _tell(interaction, str(error))
    except REQUEST_ERRORS as error:
        logger.warning("The field of /%s did not reach Discord: %s", " ".join(pressed.path), describe(error))


async def _prefill(call: CommandCall, prose: Argument) -> str:
    if prose.prefill is None:
        return ""
    try:
        async with asyncio.timeout(PREFILL_TIMEOUT_S):
            return await prose.prefill(call)
    except TimeoutError:
        return ""


async def _tell(interaction: discord.Interaction, text: str) -> None:
    """Say something to whoever used a command, and to nobody else."""
    try:
        await respond(interaction, CommandReply(text, is_private=True))
    except REQUEST_ERRORS as error:
        logger.warning("An answer to a command did not reach Discord: %s", describe(error))


async def _run(command: Command, call: CommandCall) -> CommandReply:
    """This is a boundary: whatever a command raises, its user hears of it and the log has it."""
    try:
        return await command.run(call)
    except BotError as error:
        return CommandReply(str(error), is_private=True)
    except Exception:
        logger.exception("/%s failed", " ".join(command.path))
        return CommandReply(APOLOGY, is_private=True)
