"""Changes of messages, reactions, and where all of that happens."""

import pytest

from bot.types import Author, ChatKind, Room
from tests.bot.adapters.discord.conftest import Stage
from tests.fakes.discord import Channel, ChannelType

PNG = b"\x89PNG not really a picture"


def place(stage: Stage) -> Channel:
    return stage.discord.add_channel(stage.discord.add_guild("G"), "c")


async def test_edit_brings_the_message_as_it_is_now(stage: Stage) -> None:
    where, ada = place(stage), stage.discord.add_user("ada")
    said = stage.discord.say(where, ada, "helo", files=[("dog.png", "image/png", PNG)])
    stage.discord.edit(said, f"{stage.discord.bot.mention} hello")
    await stage.discord.wait_for(lambda: stage.handler.edits)
    [edit] = stage.handler.edits
    assert (edit.message_id, edit.text, edit.mentions_bot) == (said.id, "hello", True)
    assert (edit.room, edit.author.user_id) == (Room("discord", where.id), ada.id)
    assert [file.name for file in edit.files] == ["dog.png"]
    assert len(stage.handler.received) == 1, "an edit is no new message"


async def test_previews_pins_and_the_bots_own_edits_are_no_edits(stage: Stage) -> None:
    where, ada = place(stage), stage.discord.add_user("ada")
    said = stage.discord.say(where, ada, "see https://example.org")
    stage.discord.unfurl(said, {"type": "link", "title": "Example"})
    stage.discord.edit(said, "see that")
    stage.discord.unfurl(said)
    stage.discord.gateway.dispatch("MESSAGE_UPDATE", said.event() | {"pinned": True})
    stage.discord.edit(stage.discord.say(where, stage.discord.bot, "one"), "two")
    stage.discord.edit(stage.discord.say(where, ada, "end"), "the end")
    await stage.discord.wait_for(lambda: [edit for edit in stage.handler.edits if edit.text == "the end"])
    assert [edit.text for edit in stage.handler.edits] == ["see that", "the end"]


async def test_pin_of_what_was_edited_long_ago_is_no_edit(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    where, ada = place(stage), stage.discord.add_user("ada")
    said = stage.discord.say(where, ada, "fresh")
    fresh = said.event()["timestamp"]
    for message_id, at in (("1", "2026-01-01T00:00:00+00:00"), ("3", None), ("2", fresh)):
        event = said.event() | {"id": message_id, "edited_timestamp": at, "content": f"text of {message_id}"}
        stage.discord.gateway.dispatch("MESSAGE_UPDATE", event)
    await stage.discord.wait_for(lambda: stage.handler.edits)
    assert [edit.message_id for edit in stage.handler.edits] == ["2"], "of messages from before the start, fresh edits"
    assert "could not be handled" not in caplog.text


async def test_deletions(stage: Stage) -> None:
    where, ada = place(stage), stage.discord.add_user("ada")
    thread = stage.discord.add_thread(where, "t")
    dm = stage.discord.add_dm(ada)
    one, two, three = (stage.discord.say(where, ada, text) for text in "123")
    own = stage.discord.say(thread, stage.discord.bot, "mine")
    direct = stage.discord.say(dm, ada, "direct")
    stage.discord.delete(one)
    stage.discord.delete(three, two)
    stage.discord.delete(own)
    stage.discord.delete(direct)
    await stage.discord.wait_for(lambda: len(stage.handler.deletions) == 4)
    assert sorted(stage.handler.deletions, key=str) == sorted(
        [
            (Room("discord", where.id), (one.id,)),
            (Room("discord", where.id), (two.id, three.id)),
            (Room("discord", where.id, thread.id), (own.id,)),
            (Room("discord", dm.id), (direct.id,)),
        ],
        key=str,
    )


async def test_reactions(stage: Stage) -> None:
    where = place(stage)
    ada, mod = stage.discord.add_user("ada"), stage.discord.add_user("mod")
    stage.discord.moderators.add(mod.id)
    said = stage.discord.say(where, stage.discord.bot, "a reply")
    stage.discord.react(said, stage.discord.bot, "👀")
    stage.discord.react(said, stage.discord.add_user("other", is_bot=True), "🔁")
    stage.discord.react(said, ada, "👍")
    stage.discord.react(said, mod, "wave:123")
    stage.discord.react(said, ada, "👍", is_added=False)
    await stage.discord.wait_for(lambda: len(stage.handler.reactions) == 3)
    added, custom, removed = stage.handler.reactions
    assert (added.emoji, added.is_added, added.is_moderator, added.message_id) == ("👍", True, False, said.id)
    assert (added.author, added.room) == (Author("discord", ada.id, "Ada"), Room("discord", where.id))
    assert (custom.emoji, custom.is_moderator) == ("wave", True)
    assert (removed.emoji, removed.is_added, removed.author.user_id) == ("👍", False, ada.id)


async def test_reaction_in_a_direct_chat(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    dm = stage.discord.add_dm(ada)
    stage.discord.react(stage.discord.say(dm, stage.discord.bot, "a reply"), ada, "👍")
    await stage.discord.wait_for(lambda: stage.handler.reactions)
    [reaction] = stage.handler.reactions
    assert (reaction.kind, reaction.room, reaction.is_moderator) == (ChatKind.DIRECT, Room("discord", dm.id), False)


async def test_every_kind_of_channel_is_a_room_with_names(stage: Stage) -> None:
    discord = stage.discord
    guild, ada = discord.add_guild("G"), discord.add_user("ada")
    category = discord.add_channel(guild, "Fun", kind=ChannelType.CATEGORY)
    text = discord.add_channel(guild, "paintings", category=category)
    kinds = (ChannelType.NEWS, ChannelType.VOICE, ChannelType.STAGE)
    others = [discord.add_channel(guild, kind.name.lower(), kind=kind, category=category) for kind in kinds]
    thread = discord.add_thread(text, "a thread")
    forum = discord.add_channel(guild, "forum", kind=ChannelType.FORUM)
    post = discord.add_thread(forum, "a post")
    for where in (text, *others, thread, post):
        discord.say(where, ada, where.name)
    messages = await stage.wait_for_messages(6)
    heard = {message.text: (message.room, message.room_names) for message in messages}
    assert heard["paintings"] == (Room("discord", text.id), ("paintings", "Fun"))
    for other in others:
        assert heard[other.name] == (Room("discord", other.id), (other.name, "Fun"))
    assert heard["a thread"] == (Room("discord", text.id, thread.id), ("a thread", "paintings", "Fun"))
    assert heard["a post"] == (Room("discord", forum.id, post.id), ("a post", "forum"))


async def test_when_it_was_said(stage: Stage) -> None:
    ada = stage.discord.add_user("ada")
    said = stage.discord.say(stage.discord.add_dm(ada), ada, "hello")
    [message] = await stage.wait_for_messages()
    assert message.sent_at is not None
    assert message.sent_at.timestamp() == pytest.approx((int(said.id) >> 22) / 1000 + 1_420_070_400, abs=1)
    assert message.room_names == ()
