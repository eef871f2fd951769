"""What the bot itself costs between a platform and an instant engine: see `__main__`."""
