"""How the answer of a command is shown on Discord.

Owns answering within Discord's three seconds, and who sees what. Does not know what any command does.
"""

import asyncio
import io
import logging
from collections.abc import Awaitable, Sequence

import discord

from bot.adapters.discord.controls import shorten, view_of_choices
from bot.adapters.discord.errors import REQUEST_ERRORS, describe
from bot.commands import CommandReply, ReplyPicture

logger = logging.getLogger(__name__)

# Discord waits three seconds for the first sign. A quick answer is better than "thinking…" first: only the answer
# itself tells whether others may see it, and what was shown to one person cannot be shown to all any more.
PROMPT_ANSWER_S = 1.0
MAX_TEXT_LENGTH = 2000
MAX_FILES = 10
MAX_ALT_LENGTH = 1024

_SILENT = discord.AllowedMentions.none()


async def answer(interaction: discord.Interaction, work: Awaitable[CommandReply], name: str) -> None:
    """Show what `work` gives as the answer to the command `name`, and that it takes a while if it does."""
    running = asyncio.ensure_future(work)
    try:
        await asyncio.wait({running}, timeout=PROMPT_ANSWER_S)
        if not running.done():
            await _acknowledge(interaction)
        await respond(interaction, await running)
    except REQUEST_ERRORS as error:
        logger.warning("The answer to /%s did not reach Discord: %s", name, describe(error))
    finally:
        running.cancel()


async def respond(interaction: discord.Interaction, reply: CommandReply) -> None:
    """Show `reply`."""
    if reply.is_silent and is_under_message(interaction):
        if not interaction.response.is_done():
            await interaction.response.defer()
        return
    is_private = reply.is_private or reply.is_silent
    *earlier, last = _pieces(reply.text or "Done.")
    is_first = True
    for piece in earlier:
        await _show(interaction, piece, None, [], is_private, is_first)
        is_first = False
    files = [_file(picture) for picture in reply.pictures[:MAX_FILES]]
    await _show(interaction, last, view_of_choices(reply), files, is_private, is_first)


def is_under_message(interaction: discord.Interaction) -> bool:
    """Whether a button under a message was pressed, or a field filled that such a button had opened."""
    is_component = interaction.type in (discord.InteractionType.component, discord.InteractionType.modal_submit)
    return is_component and interaction.message is not None


async def _acknowledge(interaction: discord.Interaction) -> None:
    """Show that it takes a while. Should Discord not take that, the work has begun all the same, and ends."""
    try:
        if is_under_message(interaction):
            await interaction.response.defer()
        else:
            await interaction.response.defer(ephemeral=True, thinking=True)
    except REQUEST_ERRORS as error:
        logger.warning("That a command takes a while did not reach Discord: %s", describe(error))


async def _show(
    interaction: discord.Interaction,
    text: str,
    view: discord.ui.View | None,
    files: Sequence[discord.File],
    is_private: bool,
    is_first: bool,
) -> None:
    shown = discord.utils.MISSING if view is None else view
    is_answered = interaction.response.is_done()
    is_thinking = is_first and interaction.response.type is discord.InteractionResponseType.deferred_channel_message
    if is_thinking and not is_private:
        # "Thinking…" was for one person; what everyone may see needs a message of its own.
        await interaction.delete_original_response()

    async def send(files: Sequence[discord.File]) -> None:
        if is_first and not is_answered:
            await interaction.response.send_message(
                text, view=shown, files=files, ephemeral=is_private, allowed_mentions=_SILENT
            )
        elif is_thinking and is_private:
            await interaction.edit_original_response(
                content=text, view=view, attachments=files, allowed_mentions=_SILENT
            )
        else:
            await interaction.followup.send(
                text, view=shown, files=files, ephemeral=is_private, allowed_mentions=_SILENT
            )

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
        io.BytesIO(picture.data), filename=picture.name, description=shorten(picture.alt, MAX_ALT_LENGTH) or None
    )


def _pieces(text: str) -> list[str]:
    """`text` in pieces that fit into a message, cut at line ends where there are any."""
    pieces = []
    while len(text) > MAX_TEXT_LENGTH:
        cut = text.rfind("\n", 1, MAX_TEXT_LENGTH)
        cut = cut if cut > 0 else MAX_TEXT_LENGTH
        pieces.append(text[:cut])
        text = text[cut:].lstrip("\n")
    return [*pieces, text]
