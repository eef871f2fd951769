"""What a training run is told: one YAML file of options, checked before any work begins.

Owns names, limits, defaults and descriptions of all options, and how mistakes in them are told. Knows no torch, no
data and no tasks beyond their names.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import ConfigurationError

TaskName = Literal["fusion", "captioning", "matching", "masked", "persona", "lora"]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
FusionKind = Literal["coattention", "cross", "gated", "concat", "weighted", "sum", "late"]
PictureRole = Literal["things", "scenes"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
# What only runs of the fusion use.
_OF_FUSION = frozenset(
    {"adapter", "tasks", "mix", "fusion", "focus_weight", "contrast_weight", "patch_dropout", "gate_learning_rate"}
)
# What may be changed when a run goes on: it decides how fast or how closely watched, not what is drawn.
CHANGEABLE = frozenset(
    {
        "learning_rate", "gate_learning_rate", "device", "precision", "num_parts", "log_every", "checkpoint_every",
        "validate_every", "num_validation_batches", "patience",
    }
)  # fmt: skip


class Section(BaseModel):
    """A group of options. Unknown names are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskOptions(Section):
    """How much one task counts."""

    weight: Share = Field(1.0, description="What its loss is multiplied with; 0 leaves the task out.")
    batch_size: Count = Field(32, description="Samples a step.")
    every: Count = Field(1, description="It is part of every so many steps.")


class TasksOptions(Section):
    """The tasks that can be learnt together. A run of a single task takes that task's section alone."""

    captioning: TaskOptions = Field(
        TaskOptions(), description="Say what a picture shows: the language model's loss on the reply."
    )
    matching: TaskOptions = Field(
        TaskOptions(weight=0.5, batch_size=64),
        description="Which words belong to which picture: contrast, and hard negatives.",
    )
    masked: TaskOptions = Field(
        TaskOptions(weight=0.3), description="Hidden words of a text, guessed from the picture and the words around."
    )
    persona: TaskOptions = Field(
        TaskOptions(batch_size=16), description="The reply of this persona rather than of another one."
    )


class MixOptions(Section):
    """How often each kind of sample is drawn for captioning. Only their ratio counts."""

    concepts: Share = Field(0.49, description="No picture, only what the image encoder might report of one.")
    things: Share = Field(0.29, description="Pictures of one thing.")
    scenes: Share = Field(0.22, description="Photos with human captions.")

    def shares(self) -> dict[str, float]:
        """Kind → share, of those that are drawn at all."""
        return {name: share for name, share in self.model_dump().items() if share > 0}


class FusionOptions(Section):
    """What the fusion is built like."""

    kind: FusionKind = Field("coattention", description="How the streams meet.")
    width: Count = Field(256, description="Width of the fusion's own tokens.")
    num_layers: Count = Field(2, description="Layers of the fusion.")
    num_heads: Count = Field(4, description="Attention heads; the width must be a multiple of it.")
    num_prefix_tokens: Count = Field(8, description="Soft tokens that the language model gets.")
    num_lexical_tokens: int = Field(4, ge=0, description="Tokens of a class name that can be spelt; 0: no such path.")
    num_quoted_tokens: int = Field(
        16, ge=0, le=32, description="Tokens of a persona's facet that can be quoted; 0: no such path."
    )
    has_steering: bool = Field(True, description="Whether the fused context also leans on the reply's vocabulary.")
    policy: Literal["pictures", "always"] = Field(
        "pictures", description="Which turns get a prefix: those with pictures, or all."
    )


class TalkOptions(Section):
    """How often each kind of conversation is drawn for lora, of those that the data has. Only their ratio counts."""

    characters: Share = Field(0.3, description="Characters that come with Commedia, told as the bot tells a persona.")
    people: Share = Field(0.25, description="Dialogues of two people described by sentences.")
    styles: Share = Field(0.2, description="Lines answered in several styles.")
    roles: Share = Field(0.25, description="Single instructions, often to play a role, and their answers.")
    conversations: Share = Field(1.0, description="All other conversations, with what is told of the speaker.")


class LoraOptions(Section):
    """The adapter that is trained into the language model."""

    rank: Count = Field(16, description="Rank of each adapter matrix.")
    alpha: Positive = Field(32.0, description="The adapter counts alpha / rank.")
    targets: tuple[str, ...] = Field(("all-linear",), description="Names of the layers that get an adapter.")
    batch_size: Count = Field(16, description="Replies a step.")
    max_tokens: Annotated[int, Field(ge=16)] = Field(192, description="Conversations end before a reply beyond this.")
    shares: TalkOptions = Field(TalkOptions(), description="What is talked about.")


class ColumnsOptions(Section):
    """Which columns of a Hugging Face data set hold what. Left empty, the usual names are tried."""

    image: str | None = Field(None, description="The picture. Tried: image, img, picture.")
    captions: str | None = Field(None, description="A text or a list of them. Tried: captions, caption, text, label.")
    messages: str | None = Field(None, description="A dialogue's turns. Tried: messages, conversations, turns.")
    persona: str | None = Field(None, description="Sentences about the speaker. Tried: persona, personas, system.")


