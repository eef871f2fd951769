"""Cards come in and go out by the command line."""

import json
from pathlib import Path

import pytest

from bot import cli
from bot.personas.cards.card import parse_card
from tests.bot.personas.cards.making import V2, V3, picture, png_of


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("COMMEDIA_HOME", "COMMEDIA_CONFIG", "COMMEDIA_PERSONAS"):
        monkeypatch.delenv(variable, raising=False)
    Path("wren.png").write_bytes(png_of(V3, "ccv3"))


def persona(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["commedia", "persona", *arguments])
    try:
        cli.run_command_line()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_good_cards_come_in_and_bad_ones_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photo.png").write_bytes(picture())
    Path("world.json").write_text('{"entries": {}}')
    Path("other.json").write_text(json.dumps({**V2, "data": {**V2["data"], "name": "Otto"}}))
    assert persona(monkeypatch, "import", "wren.png", "photo.png", "world.json", "gone.png", ".", "other.json") == 1
    told = capsys.readouterr()
    assert "personas/wren.png: Wren (en), 3 greetings, 1 examples, 1 lore entries" in told.out
    assert "photo.png: this picture holds no character card" in told.err
    assert "world.json: this is a lorebook without a character" in told.err
    assert "gone.png: the file cannot be read" in told.err
    assert "Traceback" not in told.err
    assert sorted(path.name for path in Path("personas").iterdir()) == ["otto.json", "wren.png"]
    assert persona(monkeypatch, "list") == persona(monkeypatch, "check") == 0
    assert "Otto" in capsys.readouterr().out


def test_nobody_is_replaced_without_force(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert persona(monkeypatch, "import", "wren.png") == 0
    assert persona(monkeypatch, "import", "wren.png") == 1
    assert "choose another name, or say --force" in capsys.readouterr().err
    assert persona(monkeypatch, "import", "wren.png", "--force") == 0
    assert persona(monkeypatch, "import", "wren.png", "--name", "second") == 0
    assert persona(monkeypatch, "import", "wren.png", "wren.png", "--name", "third") == 2


def test_a_card_goes_out_in_every_version_and_container(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    persona(monkeypatch, "import", "wren.png")
    for version in ("v1", "v2", "v3"):
        for ending in ("json", "png", "charx"):
            out = f"{version}.{ending}"
            assert persona(monkeypatch, "export", "Wren", "--format", version, "--out", out) == 0
            assert parse_card(Path(out).read_bytes(), name=out).spec == int(version[1])
    assert "v1 has no place for: " in capsys.readouterr().out
    assert json.loads(Path("v3.json").read_text()) == V3
    assert persona(monkeypatch, "export", "wren", "--container", "json", "--out", "named.txt") == 0
    assert json.loads(Path("named.txt").read_text()) == V3


def test_exports_overwrite_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    persona(monkeypatch, "import", "wren.png")
    Path("out.json").write_text("mine")
    assert persona(monkeypatch, "export", "wren", "--out", "out.json") == 1
    assert "or say --force" in capsys.readouterr().err
    assert Path("out.json").read_text() == "mine"
    assert persona(monkeypatch, "export", "wren", "--out", "out.json", "--force") == 0
    assert json.loads(Path("out.json").read_text()) == V3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "nobody", "--out", "a.json"), "no persona is called"),
        (("export", "wren", "--out", "a.txt"), "end its name in"),
        (("export", "wren", "--out", "wren.png/a.json"), "a.json cannot be written"),
    ],
)
def test_what_cannot_go_out(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    persona(monkeypatch, "import", "wren.png")
    capsys.readouterr()
    assert persona(monkeypatch, *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_shipped_persona_comes_back_from_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    for ending in ("json", "png", "charx"):
        assert persona(monkeypatch, "export", "grub", "--out", f"grub.{ending}") == 0
        assert persona(monkeypatch, "import", f"grub.{ending}", "--name", f"grub-{ending}") == 0


def test_check_takes_cards(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photo.png").write_bytes(picture())
    Path("bad.json").write_text('{"spec": "chara_card_v2"}')
    assert persona(monkeypatch, "check", "wren.png") == 0
    assert persona(monkeypatch, "check", "photo.png", "bad.json") == 1
    told = capsys.readouterr().err
    assert "photo.png: this picture holds no character card" in told
    assert "bad.json: the card is empty" in told
