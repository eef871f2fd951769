import logging
from pathlib import Path

import pytest

from bot.errors import SettingsError
from bot.logs import REDACTED, configure_logging


def written(folder: Path) -> str:
    return (folder / "commedia.log").read_text(encoding="utf-8")


def test_known_secrets_are_blotted_out_of_messages_and_tracebacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", folder=tmp_path, secrets=["hunter2"])
    try:
        raise ValueError("the token hunter2 is wrong")
    except ValueError:
        logging.getLogger("test").exception("with %s", "hunter2")
    for text in (written(tmp_path), capsys.readouterr().err):
        assert "hunter2" not in text
        assert f"the token {REDACTED} is wrong" in text


@pytest.mark.parametrize(
    "token",
    [
        "123456789:AAE-abcdefghijklmnopqrstuvwxyz01234",
        "123456789%3AAAE-abcdefghijklmnopqrstuvwxyz01234",
        "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ." + "x" * 30,
    ],
)
def test_what_looks_like_a_token_is_blotted_out(tmp_path: Path, token: str) -> None:
    configure_logging("info", folder=tmp_path)
    logging.getLogger("test").warning("POST /bot%s/getMe failed", token)
    assert token not in written(tmp_path)


def test_libraries_do_not_chatter_at_info(tmp_path: Path) -> None:
    configure_logging("info", folder=tmp_path)
    logging.getLogger("httpx").info("chatter")
    logging.getLogger("httpx").warning("trouble")
    assert "chatter" not in written(tmp_path)
    assert "trouble" in written(tmp_path)


def test_a_log_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(SettingsError, match="COMMEDIA_HOME"):
        configure_logging("info", folder=tmp_path / "logs")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said_once_and_shows_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "commedia.log").symlink_to("/dev/full")
    configure_logging("info", folder=tmp_path, secrets=["hunter2"])
    for _ in range(3):
        logging.getLogger("test").warning("with %s", "hunter2")
    said = capsys.readouterr().err
    assert said.count("No space left") == 1
    assert said.count(f"with {REDACTED}") == 3
    assert "hunter2" not in said
    assert "Traceback" not in said


def test_a_record_that_cannot_be_written_shows_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", folder=tmp_path)
    logging.getLogger("test").warning("%d", "hunter2")
    said = capsys.readouterr().err
    assert "cannot be written: TypeError" in said
    assert "hunter2" not in said


def test_what_people_said_is_not_in_the_log_of_debugging(tmp_path: Path) -> None:
    configure_logging("debug", folder=tmp_path)
    logging.getLogger("aiosqlite").debug("executing INSERT … ('a secret of somebody')")
    assert "somebody" not in written(tmp_path)
