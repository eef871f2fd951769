import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.logs import REDACTED, configure_logging


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


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
    ["123456789:AAE-abcdefghijklmnopqrstuvwxyz01234", "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ." + "x" * 30],
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
