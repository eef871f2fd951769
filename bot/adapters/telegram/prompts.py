"""Questions that are answered by replying to them, for commands that take a longer text.

A question says itself what it is for: its first sign is a link that nobody needs to follow, signed so that only the
bot can have written it. So an answer is understood after a restart, too. Sends nothing and runs nothing.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

from telegram import Message, MessageEntity, User

from bot.adapters.telegram.buttons import CommandButtons, short_digest
from bot.adapters.telegram.client import TelegramClient, utf16_length
from bot.adapters.telegram.formatting import FormattedText
from bot.commands import Argument, Command

_SIGN = "✏"
_MAX_LENGTH = 4096
_START = re.compile(r"start=([A-Za-z0-9_-]{4})([A-Za-z0-9_-]{8})([0-9]*)$")


@dataclass(frozen=True, slots=True)
class PromptAnswer:
    """An answer to a question: `text` is for `argument` of `command`, which was about the message `message_id`."""

    command: Command
    argument: Argument
    message_id: str | None
    prompt_id: str
    text: str


class Prompts:
    """Writes questions and recognises them."""

    def __init__(self, client: TelegramClient, buttons: CommandButtons) -> None:
        self._client = client
        self._buttons = buttons
        self._secret = hashlib.blake2b(client.token.encode(), digest_size=32).digest()

    def question(
        self,
        command: Command,
        argument: Argument,
        *,
        chat_id: int,
        message_id: str | None,
        asked: User | None = None,
        prefill: str = "",
    ) -> FormattedText:
        """What to send. In a group `asked` is who is meant; `prefill` is what the text may begin with, to be copied."""
        key = self._buttons.key(command, argument)
        data = key + self._signature(key, chat_id, message_id) + (message_id or "")
        url = f"https://t.me/{self._client.username}?start={data}"
        entities = [MessageEntity(MessageEntity.TEXT_LINK, 0, utf16_length(_SIGN), url=url)]
        text = f"{_SIGN} "
        if asked is not None:
            entities.append(
                MessageEntity(MessageEntity.TEXT_MENTION, utf16_length(text), utf16_length(asked.full_name), user=asked)
            )
            text += f"{asked.full_name}: "
        text += f"{argument.description}. Reply to this message with it."
        if prefill.strip() and utf16_length(text) + utf16_length(prefill) + 32 <= _MAX_LENGTH:
            text += "\n\nSo far, to copy:\n"
            entities.append(MessageEntity(MessageEntity.PRE, utf16_length(text), utf16_length(prefill.strip())))
            text += prefill.strip()
        return FormattedText(text, tuple(entities))

    def answered_by(self, message: Message) -> PromptAnswer | None:
        """What `message` answers, if it replies to a question of this bot and says something."""
        question = message.reply_to_message
        if question is None or not message.text or not (question.text or "").startswith(_SIGN):
            return None
        if question.from_user is None or question.from_user.id != self._client.bot.id:
            return None
        link = next((entity.url or "" for entity in question.entities if entity.offset == 0 and entity.url), "")
        found = _START.search(link)
        target = self._buttons.target(found[1]) if found else None
        if found is None or target is None:
            return None
        message_id = found[3] or None
        if not hmac.compare_digest(found[2], self._signature(found[1], message.chat.id, message_id)):
            return None
        return PromptAnswer(*target, message_id, str(question.message_id), message.text)

    def _signature(self, key: str, chat_id: int, message_id: str | None) -> str:
        return short_digest(f"{key}\0{chat_id}\0{message_id or ''}", 6, secret=self._secret)
