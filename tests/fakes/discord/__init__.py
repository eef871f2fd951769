"""A Discord of our own on 127.0.0.1: HTTP API, CDN and gateway over real sockets, for the real discord.py.

    async with FakeDiscord(token="secret") as discord:
        # start the bot with discord.api_url, discord.gateway_url and the token
        await discord.wait_until_connected()
        channel = discord.add_channel(discord.add_guild("Museum"), "paintings")
        ada = discord.add_user("ada")
        discord.say(channel, ada, f"{discord.bot.mention} hello", files=[("a.png", "image/png", png)])
        reply = await discord.wait_for(lambda: discord.bot_messages(channel))

`server.py` has what tests call, `world.py` what they see, `gateway.py` and `rest.py` the two halves of the wire,
`faults.py` what can be made to go wrong. Written from the wire facts that discord.py relies on, not from its code.
"""

from tests.fakes.discord.faults import Fault
from tests.fakes.discord.server import FakeDiscord
from tests.fakes.discord.world import (
    Attachment,
    Channel,
    ChannelType,
    Guild,
    Interaction,
    Message,
    Reaction,
    User,
    Webhook,
)

__all__ = [
    "Attachment",
    "Channel",
    "ChannelType",
    "FakeDiscord",
    "Fault",
    "Guild",
    "Interaction",
    "Message",
    "Reaction",
    "User",
    "Webhook",
]
