import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bot.errors import PersonaError
from bot.personas import library as library_module
from bot.personas.library import PersonaLibrary
from tests.bot.personas.conftest import MIRA, WritePersona

LIVE_WITHIN_S = 2


def named(name: str) -> str:
    return MIRA.replace("name: Mira", f"name: {name}")


def loaded(*folders: Path) -> PersonaLibrary:
    library = PersonaLibrary(folders)
    library.load()
    return library


def names_in(library: PersonaLibrary) -> list[str]:
    return [persona.name for persona in library.all()]


def test_all_by_name(write: WritePersona, tmp_path: Path) -> None:
    write("a.yaml", base=named("zoe"))
    write("b.yml", base=named("Ann"))
    write("c.yaml", base=named("Bob"))
    write(".#d.yaml", base=named("Editor's lock"))
    write("e.yaml~", base=named("Editor's copy"))
    (tmp_path / "f.yaml").mkdir()
    assert names_in(loaded(tmp_path)) == ["Ann", "Bob", "zoe"]


def test_get_names_what_exists(write: WritePersona, tmp_path: Path) -> None:
    write("mira.yaml")
    library = loaded(tmp_path)
    assert library.get("mira").name == "Mira"
    with pytest.raises(PersonaError, match=r"no persona is called 'nora'; there are: mira \(Mira\)"):
        library.get("nora")


def test_find(write: WritePersona, tmp_path: Path) -> None:
    write("okoro.yaml", base=named("Ms Okoro"))
    write("tom.yaml", base=named("Tomás"))
    write("tomas.yaml", base=named("Tom Thumb"))
    write("twin-1.yaml", base=named("Twin"))
    write("twin-2.yaml", base=named("Twin"))
    write("p1.yaml", base=named("Lou"))
    write("p2.yaml", base=named("Louise"))
    library = loaded(tmp_path)

    def found(text: str) -> str | None:
        persona = library.find(text)
        return persona.id if persona else None

    assert found(" MS OKORO ") == "okoro"
    assert found("oko") == found("ms") == "okoro"
    assert found("tom") == "tom"  # an id is meant before a beginning
    assert found("TOMÁS") == "tom"
    assert found("tom t") == "tomas"
    assert found("lou") == "p1"  # a name before a beginning
    assert found("to") is None  # two begin so
    assert found("twin") is None  # two are called so
    assert found("twin-2") == "twin-2"
    assert found("") is None
    assert found("nobody") is None


