"""Settings: `commedia.toml`, with the environment and `.env` over it. Frozen once read.

Owns every option, its default and its description. `reference()` writes them as a documented `commedia.toml`.
"""

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bot.errors import SettingsError

PREFIX = "COMMEDIA_"
CONFIG_VARIABLE = "COMMEDIA_CONFIG"
TOKEN_VARIABLES = {"DISCORD_TOKEN": ("discord", "token"), "TELEGRAM_TOKEN": ("telegram", "token")}


def _listed(value: object) -> object:
    """In the environment, a list is words with commas between them."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _from_to(value: object) -> object:
    """One number stands for both."""
    numbers = _listed(value)
    if isinstance(numbers, int | float):
        return [numbers, numbers]
    return numbers * 2 if isinstance(numbers, list) and len(numbers) == 1 else numbers


def _in_order(bounds: tuple[int, int]) -> tuple[int, int]:
    if bounds[0] > bounds[1]:
        raise ValueError("name the fewest first, then the most, such as [1, 4]")
    return bounds


_Count = Annotated[int, Field(ge=1, le=1024)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class ChatSettings(_Section):
    default_persona: str | None = None
    """Id of the persona that answers where nobody chose one. Left out: the first by name."""
    max_history_turns: int = Field(default=24, ge=2, le=1000)
    """How many earlier turns the model may see; the engine drops older ones that do not fit."""
    max_waiting_messages: int = Field(default=8, ge=1, le=1000)
    """How many messages of one room may wait for their reply before more are refused."""
    merge_waiting: bool = True
    """Answer messages that one person sends while waiting in one reply."""
    max_exchange: int = Field(default=2, ge=0, le=10)
    """How many replies personas in one room give to each other in a row; 0 lets them speak to people alone."""
    controls: Literal["always", "direct", "never"] = "always"
    """Where replies have buttons below them: everywhere, in direct chats alone, or nowhere. The commands stay."""
    ratings: bool = False
    """Offer 👍 and 👎, kept for training. Each person is asked first, and may take it back with `/ratings off`."""
    resume_s: float = Field(default=900.0, ge=0, le=86_400)
    """After a restart or an outage, messages that are at most so many seconds old are still answered."""
    timezone: str | None = None
    """Zone of personas' quiet hours, such as `Europe/Berlin`. Left out: the machine's."""
    greet: bool = True
    """Whoever writes to a persona alone for the first time is greeted by it."""
    guard: bool = True
    """Hold back and replace what leaves the persona's part, such as "as an AI language model" (docs/guard.md)."""
    guard_tries: int = Field(default=2, ge=0, le=8)
    """How often a reply is tried again for that, before its offending part is left out."""
    system_prompt: str = ""
    """What every persona is told that has no system prompt itself. Empty: to stay in character, language and length."""
    post_history_instructions: str = ""
    """What every persona is told after the conversation that has no such instructions itself."""
    admins: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Who may add personas in chat, such as `discord:80351110224678912`; `web` is everybody who reaches the page."""


class PictureSettings(_Section):
    max_bytes: int = Field(default=20_000_000, ge=1_000)
    """Largest picture file that is read, in bytes."""
    max_pixels: int = Field(default=50_000_000, ge=1_000)
    """Largest picture that is decoded, width times height."""
    max_per_message: int = Field(default=4, ge=1, le=10)
    """How many pictures of one message are looked at."""
    links: bool = False
    """Fetch pictures behind links in messages. The hosts learn this machine's address, and that somebody reads."""
    link_hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """The only hosts whose links are fetched, with their subdomains, such as `imgur.com`. Empty: any public one."""


