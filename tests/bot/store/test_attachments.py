"""The attachments folder: kept once, whole or not at all, verified, and cleared of what nobody shows."""

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from bot.errors import StoreError
from bot.store.attachments import AttachmentStore
from bot.store.database import Database
from bot.store.repositories import Conversations, PictureEmbeddings
from bot.types import Attachment, ConversationKey, NewTurn, Room
from engine.types import Role

KEY = ConversationKey(Room("web", "1"), "pierrot")
PICTURE = b"\x89PNG a dog"
DIGEST = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "attachments"


@pytest.fixture
def store(folder: Path, database: Database) -> AttachmentStore:
    return AttachmentStore(folder, database)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def make_old(folder: Path, *, age_s: float = 7200) -> None:
    for path in files(folder):
        os.utime(path, (time.time() - age_s,) * 2)


async def put(store: AttachmentStore, data: bytes = PICTURE) -> Attachment:
    return await store.put(data, mime="image/png", width=3, height=2)


async def test_a_picture_is_kept_under_its_digest(store: AttachmentStore, folder: Path) -> None:
    assert await put(store) == Attachment(DIGEST, "image/png", len(PICTURE), 3, 2)
    assert files(folder) == [folder / DIGEST[:2] / DIGEST]
    assert await store.read(DIGEST) == PICTURE


async def test_the_same_picture_is_kept_once(store: AttachmentStore, folder: Path) -> None:
    assert await put(store) == await put(store)
    assert len(files(folder)) == 1


async def test_no_picture_at_all_has_a_digest_too(store: AttachmentStore) -> None:
    attachment = await put(store, b"")
    assert await store.read(attachment.digest) == b""


# Damage


async def test_a_missing_picture(store: AttachmentStore) -> None:
    with pytest.raises(StoreError, match="is gone"):
        await store.read(DIGEST)


@pytest.mark.parametrize("damage", [b"", PICTURE[:-1], PICTURE + b"!", b"\x89PNG a cat"])
async def test_a_damaged_picture_is_refused_and_mended(store: AttachmentStore, folder: Path, damage: bytes) -> None:
    await put(store)
    (path,) = files(folder)
    path.write_bytes(damage)
    with pytest.raises(StoreError, match="is damaged"):
        await store.read(DIGEST)
    await put(store)
    assert await store.read(DIGEST) == PICTURE


@pytest.mark.parametrize("digest", ["", "..", "../../commedia.db", DIGEST.upper(), DIGEST[:-1], f"{DIGEST}\n"])
async def test_what_is_no_digest_reaches_no_file(store: AttachmentStore, digest: str) -> None:
    with pytest.raises(StoreError, match="not the SHA-256"):
        await store.read(digest)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "is full"), (errno.EACCES, "cannot be used"), (errno.EIO, "check the disk")],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
async def test_a_write_that_fails_leaves_nothing(
    store: AttachmentStore, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], fail)
        with pytest.raises(StoreError, match=remedy):
            await put(store)
    assert files(folder) == []
    await put(store)
    assert await store.read(DIGEST) == PICTURE


async def test_a_file_in_the_folders_place(store: AttachmentStore, folder: Path) -> None:
    folder.write_text("mine")
    with pytest.raises(StoreError, match="move it away"):
        await put(store)
    with pytest.raises(StoreError, match="move it away"):
        await store.read(DIGEST)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
async def test_an_unwritable_folder(store: AttachmentStore, folder: Path) -> None:
    folder.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot be used"):
        await put(store)


# Pruning


async def test_prune_removes_what_no_turn_shows(
    store: AttachmentStore, folder: Path, conversations: Conversations
) -> None:
    shown, orphan = await put(store), await put(store, b"nobody shows this")
    await conversations.append(KEY, NewTurn(Role.USER, "look", attachments=(shown,)))
    make_old(folder)
    assert await store.prune() == 1
    assert await store.read(shown.digest) == PICTURE
    with pytest.raises(StoreError, match="is gone"):
        await store.read(orphan.digest)
    assert await store.prune() == 0


async def test_prune_after_a_reset(store: AttachmentStore, folder: Path, conversations: Conversations) -> None:
    picture = await put(store)
    other = ConversationKey(Room("web", "2"), "pierrot")
    for key in (KEY, other):
        await conversations.append(key, NewTurn(Role.USER, "look", attachments=(picture,)))
    make_old(folder)
    await conversations.reset(KEY)
    assert await store.prune() == 0
    await conversations.reset(other)
    assert await store.prune() == 1
    assert files(folder) == []


async def test_prune_takes_what_a_picture_looks_like_along(
    store: AttachmentStore, database: Database, conversations: Conversations
) -> None:
    picture, embeddings = await put(store), PictureEmbeddings(database)
    await conversations.append(KEY, NewTurn(Role.USER, "look", attachments=(picture,)))
    await embeddings.put({DIGEST: (1.0,)}, space="s")
    await store.prune()
    assert await embeddings.of([DIGEST], space="s") == {DIGEST: (1.0,)}
    await conversations.reset(KEY)
    await store.prune()
    assert await embeddings.of([DIGEST], space="s") == {}


async def test_prune_spares_what_was_just_put(store: AttachmentStore, folder: Path) -> None:
    await put(store)
    assert await store.prune() == 0
    make_old(folder)
    await put(store)  # again: now somebody is about to show it
    assert await store.prune() == 0
    make_old(folder)
    assert await store.prune() == 1


async def test_prune_clears_torn_writes_and_nothing_foreign(store: AttachmentStore, folder: Path) -> None:
    await put(store)
    (path,) = files(folder)
    torn, foreign = path.with_name("tmp123.part"), path.with_name("notes.txt")
    torn.write_bytes(PICTURE[:4])
    foreign.write_text("mine")
    make_old(folder)
    assert await store.prune() == 1
    assert files(folder) == [foreign]


async def test_prune_of_an_empty_store(store: AttachmentStore) -> None:
    assert await store.prune() == 0


async def test_prune_leaves_a_write_that_ends_meanwhile(
    store: AttachmentStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store)
    (path,) = files(folder)
    renamed = path.with_name("tmp123.part")
    monkeypatch.setattr(store, "_own_files", lambda: iter([renamed, path]))
    make_old(folder)
    assert await store.prune() == 1