def test_later_folders_win(tmp_path: Path) -> None:
    for folder, name in (("shipped", "Mira"), ("own", "My Mira")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mira.yaml").write_text(named(name), encoding="utf-8")
    assert names_in(loaded(tmp_path / "shipped", tmp_path / "missing", tmp_path / "own")) == ["My Mira"]
    assert names_in(loaded(tmp_path / "own", tmp_path / "shipped")) == ["Mira"]


def test_a_broken_override_leaves_the_shipped_one(tmp_path: Path) -> None:
    for folder, text in (("shipped", MIRA), ("own", "name: [")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mira.yaml").write_text(text, encoding="utf-8")
    library = loaded(tmp_path / "shipped", tmp_path / "own")
    assert names_in(library) == ["Mira"]
    assert [problem.path.parent.name for problem in library.problems] == ["own"]


def test_the_last_good_version_stays(write: WritePersona, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write("mira.yaml")
    write("ann.yaml", base=named("Ann"))
    library = loaded(tmp_path)
    path.write_text("name: Mira 2\ncolour: red\n", encoding="utf-8")
    library.load()
    assert names_in(library) == ["Ann", "Mira"]
    assert f"{path}:2:1: `colour` is not a known key" in caplog.text
    assert len(library.problems) == 3
    path.write_text(named("Mira 3"), encoding="utf-8")
    library.load()
    assert names_in(library) == ["Ann", "Mira 3"]
    assert library.problems == ()


def test_a_problem_is_logged_once(write: WritePersona, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write("mira.yaml", "colour: red\n")
    library = loaded(tmp_path)
    library.load()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_two_files_of_one_id(write: WritePersona, tmp_path: Path) -> None:
    write("mira.yaml", base=named("First"))
    write("mira.yml", base=named("Second"))
    library = loaded(tmp_path)
    assert names_in(library) == ["First"]
    assert "mira.yaml beside it has the same id" in str(library.problems[0])


def test_card_and_avatar(write: WritePersona, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    (tmp_path / "b.png").write_bytes(b"png")
    base = MIRA.replace("Keeper of a lighthouse", "Her lighthouse has made {{char}} one")
    write(more="avatar: a.png\nplatforms: {discord: {avatar: b.png}, telegram: {name: M}}\n", base=base)
    library = loaded(tmp_path)
    mira = library.get("mira")
    card = library.card(mira)
    assert (card.id, card.name, card.language, card.avatar) == ("mira", "Mira", "en", tmp_path.resolve() / "a.png")
    assert card.summary == "Her lighthouse has made Mira one who collects storms."
    assert library.avatar(mira, "discord") == tmp_path.resolve() / "b.png"
    assert library.avatar(mira, "telegram") == tmp_path.resolve() / "a.png"


def test_how_a_persona_is_shown_where_several_speak(write: WritePersona, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "joy.png", "joy.webp"):
        (tmp_path / name).write_bytes(b"png")
    write(
        more="""\
avatar: a.png
platforms: {discord: {avatar: b.png, name: Mira of Gannet}}
expressions:
  joy: {avatar: joy.png, sticker: joy.webp}
  anger: {reaction: "😠"}
"""
    )
    library = loaded(tmp_path)
    mira, home = library.get("mira"), tmp_path.resolve()
    speaker = library.speaker(mira, "discord")
    assert (speaker.persona_id, speaker.name, speaker.avatar) == ("mira", "Mira of Gannet", home / "b.png")
    assert library.speaker(mira, "telegram").name == "Mira"
    assert library.speaker(mira, "telegram").avatar == home / "a.png"
    assert speaker.avatar_for("That is so funny 😄") == home / "joy.png"
    assert speaker.avatar_for("Go away 😠") is None
    assert speaker.avatar_for("The lamp is lit.") is None
    assert library.sticker(mira, mira.expressions["joy"]) == home / "joy.webp"
    assert library.sticker(mira, mira.expressions["anger"]) is None
    (tmp_path / "joy.webp").unlink()
    (tmp_path / "joy.png").unlink()
    assert library.sticker(mira, mira.expressions["joy"]) is None
    assert speaker.avatar_for("That is so funny 😄") is None


def test_an_avatar_replaced_by_a_link_is_not_served(write: WritePersona, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    avatar = tmp_path / "in" / "a.png"
    write("in/mira.yaml", "avatar: a.png\n")
    avatar.write_bytes(b"png")
    library = loaded(tmp_path / "in")
    assert library.avatar(library.get("mira")) == avatar.resolve()
    avatar.unlink()
    avatar.symlink_to(tmp_path / "secret.png")
    assert library.avatar(library.get("mira")) is None


def test_a_persona_that_was_removed_has_no_avatar(write: WritePersona, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    path = write(more="avatar: a.png\n")
    library = loaded(tmp_path)
    mira = library.get("mira")
    path.unlink()
    library.load()
    assert library.all() == ()
    assert library.avatar(mira) is None


@asynccontextmanager
async def watched(library: PersonaLibrary) -> AsyncIterator[None]:
    library.load()
    task = asyncio.create_task(library.watch())
    try:
        await asyncio.sleep(0.05)
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def live(is_so: Callable[[], bool]) -> None:
    """Wait until `is_so`, no longer than an author may have to."""
    async with asyncio.timeout(LIVE_WITHIN_S):
        while not is_so():
            await asyncio.sleep(0.02)


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "POLL_INTERVAL_S", 0.1)


async def test_edits_are_live(write: WritePersona, tmp_path: Path) -> None:
    path = write("mira.yaml")
    library = PersonaLibrary([tmp_path])
    changes: list[list[str]] = []
    library.on_change(lambda: changes.append(names_in(library)))
    async with watched(library):
        path.write_text(named("Mira 2"), encoding="utf-8")
        await live(lambda: names_in(library) == ["Mira 2"])
        write("ann.yaml", base=named("Ann"))
        await live(lambda: names_in(library) == ["Ann", "Mira 2"])
        path.write_text("name: [", encoding="utf-8")
        await live(lambda: len(library.problems) == 1)
        assert names_in(library) == ["Ann", "Mira 2"]
        path.unlink()
        await live(lambda: names_in(library) == ["Ann"])
        assert library.problems == ()
    assert changes == [["Mira 2"], ["Ann", "Mira 2"], ["Ann", "Mira 2"], ["Ann"]]


async def test_an_avatar_that_arrives_later_mends_its_persona(write: WritePersona, tmp_path: Path) -> None:
    write("mira.yaml", "avatar: faces/a.png\n")
    library = PersonaLibrary([tmp_path])
    async with watched(library):
        assert library.problems
        (tmp_path / "faces").mkdir()
        (tmp_path / "faces" / "a.png").write_bytes(b"png")
        await live(lambda: names_in(library) == ["Mira"])


@pytest.mark.usefixtures("looks_often")
async def test_a_folder_may_go_and_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "personas"
    library = PersonaLibrary([folder])
    async with watched(library):
        for name in ("Mira", "Mira 2"):
            folder.mkdir()
            (folder / "mira.yaml").write_text(named(name), encoding="utf-8")
            await live(lambda name=name: names_in(library) == [name])
            shutil.rmtree(folder)
            await live(lambda: names_in(library) == [])


@pytest.mark.usefixtures("looks_often")
async def test_a_folder_that_came_back_is_watched_as_before(write: WritePersona, tmp_path: Path) -> None:
    folder = tmp_path / "personas"
    write("personas/mira.yaml")
    library = PersonaLibrary([folder])
    async with watched(library):
        shutil.rmtree(folder)
        await live(lambda: names_in(library) == [])
        write("personas/mira.yaml", "avatar: a.png\n")
        await live(lambda: len(library.problems) == 1)
        await asyncio.sleep(library_module.POLL_INTERVAL_S)
        (folder / "a.png").write_bytes(b"png")  # only a notification tells of it
        await live(lambda: names_in(library) == ["Mira"])


async def test_watching_without_notifications(
    write: WritePersona, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    awatch = library_module.awatch

    async def exhausted(*folders: Path, force_polling: bool | None, **options: object) -> AsyncIterator[object]:
        if not force_polling:
            raise OSError("OS file watch limit reached")
        async for changes in awatch(*folders, force_polling=True, **options):
            yield changes

    monkeypatch.setattr(library_module, "awatch", exhausted)
    path = write("mira.yaml")
    library = PersonaLibrary([tmp_path])
    async with watched(library):
        path.write_text(named("Mira 2"), encoding="utf-8")
        await live(lambda: names_in(library) == ["Mira 2"])
    assert "gives no notice of changed files (OS file watch limit reached)" in caplog.text


async def test_watching_costs_no_reading(write: WritePersona, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("mira.yaml")
    write("broken.yaml", "colour: red\n")
    library = PersonaLibrary([tmp_path])
    monkeypatch.setattr(library_module, "POLL_INTERVAL_S", 0.05)
    async with watched(library):
        monkeypatch.setattr(library_module, "read_persona", lambda path: pytest.fail(f"read {path} again"))
        await asyncio.sleep(0.3)
