from pathlib import Path

import pytest
from pydantic import BaseModel

from bot.app import engine_config
from bot.errors import SettingsError
from bot.settings import Settings, read_settings, reference


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_need_no_file() -> None:
    assert read_settings(environment={}) == Settings()


def test_the_environment_wins_over_the_file() -> None:
    Path("commedia.toml").write_text('[web]\nport = 1\nhost = "::1"\n')
    settings = read_settings(environment={"COMMEDIA_WEB__PORT": "2"})
    assert (settings.web.port, settings.web.host) == (2, "::1")


def test_the_process_environment_wins_over_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("DISCORD_TOKEN=from-file\nTELEGRAM_TOKEN=from-file\n")
    monkeypatch.setenv("DISCORD_TOKEN", "from-process")
    monkeypatch.delenv("TELEGRAM_TOKEN", raising=False)
    settings = read_settings()
    assert sorted(settings.secrets()) == ["from-file", "from-process"]


def test_an_empty_variable_sets_nothing() -> None:
    assert read_settings(environment={"DISCORD_TOKEN": "", "COMMEDIA_WEB__PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("toml", "environment", "told"),
    [
        ("[web]\nprot = 1", {}, ["commedia.toml", "web.prot", "Did you mean web.port?"]),
        ("colour = 1", {}, ["commedia.toml", "no option colour"]),
        ("[engin]\nbackend = 'echo'", {}, ["commedia.toml", "Did you mean engine?"]),
        ("", {"COMMEDIA_TELEGRM__API_URL": "x"}, ["COMMEDIA_TELEGRM__API_URL", "Did you mean telegram.api_url?"]),
        ("", {"COMMEDIA_WEB__PORT": "many"}, ["COMMEDIA_WEB__PORT", "web.port", "valid integer"]),
        ("[web]\nport = 99999", {}, ["commedia.toml", "web.port", "65535"]),
        ("", {"COMMEDIA_WEB": "yes"}, ["COMMEDIA_WEB"]),
        ("web = 3", {"COMMEDIA_WEB__PORT": "1"}, ["web"]),
        ("[web", {}, ["commedia.toml", "not valid TOML"]),
        ("[engine]\nnum_replicas = [4, 1]", {}, ["engine.num_replicas", "fewest"]),
        ("[engine]\nnum_replicas = 1.5", {}, ["engine.num_replicas", "integer"]),
        ("[engine]\nnum_replicas = [1, 2, 3]", {}, ["engine.num_replicas"]),
        ("", {"COMMEDIA_ENGINE__KV_CACHE_MB": "9" * 30}, ["engine.kv_cache_mb", "less than"]),
        ("", {"COMMEDIA_ENGINE__NUM_REPLICAS": "some"}, ["COMMEDIA_ENGINE__NUM_REPLICAS"]),
        ("[engine]\nbackend = 'llama'", {}, ["engine.backend", "openai"]),
        ("[engine]\nmax_running = 0", {}, ["engine.max_running"]),
    ],
)
def test_a_wrong_option_is_named_with_its_origin(toml: str, environment: dict[str, str], told: list[str]) -> None:
    Path("commedia.toml").write_text(toml)
    with pytest.raises(SettingsError) as caught:
        read_settings(environment=environment)
    assert all(part in str(caught.value) for part in told)


def test_a_named_file_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"other\.toml: no such file"):
        read_settings(environment={"COMMEDIA_CONFIG": "other.toml"})


def test_tokens_stay_out_of_errors_and_representations() -> None:
    environment = {"DISCORD_TOKEN": "s3cret", "COMMEDIA_DISCORD__TOKN": "s3cret", "COMMEDIA_DISCORD": "s3cret"}
    with pytest.raises(SettingsError) as caught:
        read_settings(environment=environment)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(read_settings(environment={"DISCORD_TOKEN": "s3cret"}))


def test_a_servers_key_is_a_secret() -> None:
    settings = read_settings(environment={"COMMEDIA_ENGINE__API_KEY": "s3cret"})
    assert settings.secrets() == ("s3cret",)
    assert "s3cret" not in repr(settings)


def test_what_stands_in_an_address_is_not_shown() -> None:
    settings = read_settings(environment={"COMMEDIA_ENGINE__URL": "http://ann:s3cret@127.0.0.1/v1"})
    assert "s3cret" not in f"{settings!r} {engine_config(settings)!r}"


@pytest.mark.parametrize("written", ["3", "[3]", '"3"', "[3, 3]"])
def test_one_number_of_replicas_is_both(written: str) -> None:
    Path("commedia.toml").write_text(f"[engine]\nnum_replicas = {written}\n")
    assert read_settings(environment={}).engine.num_replicas == (3, 3)


def test_lists_have_commas_in_the_environment() -> None:
    environment = {"COMMEDIA_ENGINE__NUM_REPLICAS": "2, 3", "COMMEDIA_ENGINE__ADAPTERS": "pirate,"}
    engine = read_settings(environment=environment).engine
    assert (engine.num_replicas, engine.adapters) == ((2, 3), ("pirate",))


def test_every_option_is_described() -> None:
    for section in [Settings, *(type(f.default) for f in Settings.model_fields.values())]:
        if isinstance(section, type) and issubclass(section, BaseModel):
            for name, field in section.model_fields.items():
                assert field.description or isinstance(field.default, BaseModel), name


def test_the_documented_file_is_up_to_date_and_valid() -> None:
    documented = Path(__file__).parents[2] / "docs" / "commedia.toml"
    assert documented.read_text(encoding="utf-8") == reference()


def test_the_reference_reads_back_as_the_defaults() -> None:
    lines = reference().splitlines()
    options = [line.removeprefix("# ") if " = " in line else line for line in lines]
    Path("commedia.toml").write_text("\n".join(options))
    assert read_settings(environment={}) == Settings()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_files_may_begin_with_the_mark_of_their_encoding(mark: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISCORD_TOKEN", raising=False)
    Path(".env").write_bytes(mark + b"DISCORD_TOKEN=abc\n")
    Path("commedia.toml").write_bytes(mark + b"[web]\nport = 1\n")
    settings = read_settings()
    assert settings.secrets() == ("abc",)
    assert settings.web.port == 1


def test_a_dotenv_in_another_encoding_is_said() -> None:
    Path(".env").write_bytes("DISCORD_TOKEN=abc\n".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"\.env: not UTF-8"):
        read_settings()


def test_space_around_a_token_is_left_out() -> None:
    assert read_settings(environment={"DISCORD_TOKEN": " abc\r\n", "TELEGRAM_TOKEN": "  "}).secrets() == ("abc",)


def test_personas_of_ones_own_stand_beside_the_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped, own = read_settings(environment={}).persona_folders()
    assert (shipped / "grub.yaml").is_file()
    assert own == Path("personas"), "so that one that is added does not drive the others away"
    named = read_settings(environment={"COMMEDIA_PERSONAS": str(tmp_path)})
    assert named.persona_folders() == (tmp_path,)
