from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot import doctor
from bot.doctor import (
    Level,
    check_database,
    check_engine,
    check_home,
    check_incidents,
    check_personas,
    check_server,
)
from bot.settings import Settings, read_settings
from bot.store.database import Database
from bot.store.incidents import Incident, IncidentRecords
from tests.fakes.openai_server import FakeOpenAIServer


def settings(home: Path, **environment: str) -> Settings:
    return read_settings(environment={"COMMEDIA_HOME": str(home), **environment})


def test_an_unusable_home_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_home(settings(tmp_path / "file" / "home")).level is Level.PROBLEM
    assert check_home(settings(tmp_path / "new")).level in (Level.OK, Level.HINT)


async def test_the_database_is_only_looked_at(tmp_path: Path) -> None:
    assert (await check_database(settings(tmp_path))).level is Level.OK
    assert not list(tmp_path.iterdir())
    (tmp_path / "commedia.db").write_bytes(b"this is no database at all" * 100)
    assert (await check_database(settings(tmp_path))).level is Level.PROBLEM


def test_persona_problems_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "personas"
    folder.mkdir()
    chosen = {"COMMEDIA_PERSONAS": str(folder), "COMMEDIA_CHAT__DEFAULT_PERSONA": "nobody"}
    assert [f.level for f in check_personas(settings(tmp_path, **chosen))] == [Level.PROBLEM]
    (folder / "ann.yaml").write_text("name: Ann\nsummary: A test.\ngreetings: [Hello]\n")
    (folder / "bad.yaml").write_text("name: [")
    findings = check_personas(settings(tmp_path, **chosen))
    assert [finding.level for finding in findings] == [Level.PROBLEM, Level.PROBLEM, Level.OK]
    assert "bad.yaml" in findings[0].text
    assert "nobody" in findings[1].text
    assert "Ann" in findings[2].text


@pytest.mark.parametrize(
    ("decoder", "level", "told"),
    [
        ("some-body/some-model", Level.HINT, "is not here yet"),
        ("/no/such/folder", Level.PROBLEM, "no folder"),
        (".", Level.OK, "is on this machine"),
    ],
)
def test_another_decoder_is_looked_for(tmp_path: Path, decoder: str, level: Level, told: str) -> None:
    findings = check_engine(settings(tmp_path, COMMEDIA_ENGINE__DECODER=decoder))
    (finding,) = (finding for finding in findings if finding.subject == "decoder")
    assert finding.level is level
    assert told in finding.text
    assert not [finding for finding in findings if finding.subject == "weights"]


@pytest.mark.parametrize("backend", ["openai", "vllm"])
async def test_a_server_is_asked_which_model_it_has(tmp_path: Path, backend: str) -> None:
    async with FakeOpenAIServer() as server:
        chosen = {"COMMEDIA_ENGINE__BACKEND": backend, "COMMEDIA_ENGINE__URL": server.url}
        finding = await check_server(settings(tmp_path, **chosen))
    assert finding.level is Level.OK
    assert finding.text.startswith(f"{backend}: ")


async def test_a_server_that_is_not_there_is_a_problem_and_its_key_stays_secret(tmp_path: Path) -> None:
    async with FakeOpenAIServer() as server:
        url = server.url
    chosen = {
        "COMMEDIA_ENGINE__BACKEND": "openai",
        "COMMEDIA_ENGINE__URL": url,
        "COMMEDIA_ENGINE__API_KEY": "s3cret-key",
    }
    finding = await check_server(settings(tmp_path, **chosen))
    assert finding.level is Level.PROBLEM
    assert "s3cret-key" not in f"{finding.text}{finding.remedy}"


def test_ray_has_to_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    (finding,) = check_engine(settings(tmp_path, COMMEDIA_ENGINE__BACKEND="ray"))
    assert finding.level is Level.PROBLEM
    assert "commedia[ray]" in finding.remedy


async def test_what_went_wrong_in_the_last_day_is_told(tmp_path: Path) -> None:
    assert await check_incidents(settings(tmp_path)) == []
    assert not list(tmp_path.iterdir())
    database = Database(tmp_path / "commedia.db")
    await database.upgrade()
    assert [finding.level for finding in await check_incidents(settings(tmp_path))] == [Level.OK]
    now = datetime.now(UTC)
    mend = "chat 7: give the bot the right to write there"
    await IncidentRecords(database).add(
        [
            Incident("telegram", "forbidden", 12, now, mend),
            Incident("discord", "bad event", 1, now - timedelta(hours=23), "told to the log"),
            Incident("discord", "gone", 1, now - timedelta(hours=25), "long mended"),
        ]
    )
    telegram, discord = await check_incidents(settings(tmp_path))
    assert (telegram.level, telegram.subject, telegram.remedy) == (Level.HINT, "telegram", mend)
    assert telegram.text == f"forbidden: 12 times, the last at {now:%Y-%m-%d %H:%M} UTC."
    assert discord.text.startswith("bad event: 1 time, ")
    await IncidentRecords(database).add([Incident("discord", str(number), 1, now, "what") for number in range(25)])
    await database.aclose()
    findings = await check_incidents(settings(tmp_path))
    assert findings[-1].text == "7 more kinds in the last 24 hours."


async def test_a_database_of_an_earlier_version_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "commedia.db").write_bytes(b"this is no database at all" * 100)
    assert await check_incidents(settings(tmp_path)) == []
