"""A Bot API server for tests."""

from tests.fakes.telegram.server import FakeTelegram, Fault
from tests.fakes.telegram.state import Button, CallbackAnswer, Chat, ChatAction, Draft, SentMessage, User

__all__ = ["Button", "CallbackAnswer", "Chat", "ChatAction", "Draft", "FakeTelegram", "Fault", "SentMessage", "User"]
