"""Many chats at once, beside what people run today: see `__main__` for the command."""
