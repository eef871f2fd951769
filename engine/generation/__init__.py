"""Running generations: who is next, which token is chosen, what text is ready to be shown."""
