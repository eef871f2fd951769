"""Who may change what everybody meets."""

import pytest

from bot.admins import Admins
from bot.errors import CommandError
from bot.types import Author

ADMINS = Admins(("telegram:123", "Discord: 456"), frozenset({"console", "web"}))


@pytest.mark.parametrize(
    ("author", "is_admin"),
    [
        (Author("telegram", "123", "Ann"), True),
        (Author("discord", "456", "Bob"), True),
        (Author("discord", "123", "Ann"), False),
        (Author("telegram", "1234", "Eve"), False),
        (Author("telegram", "9", "telegram:123"), False),
        (Author("telegram", "123", "Ann", is_bot=True), False),
        (Author("console", "you", ""), True),
        (Author("web", "session", ""), True),
    ],
)
def test_admins_are_known_by_id(author: Author, is_admin: bool) -> None:
    assert ADMINS.is_admin(author) is is_admin


def test_only_the_terminal_is_trusted_by_itself() -> None:
    assert Admins().is_admin(Author("console", "you", ""))
    assert not Admins().is_admin(Author("web", "session", ""))


def test_everybody_else_hears_how_to_become_one() -> None:
    ADMINS.require(Author("telegram", "123", "Ann"))
    with pytest.raises(CommandError, match=r'admins = \["telegram:9"\]'):
        ADMINS.require(Author("telegram", "9", "Eve"))
