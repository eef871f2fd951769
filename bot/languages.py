"""What people call languages: by code, in English, or as their speakers do.

Owns the table. Knows no model: what a model can speak, the engine knows.
"""

import unicodedata

# code, English name, own names
_LANGUAGES = (
    ("ar", "Arabic", "العربية"), ("bg", "Bulgarian", "български"), ("bn", "Bengali", "বাংলা"),
    ("ca", "Catalan", "català"), ("cs", "Czech", "čeština"), ("da", "Danish", "dansk"), ("de", "German", "Deutsch"),
    ("el", "Greek", "ελληνικά"),
    ("en", "English", "English"), ("es", "Spanish", "español", "castellano"), ("et", "Estonian", "eesti"),
    ("fa", "Persian", "فارسی", "Farsi"), ("fi", "Finnish", "suomi"), ("fr", "French", "français"),
    ("he", "Hebrew", "עברית"), ("hi", "Hindi", "हिन्दी"), ("hr", "Croatian", "hrvatski"), ("hu", "Hungarian", "magyar"),
    ("id", "Indonesian", "bahasa indonesia"), ("it", "Italian", "italiano"), ("ja", "Japanese", "日本語"),
    ("ko", "Korean", "한국어"), ("lt", "Lithuanian", "lietuvių"), ("lv", "Latvian", "latviešu"),
    ("nb", "Norwegian", "norsk", "no", "bokmål"), ("nl", "Dutch", "Nederlands"), ("pl", "Polish", "polski"),
    ("pt", "Portuguese", "português"), ("ro", "Romanian", "română"), ("ru", "Russian", "русский"),
    ("sk", "Slovak", "slovenčina"), ("sl", "Slovenian", "slovenščina"), ("sr", "Serbian", "српски", "srpski"),
    ("sv", "Swedish", "svenska"), ("sw", "Swahili", "kiswahili"), ("th", "Thai", "ไทย"), ("tr", "Turkish", "Türkçe"),
    ("uk", "Ukrainian", "українська"), ("ur", "Urdu", "اردو"), ("vi", "Vietnamese", "tiếng việt"),
    ("zh", "Chinese", "中文", "汉语", "Mandarin"),
)  # fmt: skip


def _folded(name: str) -> str:
    """Without case and accents: people leave them out."""
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign))


_BY_NAME = {_folded(name): names[1] for names in _LANGUAGES for name in names}
LANGUAGE_NAMES = tuple(names[1] for names in _LANGUAGES)


def language_named(text: str) -> str | None:
    """The English name of the language that is called `text`: "de", "german", "Deutsch" → "German"."""
    folded = _folded(text.strip().rstrip(":,."))
    return _BY_NAME.get(folded) or _BY_NAME.get(folded.partition("-")[0])