class DataOptions(Section):
    """What is read from the data sets, and what is left out."""

    roles: dict[str, PictureRole] = Field(
        {}, description="Set name: things or scenes, where the captions' shape would say the wrong one."
    )
    shares: dict[str, Share] = Field(
        {}, description="Set name: how often it is drawn beside the other sets of its role. Default: its rows."
    )
    columns: ColumnsOptions = Field(ColumnsOptions(), description="Columns of Hugging Face data sets.")
    held_out: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.05, description="Share of every set that is kept back to see what was learnt."
    )
    max_per_caption: Count = Field(40, description="At most so many pictures of things with the same caption.")
    max_caption_words: Count = Field(60, description="Longer captions are left out.")
    max_turn_words: Count = Field(250, description="A dialogue ends before a longer turn.")
    max_image_pixels: Count = Field(50_000_000, description="Larger pictures are left out.")
    max_hash_distance: Annotated[int, Field(ge=0, le=16)] = Field(
        2, description="Pictures whose perceptual hashes differ in at most so many of 64 bits are the same picture."
    )
    max_excluded_distance: Annotated[int, Field(ge=0, le=16)] = Field(
        6, description="The same, for pictures of the sets named by --exclude."
    )


class TrainingOptions(Section):
    """Everything a run is told, but its data and its folder."""

    task: TaskName = Field("fusion", description="What is trained: " + ", ".join(TASK_NAMES) + ".")
    decoder: str = Field(
        "smollm2-135m-instruct",
        description="The language model: a name of the catalogue, a folder, or a Hugging Face repository.",
    )
    adapter: str | None = Field(
        None,
        description="The adapter (LoRA) of the language model that the fusion is trained with: a folder, none, or "
        "empty for the one that ships.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    precision: Precision = Field(
        "auto",
        description="Number format of the frozen models; on a GPU also of the products while learning (autocast, and "
        "a gradient scaler where it is float16). What is learnt stays in float32. auto, float32, bfloat16, float16.",
    )
    seed: int = Field(0, ge=0, description="The same seed draws the same samples.")
    num_steps: Count = Field(400, description="Steps of the optimiser.")
    num_parts: Count = Field(1, description="Slices of a batch, one after the other: less memory, the same gradient.")
    learning_rate: Positive = Field(1e-3, description="At its peak, of all but the gates.")
    gate_learning_rate: Positive = Field(3e-2, description="Gates start shut and have to open fast.")
    weight_decay: Share = Field(0.01, description="Of matrices; vectors and gates are not decayed.")
    num_warmup_steps: int = Field(20, ge=0, description="Steps to the peak; from there on half a cosine to nothing.")
    max_gradient_norm: Positive = Field(1.0, description="Longer gradients are shortened to this.")
    focus_weight: Positive = Field(3.0, description="What words that name the picture count in a reply's loss.")
    contrast_weight: Share = Field(
        0.5, description="What telling personas apart counts beside the reply itself, in the task persona."
    )
    patch_dropout: Fraction = Field(0.3, description="Share of pictures of which only the concept words are shown.")
    log_every: Count = Field(1, description="Steps between lines of the log.")
    checkpoint_every: Count = Field(50, description="Steps between checkpoints.")
    validate_every: int = Field(100, ge=0, description="Steps between looks at the rows kept back; 0: never.")
    num_validation_batches: Count = Field(4, description="Batches of each task that such a look takes.")
    patience: int = Field(
        0, ge=0, description="End after so many looks without a better loss; 0: always go on to num_steps."
    )
    tasks: TasksOptions = Field(TasksOptions(), description="The tasks, and how much each counts.")
    mix: MixOptions = Field(MixOptions(), description="How often each kind of sample is drawn for captioning.")
    fusion: FusionOptions = Field(FusionOptions(), description="What the fusion is built like.")
    lora: LoraOptions = Field(LoraOptions(), description="The adapter, where task is lora.")
    data: DataOptions = Field(DataOptions(), description="What is read from the data sets, and what is left out.")

    def active_tasks(self) -> dict[str, TaskOptions]:
        """The tasks of this run with a weight: all of them for `fusion`, none of them for `lora`."""
        tasks = {name: getattr(self.tasks, name) for name in TasksOptions.model_fields}
        if self.task != "fusion":
            tasks = {name: task for name, task in tasks.items() if name == self.task}
        return {name: task for name, task in tasks.items() if task.weight > 0}


def default_options(task: TaskName) -> TrainingOptions:
    """What a run of `task` does when it is told nothing."""
    if task == "lora":
        return TrainingOptions(task="lora", learning_rate=4e-4, num_steps=110, num_warmup_steps=10)
    return TrainingOptions(task=task)


def read_options(task: TaskName | None, file: Path | None = None, *, changes: Sequence[str] = ()) -> TrainingOptions:
    """The defaults of `task`, changed by a YAML file, changed by `key=value` texts (`tasks.matching.weight=0.2`).

    Without a task the file says which. Raises `ConfigurationError` that names file and option.
    """
    told = _read_mapping(file) if file is not None else {}
    task = task or told.get("task", "fusion")
    if told.get("task", task) != task:
        raise ConfigurationError(f"{file}: task: these options are for {told['task']}, not for {task}")
    tree = _merge(default_options(task).model_dump(mode="json"), told)
    sources = {"": str(file) if file is not None else "options"}
    for change in changes:
        key, value = _parse_change(change)
        _put(tree, key, value, change=change)
        sources[key] = "--set"
    return _validate(tree, sources)


