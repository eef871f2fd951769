"""The token stays out of messages, arguments and tracebacks, for as long as it is asked for."""

import logging

import pytest

from bot.adapters.telegram.redaction import redact, token_kept_out_of_logs

TOKEN = "123456:a-secret"
HTTPX = logging.getLogger("httpx")


def test_messages_arguments_and_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with token_kept_out_of_logs(TOKEN):
        HTTPX.info("POST https://example.org/bot%s/getMe", TOKEN)
        try:
            raise ValueError(f"no such URL: /bot{TOKEN}/getMe")
        except ValueError:
            HTTPX.exception("failed")
    assert TOKEN not in caplog.text
    assert "POST https://example.org/bot[token]/getMe" in caplog.text
    assert "ValueError: no such URL: /bot[token]/getMe" in caplog.text


def test_other_tracebacks_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with token_kept_out_of_logs(TOKEN):
        try:
            raise ValueError("harmless")
        except ValueError:
            HTTPX.exception("failed")
    assert caplog.records[0].exc_info is not None


def test_the_filter_goes_with_the_connection() -> None:
    filters_before = list(HTTPX.filters)
    with token_kept_out_of_logs(TOKEN):
        assert HTTPX.filters != filters_before
    assert HTTPX.filters == filters_before


def test_without_a_token_a_text_stays_as_it_is() -> None:
    assert redact("text", "") == "text"
