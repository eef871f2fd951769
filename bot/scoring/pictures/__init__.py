"""The pictures that personas are shown, and what counts as naming each: see SOURCES.md for where they are from."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from engine.types import Image

_FOLDER = Path(__file__).parent
_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "cat": {
        "en": ("cat", "kitten", "kitty", "feline", "tabby", "animal", "pet"),
        "zh": ("猫", "喵星人", "动物", "宠物"),
        "es": ("gato", "gata", "gatito", "felino", "animal", "mascota"),
        "de": ("Katze", "Kater", "Kätzchen", "Mieze", "Tier", "Haustier"),
    },
    "coffee": {
        "en": ("coffee", "cup", "mug", "espresso", "cappuccino", "latte", "drink", "saucer"),
        "zh": ("咖啡", "杯", "饮料"),
        "es": ("café", "taza", "espresso", "capuchino", "bebida"),
        "de": ("Kaffee", "Tasse", "Espresso", "Cappuccino", "Becher", "Getränk"),
    },
    "rocket": {
        "en": ("rocket", "spaceship", "spacecraft", "missile", "launch pad", "space shuttle", "launch tower"),
        "zh": ("火箭", "飞船", "发射"),
        "es": ("cohete", "nave espacial", "lanzamiento", "misil"),
        "de": ("Rakete", "Raumschiff", "Startrampe"),
    },
    "bananas": {
        "en": ("banana", "fruit"),
        "zh": ("香蕉", "水果"),
        "es": ("plátano", "banana", "banano", "fruta"),
        "de": ("Banane", "Bananen", "Obst", "Frucht", "Früchte"),
    },
    "bicycle": {
        "en": ("bicycle", "bike", "tricycle", "cycle", "vehicle"),
        "zh": ("自行车", "单车", "脚踏车"),
        "es": ("bicicleta", "bici", "triciclo"),
        "de": ("Fahrrad", "Rad", "Dreirad"),
    },
    "car": {
        "en": ("car", "automobile", "vehicle", "van", "motorcar", "convertible", "sedan"),
        "zh": ("汽车", "轿车", "小车", "车子"),
        "es": ("coche", "carro", "auto", "automóvil", "vehículo"),
        "de": ("Auto", "Wagen", "Fahrzeug", "Pkw"),
    },
    "guitar": {
        "en": ("guitar", "instrument", "musical instrument"),
        "zh": ("吉他", "乐器"),
        "es": ("guitarra", "instrumento"),
        "de": ("Gitarre", "Instrument", "Musikinstrument"),
    },
    "apple": {
        "en": ("apple", "fruit"),
        "zh": ("苹果", "水果"),
        "es": ("manzana", "fruta"),
        "de": ("Apfel", "Äpfel", "Obst", "Frucht"),
    },
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of one common thing."""

    name: str
    image: Image = field(repr=False)

    def names(self, language: str) -> tuple[str, ...]:
        """What it may be called in a language, a code without region; English where that is not known."""
        return names_of(self.name, language)


def names_of(name: str, language: str) -> tuple[str, ...]:
    """What the picture called `name` may be called."""
    names = _NAMES[name]
    return names.get(language, ()) + names["en"] if language != "en" else names["en"]


def load_pictures() -> list[Picture]:
    """All of them."""
    return [_load(name) for name in _NAMES]


def _load(name: str) -> Picture:
    data = (_FOLDER / f"{name}.jpg").read_bytes()
    return Picture(name, Image(hashlib.sha256(data).hexdigest(), data))
