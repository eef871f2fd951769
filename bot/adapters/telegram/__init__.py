"""Telegram, through python-telegram-bot, by long polling or by webhook."""

from bot.adapters.telegram.adapter import TelegramAdapter, Timing
from bot.adapters.telegram.webhook import Webhook

__all__ = ["TelegramAdapter", "Timing", "Webhook"]
