"""What trained weights are worth, measured on data that they have not seen. The way in is `command.run`.

Needs the libraries of the extra `train`; each is imported where it is used, so that the bot runs without them.
"""
