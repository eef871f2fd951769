"""The local page: a chat in the browser, served by this process alone."""

from bot.adapters.web.server import WebAdapter

__all__ = ["WebAdapter"]