class EngineSettings(_Section):
    backend: Literal["local", "echo", "openai", "vllm", "ray"] = "local"
    """`local`: a model in this process; `openai`, `vllm`: a server (`url`); `ray`: Ray Serve; `echo`: only repeats."""
    decoder: str = "smollm2-135m-instruct"
    """The language model: a name of `commedia models list`, a folder, or a Hugging Face repository."""
    decoder_adapter: str | None = None
    """Folder with a low-rank adapter (LoRA) for the decoder, or `none`. Left out: the one shipped for it, if any."""
    fusion: Literal["coattention", "none"] = "coattention"
    """How picture, text and persona are fused; `none` leaves only the prompt."""
    fusion_weights: Path | None = None
    """Folder with trained fusion weights. Left out: the ones shipped for the decoder, if there are any."""
    lexicon: bool = True
    """Let personas' lexicons and lengths act on every word that is chosen (docs/lexicon.md)."""
    device: str = "auto"
    """`auto` takes CUDA, then MPS, then the CPU; or name one: `cpu`, `cuda`, `cuda:1`, `mps`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the language model; `auto` fits the device."""
    num_threads: int | None = Field(default=None, ge=1, le=256)
    """CPU threads for the model. Left out: the physical cores, at most 8."""
    max_context_tokens: int = Field(default=4096, ge=256)
    """Longest prompt and reply together, in tokens; the model's own limit applies too."""
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    """What computes the language model on a CPU; `auto` takes the fastest that is installed and can."""
    weights: Literal["auto", "full", "int8"] = "auto"
    """Format of the language model's weights on a CPU: `int8` takes less memory, `full` is exact; `auto` decides."""
    max_running: int | None = Field(default=None, ge=1, le=1024)
    """How many replies are written side by side. Left out: as many as suit the engine."""
    kv_cache_mb: int | None = Field(default=None, ge=16, le=1 << 24)
    """Memory for running and remembered conversations, in MB. Left out: a share of what is free."""
    max_waiting: int = Field(default=64, ge=1, le=1_000_000)
    """How many replies may wait for the model before more are refused."""
    max_waiting_per_user: int = Field(default=4, ge=1, le=1_000_000)
    """How many replies one person may be waiting for, in all rooms together, before more are refused."""
    max_wait_s: float = Field(default=300.0, ge=1)
    """How long a reply may wait to begin, in seconds, before it is refused."""
    max_reply_s: float = Field(default=300.0, ge=1)
    """How long a reply may take once it has begun, in seconds; then it is cut short."""
    max_step_s: float = Field(default=120.0, ge=1)
    """A device or server that says nothing for so many seconds is taken to hang. Raise it where it is only slow."""
    drain_s: float = Field(default=20.0, ge=0, le=3600)
    """How long replies may go on when Commedia is stopped, in seconds, before they are broken off."""
    url: str | None = Field(default=None, repr=False)
    """The server's address for the backends `openai` and `vllm`, such as `http://127.0.0.1:8000/v1`."""
    api_key: SecretStr | None = None
    """The server's key, if it wants one. Better kept in the environment or `.env`, as `COMMEDIA_ENGINE__API_KEY`."""
    model: str | None = None
    """The server's name for the model. Left out: the one it serves."""
    adapters: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Names of low-rank adapters (LoRA) that the server knows."""
    num_replicas: Annotated[tuple[_Count, _Count], BeforeValidator(_from_to), AfterValidator(_in_order)] = (1, 1)
    """For the backend `ray`: how many engines run, the fewest and the most; one number is both."""


class SamplingDefaults(_Section):
    temperature: float = Field(default=0.7, ge=0, le=2)
    """0 always takes the likeliest token. A persona may override every option of this section."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Keep the likeliest tokens that together have this probability."""
    top_k: int = Field(default=50, ge=0)
    """Keep this many of the likeliest tokens; 0 keeps all."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Drop tokens less likely than this share of the likeliest one."""
    repetition_penalty: float = Field(default=1.15, ge=0.5, le=2)
    """Above 1 makes words that were just used less likely."""
    max_new_tokens: int = Field(default=256, ge=1, le=8192)
    """Longest reply, in tokens."""


class DiscordSettings(_Section):
    token: SecretStr | None = None
    """The bot's token. Better kept in the environment or `.env`, as `DISCORD_TOKEN`."""
    api_url: str | None = None
    """Another HTTP API than Discord's own, for tests and proxies, such as `http://127.0.0.1:8080/api/v10`."""
    gateway_url: str | None = None
    """Another gateway than Discord's own, such as `ws://127.0.0.1:8080/gateway`."""
    message_content: bool = True
    """Ask for the Message Content intent. Without it the bot hears direct messages, mentions and its menu entries."""
    faces: Literal["several", "always", "never"] = "several"
    """Speak under personas' own names and pictures: where several are in a room, everywhere, or nowhere."""
    avatars_url: str | None = None
    """Public address of the personas' pictures; with it, faces change with what is said."""
    catch_up_s: float = Field(default=900.0, ge=0, le=86_400)
    """After a lost connection or a restart, messages of so many seconds before are looked up; 0 does not."""


class TelegramSettings(_Section):
    token: SecretStr | None = None
    """The bot's token. Better kept in the environment or `.env`, as `TELEGRAM_TOKEN`."""
    api_url: str | None = None
    """Another Bot API server than Telegram's own, such as `http://127.0.0.1:8081`."""
    file_url: str | None = None
    """Where that server's files are. Left out: the same as `api_url`."""
    webhook_url: str | None = None
    """Public `https` address at which Telegram delivers messages. Left out: the bot asks for them (polling)."""
    webhook_host: str = "127.0.0.1"
    """Address to listen on for the webhook; a reverse proxy in front of it speaks `https`."""
    webhook_port: int = Field(default=8443, ge=0, le=65535)
    """Port to listen on for the webhook; 0 takes a free one."""
    webhook_secret: SecretStr | None = None
    """What Telegram must say to be let in. Left out: a new one at every start."""


