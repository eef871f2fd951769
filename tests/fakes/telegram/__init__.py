"""A Bot API server for tests."""

from tests.fakes.telegram.server import FakeTelegram, Fault
from tests.fakes.telegram.state import Button, Chat, ChatAction, SentMessage, User

__all__ = ["Button", "Chat", "ChatAction", "FakeTelegram", "Fault", "SentMessage", "User"]
