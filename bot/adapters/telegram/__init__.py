"""Telegram, through python-telegram-bot and long polling."""

from bot.adapters.telegram.adapter import TelegramAdapter, Timing

__all__ = ["TelegramAdapter", "Timing"]