def write_options(options: TrainingOptions, path: Path) -> None:
    """Write them as YAML that `read_options` takes; at once, so that a kill leaves no half file."""
    new = path.with_name(path.name + ".new")
    new.write_text(
        yaml.safe_dump(options.model_dump(mode="json"), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    new.replace(path)


def changed_options(old: TrainingOptions, new: TrainingOptions) -> list[str]:
    """Names of options that differ, and that a run cannot change when it goes on."""
    before, after = dict(_leaves(old.model_dump())), dict(_leaves(new.model_dump()))
    return sorted(
        name
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name) and name.split(".")[0] not in CHANGEABLE
    )


def reference(task: TaskName) -> str:
    """The options of `task` as commented YAML with their defaults."""
    head = f"# Options of `commedia train {task}`. Everything may be left out; these are the defaults.\n"
    return head + "\n".join(_describe(default_options(task), task=task)) + "\n"


def _describe(section: Section, *, task: TaskName, depth: int = 0) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if _is_foreign(name, value, task=task):
            continue
        comment = field.description or ""
        if isinstance(value, Section):
            yield from ("", *_comment(comment, indent), f"{indent}{name}:")
            yield from _describe(value, task=task, depth=depth + 1)
        else:
            yield from _comment(comment, indent)
            yield f"{indent}{name}: {_plain(value)}".rstrip()


def _plain(value: object) -> str:
    """A value on one line of YAML; nothing for none."""
    if value is None:
        return ""
    text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, width=110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _is_foreign(name: str, value: object, *, task: TaskName) -> bool:
    """Whether a run of `task` has no use for this section."""
    if task == "lora":
        return name in _OF_FUSION
    is_other_task = isinstance(value, TaskOptions) and task not in ("fusion", name)
    return name == "lora" or is_other_task or (name == "mix" and task not in ("fusion", "captioning"))


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror}); name a file of options") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8 text; save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(file)
        raise ConfigurationError(f"{place}: not YAML ({getattr(error, 'problem', None) or error})") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigurationError(f"{file}: must be a list of `name: value` lines; see `commedia train options TASK`")
    return content


def _merge(base: dict[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """`told` over `base`, section by section; an empty section says nothing."""
    merged = dict(base)
    for name, value in told.items():
        known = merged.get(name)
        if isinstance(known, dict) and isinstance(value, Mapping):
            merged[name] = _merge(known, value)
        elif not (isinstance(known, dict) and value is None):
            merged[name] = value
    return merged


def _parse_change(change: str) -> tuple[str, object]:
    key, has_value, text = change.partition("=")
    if not has_value or not key.strip():
        raise ConfigurationError(f"--set {change}: write it as name=value, like --set learning_rate=0.0005")
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--set {change}: the value is not YAML; put it in quotes") from error


def _put(tree: dict[str, Any], key: str, value: object, *, change: str) -> None:
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigurationError(f"--set {change}: {section} is a value, not a section")
    tree[name] = value


def _validate(tree: dict[str, Any], sources: dict[str, str]) -> TrainingOptions:
    try:
        options = TrainingOptions.model_validate(tree)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_problems(error, sources))) from None
    if options.fusion.width % options.fusion.num_heads:
        raise ConfigurationError(
            f"{sources.get('fusion.width', sources[''])}: fusion.width: must be a multiple of fusion.num_heads "
            f"({options.fusion.num_heads})"
        )
    sizes = {f"tasks.{name}.batch_size": task.batch_size for name, task in options.active_tasks().items()}
    if options.task == "lora":
        sizes = {"lora.batch_size": options.lora.batch_size}
    if too_small := [name for name, size in sizes.items() if size < options.num_parts]:
        raise ConfigurationError(
            f"{sources.get('num_parts', sources[''])}: num_parts: there are more slices ({options.num_parts}) than "
            f"samples in {too_small[0]}"
        )
    if options.task != "lora" and not options.active_tasks():
        raise ConfigurationError(f"{sources['']}: tasks: at least one weight must be greater than 0")
    if "captioning" in options.active_tasks() and not options.mix.shares():
        raise ConfigurationError(f"{sources['']}: mix: at least one share must be greater than 0")
    return options


def _problems(error: ValidationError, sources: dict[str, str]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        source = sources.get(place, sources[""])
        if problem["type"] == "extra_forbidden":
            yield f"{source}: {place}: there is no such option; `commedia train options TASK` lists them"
        else:
            yield f"{source}: {place}: {_in_words(problem['msg'])}, not {problem['input']!r}"


def _in_words(message: str) -> str:
    """pydantic's "Input should be greater than 0" → "must be greater than 0"."""
    return message.replace("Input should be", "must be").replace("Input should", "must")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