class WebSettings(_Section):
    enabled: bool = True
    """Serve the local page."""
    host: str = "127.0.0.1"
    """Address to listen on. Anyone who reaches it can talk to the bot: there are no accounts."""
    port: int = Field(default=8765, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged, to the terminal and to `logs/commedia.log` in the home folder."""


class Settings(_Section):
    """Everything an admin can set."""

    home: Path = Path("var")
    """Folder for the database, attachments, weights and logs. Relative paths start where `commedia` is started."""
    personas: tuple[Path, ...] = (Path("personas"),)
    """Folders with personas; of two personas with one id, the one in the later folder counts."""
    chat: ChatSettings = ChatSettings()
    pictures: PictureSettings = PictureSettings()
    engine: EngineSettings = EngineSettings()
    sampling: SamplingDefaults = SamplingDefaults()
    discord: DiscordSettings = DiscordSettings()
    telegram: TelegramSettings = TelegramSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()

    @property
    def cache_dir(self) -> Path:
        """Where weights are kept."""
        return self.home / "cache"

    @property
    def database_path(self) -> Path:
        """Where conversations are kept."""
        return self.home / "commedia.db"

    def persona_folders(self) -> tuple[Path, ...]:
        """Where personas are read: the folders that are named, else the shipped one and one for new ones beside it."""
        shipped = Path(__file__).parent.parent / "personas"
        named = tuple(folder for folder in self.personas if folder.is_dir())
        if "personas" in self.model_fields_set:
            return named or (shipped,)
        own = tuple(folder for folder in self.personas if folder.resolve() != shipped.resolve())
        return (shipped, *own)

    def own_persona_folder(self) -> Path:
        """Where new personas go."""
        return self.personas[-1]

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for redaction."""
        tokens = (self.discord.token, self.telegram.token, self.telegram.webhook_secret, self.engine.api_key)
        return tuple(token.get_secret_value() for token in tokens if token is not None)


def read_settings(path: Path | None = None, *, environment: Mapping[str, str] | None = None) -> Settings:
    """Read `path` (default: `$COMMEDIA_CONFIG`, else `commedia.toml` if it is there), `.env` and the environment.

    Raises `SettingsError` naming each wrong option, where it was set and what would be right.
    """
    if environment is None:
        environment = {**_read_dotenv(), **os.environ}
    named = path or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    values = _read_toml(named) if named or Path("commedia.toml").is_file() else {}
    sources: dict[tuple[str, ...], str] = {}
    for variable, keys in _option_variables(environment).items():
        _set(values, keys, environment[variable].strip())  # a token that was copied often brings a line break
        sources[keys] = variable
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        where = str(named or "commedia.toml")
        raise SettingsError("\n".join(_explain(problem, sources, where) for problem in error.errors())) from None


def reference() -> str:
    """A `commedia.toml` that documents every option by its default."""
    lines = ["# Every option of Commedia with its default. Copy what you change into commedia.toml.", ""]
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            variable = f"{PREFIX}{name.upper()}__…"
            lines += [f"[{name}]  # in the environment: {variable}"]
            for key, option in type(field.default).model_fields.items():
                lines += _document(key, option)
            lines.append("")
        else:
            lines += [*_document(name, field), ""]
    return "\n".join(lines).rstrip() + "\n"


def _read_dotenv() -> dict[str, str]:
    try:
        # Some editors begin a file with a mark of its encoding, which would become part of the first name.
        values = dotenv_values(".env", encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(".env: not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f".env: cannot be read: {error.strerror}. Give this user the right to read it.") from None
    return {name: value for name, value in values.items() if value is not None}


def _read_toml(path: Path | None) -> dict[str, Any]:
    path = path or Path("commedia.toml")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file. Name an existing one, or leave it out.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None


def _option_variables(environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Which variables set which option; a blank variable sets nothing."""
    found: dict[str, tuple[str, ...]] = {
        variable: keys for variable, keys in TOKEN_VARIABLES.items() if environment.get(variable, "").strip()
    }
    for variable, value in environment.items():
        if variable.startswith(PREFIX) and variable not in (CONFIG_VARIABLE, "COMMEDIA_TEST_CACHE") and value.strip():
            found[variable] = tuple(variable.removeprefix(PREFIX).lower().split("__"))
    return found


def _set(values: dict[str, Any], keys: tuple[str, ...], text: str) -> None:
    *path, last = keys
    for key in path:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        values = inner
    values[last] = text.split(os.pathsep) if keys == ("personas",) else text


def _explain(problem: ErrorDetails, sources: Mapping[tuple[str, ...], str], where: str) -> str:
    keys = tuple(str(part) for part in problem["loc"])
    origin = where
    for path, variable in sources.items():
        shared = min(len(path), len(keys))
        if path[:shared] == keys[:shared]:
            origin, keys = f"{variable} (environment)", max(path, keys, key=len)
    option = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(option, _option_names(), n=1)
        hint = f" Did you mean {close[0]}?" if close else " `commedia settings` lists every option."
        return f"{origin}: there is no option {option}.{hint}"
    return f"{origin}: {option}: {problem['msg']}."


def _option_names() -> list[str]:
    names = []
    for name, field in Settings.model_fields.items():
        inner = type(field.default).model_fields if isinstance(field.default, BaseModel) else None
        names += [name, *(f"{name}.{key}" for key in inner or ())]
    return names


def _document(key: str, field: FieldInfo) -> list[str]:
    value = "is not set" if field.default is None else f"= {_toml(field.default)}"
    return [f"# {field.description}", f"# {key} {value}"]


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case str() | Path():
            return f'"{value}"'
        case _:
            return str(value)
