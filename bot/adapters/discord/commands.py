"""The table of commands as Discord's slash commands, entries under a message, autocompletion, buttons and menus.

Owns their shape on Discord and answering within its three seconds. Does not know what any command does. Each button
carries the command in its own id, so it works after a restart too.
"""

import asyncio
import hashlib
import inspect
import io
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands

from bot.adapters.discord.errors import REQUEST_ERRORS, describe
from bot.adapters.discord.messages import MessageTranslator, author_of, room_of
from bot.adapters.discord.tasks import TaskSet
from bot.commands import Choice, Command, CommandCall, CommandReply, CommandTable, ReplyPicture
from bot.errors import BotError
from bot.types import ChatKind

logger = logging.getLogger(__name__)

# Discord waits three seconds for the first sign. A quick answer is better than "thinking…" first: only the answer
# itself tells whether others may see it, and what was shown to one person cannot be shown to all any more.
PROMPT_ANSWER_S = 1.0
SUGGESTION_TIMEOUT_S = 2.0
MAX_TEXT_LENGTH = 2000
MAX_SUGGESTIONS = 25
MAX_LABEL_LENGTH = 100
MAX_BUTTON_LABEL_LENGTH = 80
MAX_BUTTONS = 5
MAX_MENU_OPTIONS = 25
MAX_MENUS = 5
MAX_CUSTOM_ID_LENGTH = 100
MAX_ENTRIES_UNDER_A_MESSAGE = 5
MAX_FILES = 10
MAX_ALT_LENGTH = 1024
PICTURE_OPTION = "picture"

_APOLOGY = "Something went wrong here, and it has been written down. Please try again."
_OUTDATED = "This button belongs to a command that is no longer there. /help shows what there is."
_CONTEXTS = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=False)
_INSTALLS = app_commands.AppInstallationType(guild=True, user=False)


Suggest = Callable[[CommandCall, str], Awaitable[tuple[Choice, ...]]]
Completion = Callable[[discord.Interaction, str], Coroutine[Any, Any, list[app_commands.Choice[str]]]]


class SlashCommands:
    """Renders a `CommandTable` and runs what people choose from it."""

    def __init__(self, table: CommandTable, tasks: TaskSet, translator: MessageTranslator) -> None:
        self._table = table
        self._tasks = tasks
        self._translator = translator
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
                groups[name] = app_commands.Group(name=name, description=f"/{name} …")
                tree.add_command(groups[name])
            groups[name].add_command(self._native(command))
        for command in [command for command in self._table if command.is_about_message][:MAX_ENTRIES_UNDER_A_MESSAGE]:
            tree.add_command(self._under_a_message(command))
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
        """Run the command behind a button or a menu's entry."""
        data: Mapping[str, Any] = interaction.data or {}
        chosen = _parse_custom_id(str(data.get("custom_id", "")), data.get("values", ()))
        if chosen is None:
            return
        path, argument, value = chosen
        command = self._table.find(*path)
        if command is None:
            self._tasks.spawn(_respond(interaction, CommandReply(_OUTDATED, is_private=True)))
        else:
            self._start(interaction, command, _call(interaction, {argument: value}))

    def _native(self, command: Command) -> app_commands.Command[Any, ..., None]:
        async def callback(interaction: discord.Interaction, **options: str | discord.Attachment | None) -> None:
            texts = {name: value for name, value in options.items() if isinstance(value, str)}
            attached = [value for value in options.values() if isinstance(value, discord.Attachment)]
            call = _call(interaction, texts)
            self._start(interaction, command, replace(call, files=tuple(map(self._translator.file, attached))))

        # discord.py reads a command's arguments off its function's signature.
        callback.__signature__ = _signature(command)  # type: ignore[attr-defined]
        native: app_commands.Command[Any, ..., None] = app_commands.Command(
            name=command.path[-1], description=_shorten(command.description, MAX_LABEL_LENGTH), callback=callback
        )
        descriptions = {argument.name: argument.description for argument in command.arguments}
        if command.takes_picture:
            descriptions[PICTURE_OPTION] = "Which picture, if not the last one here"
        app_commands.describe(**{name: _shorten(text, MAX_LABEL_LENGTH) for name, text in descriptions.items()})(native)
        for argument in command.arguments:
            if argument.suggest is not None:
                native.autocomplete(argument.name)(_completion(argument.suggest))
        return native

    def _under_a_message(self, command: Command) -> app_commands.ContextMenu:
        async def callback(interaction: discord.Interaction, message: discord.Message) -> None:
            about = self._translator.replied_to(interaction.client, message)
            self._start(interaction, command, replace(_call(interaction, {}), reply_to=about))

        return app_commands.ContextMenu(name=command.path[-1].capitalize(), callback=callback)

    def _start(self, interaction: discord.Interaction, command: Command, call: CommandCall) -> None:
        self._tasks.spawn(_answer(interaction, command, call))


