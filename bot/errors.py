"""What can go wrong in the bot. Every message says what to do, and none contains a secret.

BotError
├── SettingsError      commedia.toml or the environment is wrong
├── StoreError         the database or the attachments folder cannot be used
├── PersonaError       a persona file is wrong, or no persona has that name
├── MediaError         a file is refused; the text may be shown to its sender
├── CommandError       a command cannot be done; the text is for whoever used it
├── DeliveryError      a message could not be sent or edited
│   ├── RateLimited    … yet: try again after `retry_after_s`
│   ├── MessageGone    … ever: the message to edit is not there any more
│   └── ChannelClosed  … ever: the channel is gone, or closed to the bot
└── PlatformFatal      a platform cannot be served until an admin changes something
"""


class BotError(Exception):
    """Base of all errors that the bot raises on purpose."""


class SettingsError(BotError):
    """commedia.toml or the environment is wrong."""


class StoreError(BotError):
    """The database or the attachments folder cannot be used."""


class PersonaError(BotError):
    """A persona file is wrong, or no persona has that name."""


class MediaError(BotError):
    """A file is refused. The text may be shown to whoever sent it."""


class CommandError(BotError):
    """A command cannot be done. The text is for whoever used it."""


class DeliveryError(BotError):
    """A message could not be sent or edited."""


class RateLimited(DeliveryError):
    """The platform asks for patience."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"rate limited; try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class MessageGone(DeliveryError):
    """The message to edit is not there any more. A text that is still to be shown needs another one."""


class ChannelClosed(DeliveryError):
    """The channel is gone, or closed to the bot: trying again helps nobody."""


class PlatformFatal(BotError):
    """A platform cannot be served until an admin changes something: a wrong token, a missing intent."""