def _signature(command: Command) -> inspect.Signature:
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("interaction", positional, annotation=discord.Interaction)]
    for argument in sorted(command.arguments, key=lambda argument: not argument.is_required):
        default = inspect.Parameter.empty if argument.is_required else None
        parameters.append(inspect.Parameter(argument.name, positional, annotation=str, default=default))
    if command.takes_picture:
        parameters.append(inspect.Parameter(PICTURE_OPTION, positional, annotation=discord.Attachment, default=None))
    return inspect.Signature(parameters)


def _completion(suggest: Suggest) -> Completion:
    async def complete(interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        typed = {name: str(value) for name, value in interaction.namespace if value is not None}
        try:
            async with asyncio.timeout(SUGGESTION_TIMEOUT_S):
                choices = await suggest(_call(interaction, typed), current)
        except (BotError, TimeoutError) as error:
            logger.info("No suggestions for a command: %s", error)
            return []
        return [
            app_commands.Choice(name=_shorten(choice.label, MAX_LABEL_LENGTH), value=choice.value)
            for choice in choices[:MAX_SUGGESTIONS]
        ]

    return complete


def _call(interaction: discord.Interaction, arguments: Mapping[str, str]) -> CommandCall:
    return CommandCall(
        room=room_of(interaction.channel, interaction.channel_id or 0),
        kind=ChatKind.DIRECT if interaction.guild_id is None else ChatKind.GROUP,
        author=author_of(interaction.user),
        arguments=arguments,
    )


async def _answer(interaction: discord.Interaction, command: Command, call: CommandCall) -> None:
    """Run the command, and show that it takes a while if it does."""
    running = asyncio.create_task(_run(command, call))
    try:
        await asyncio.wait({running}, timeout=PROMPT_ANSWER_S)
        if not running.done():
            await interaction.response.defer(ephemeral=True, thinking=True)
        await _respond(interaction, await running)
    except REQUEST_ERRORS as error:
        logger.warning("The answer to /%s did not reach Discord: %s", " ".join(command.path), describe(error))
    finally:
        running.cancel()


async def _run(command: Command, call: CommandCall) -> CommandReply:
    """This is a boundary: whatever a command raises, its user hears of it and the log has it."""
    try:
        return await command.run(call)
    except BotError as error:
        return CommandReply(str(error), is_private=True)
    except Exception:
        logger.exception("/%s failed", " ".join(command.path))
        return CommandReply(_APOLOGY, is_private=True)


async def _respond(interaction: discord.Interaction, reply: CommandReply) -> None:
    *earlier, last = _pieces(reply.text or "Done.")
    is_first = True
    for piece in earlier:
        await _show(interaction, piece, discord.utils.MISSING, [], reply.is_private, is_first)
        is_first = False
    files = [_file(picture) for picture in reply.pictures[:MAX_FILES]]
    await _show(interaction, last, _view(reply), files, reply.is_private, is_first)


async def _show(
    interaction: discord.Interaction,
    text: str,
    view: discord.ui.View,
    files: Sequence[discord.File],
    is_private: bool,
    is_first: bool,
) -> None:
    silent = discord.AllowedMentions.none()
    is_deferred = is_first and interaction.response.is_done()
    if is_deferred and not is_private:
        # "Thinking…" was for one person; what everyone may see needs a message of its own.
        await interaction.delete_original_response()

    async def send(files: Sequence[discord.File]) -> None:
        if is_first and not is_deferred:
            await interaction.response.send_message(
                text, view=view, files=files, ephemeral=is_private, allowed_mentions=silent
            )
        elif is_deferred and is_private:
            await interaction.edit_original_response(
                content=text, view=view, attachments=files, allowed_mentions=silent
            )
        else:
            await interaction.followup.send(text, view=view, files=files, ephemeral=is_private, allowed_mentions=silent)

    try:
        await send(files)
    except discord.HTTPException as error:
        # Too large for this server, or pictures are not allowed in this channel: the words still are.
        if not files or error.status not in (400, 403, 413):
            raise
        logger.warning("Discord refused the pictures of an answer: %s", describe(error))
        await send([])


def _file(picture: ReplyPicture) -> discord.File:
    return discord.File(
        io.BytesIO(picture.data), filename=picture.name, description=_shorten(picture.alt, MAX_ALT_LENGTH) or None
    )


def _view(reply: CommandReply) -> discord.ui.View:
    """The choices of a reply: a few as buttons, many as menus."""
    if not reply.choices:
        nothing: discord.ui.View = discord.utils.MISSING
        return nothing
    view = discord.ui.View(timeout=None)
    if len(reply.choices) <= MAX_BUTTONS:
        for choice in reply.choices:
            view.add_item(_button(reply, choice))
    else:
        shown = reply.choices[: MAX_MENU_OPTIONS * MAX_MENUS]
        for start in range(0, len(shown), MAX_MENU_OPTIONS):
            view.add_item(_menu(reply, start, shown[start : start + MAX_MENU_OPTIONS]))
    # A view that has ended is not kept in memory: `on_interaction` finds the command by the id alone.
    view.stop()
    return view


def _button(reply: CommandReply, choice: Choice) -> discord.ui.Button[discord.ui.View]:
    return discord.ui.Button(
        label=_shorten(choice.label, MAX_BUTTON_LABEL_LENGTH),
        style=discord.ButtonStyle.secondary,
        custom_id=_custom_id("button", reply, choice.value),
    )


def _menu(reply: CommandReply, start: int, choices: tuple[Choice, ...]) -> discord.ui.Select[discord.ui.View]:
    options = [
        discord.SelectOption(label=_shorten(choice.label, MAX_LABEL_LENGTH), value=choice.value) for choice in choices
    ]
    return discord.ui.Select(custom_id=_custom_id("menu", reply, str(start)), placeholder="Choose…", options=options)


def _custom_id(kind: str, reply: CommandReply, value: str) -> str:
    custom_id = ":".join((kind, ".".join(reply.choice_path), reply.choice_argument, value))
    if len(custom_id) > MAX_CUSTOM_ID_LENGTH:
        raise ValueError(f"the names of command and argument are too long for a button: {custom_id}")
    return custom_id


def _parse_custom_id(custom_id: str, values: Sequence[object]) -> tuple[tuple[str, ...], str, str] | None:
    """Path, argument and value behind a component, or `None` where it is none of ours."""
    parts = custom_id.split(":", 3)
    if len(parts) != 4 or parts[0] not in ("button", "menu"):
        return None
    kind, path, argument, value = parts
    if kind == "menu":
        if not values:
            return None
        value = str(values[0])
    return tuple(path.split(".")), argument, value


def _pieces(text: str) -> list[str]:
    """`text` in pieces that fit into a message, cut at line ends where there are any."""
    pieces = []
    while len(text) > MAX_TEXT_LENGTH:
        cut = text.rfind("\n", 1, MAX_TEXT_LENGTH)
        cut = cut if cut > 0 else MAX_TEXT_LENGTH
        pieces.append(text[:cut])
        text = text[cut:].lstrip("\n")
    return [*pieces, text]


def _shorten(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
