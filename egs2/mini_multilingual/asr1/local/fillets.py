"""Fish Fillets: acted dialogues of a puzzle game.

``script/<level>/*dialogs_<lang>.lua`` holds pairs of calls, ::

    dialogId("let-m-divna", "font_small", "What kind of strange ship is that?")
    dialogStr("Co je to za divnou loď?")

the font tells who speaks; the audio is ``sound/<level>/<lang>/let-m-divna.ogg``, or
``sound/share/<kind>/<lang>/`` for what is said in many levels.
"""

import re
from pathlib import Path

from clips import Clip, digest, text_key
from data_dir import one_line, slug

PACKAGE = "fillets-ng-data"  # scripts; the audio is in PACKAGE-<lang>
LANGS = ("cs", "nl")
ROOT = Path("usr/share/games/fillets-ng")

_STRING = r'\s*"((?:[^"\\]|\\.)*)"\s*'
_DIALOG = re.compile(
    rf"dialogId\({_STRING},{_STRING},{_STRING}\)\s*dialogStr\({_STRING}\)", re.DOTALL
)
_ESCAPE = re.compile(rb"\\(\d{1,3}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_CONTROL = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b"}


def read(script_root: Path, sound_roots: dict[str, Path]) -> list[Clip]:
    """Clips of the languages in ``sound_roots``; a level is a group.

    A line whose English original was already said in an earlier level is left out in
    every language: its translation could be in another split.

    Args:
        script_root: Folder that holds ``script/``.
        sound_roots: For each language the folder that holds ``sound/``.
    """
    owner: dict[str, str] = {}
    for lang in LANGS:
        for level, _, _, english, _ in dialogs(script_root, lang):
            key = text_key(english)
            owner[key] = min(level, owner.get(key, level))
    clips = []
    for lang, root in sorted(sound_roots.items()):
        for level, name, font, english, text in dialogs(script_root, lang):
            audio = find_audio(root, level, lang, name)
            if audio and level == owner[text_key(english)]:
                clips.append(make_clip(lang, level, name, font, text, audio))
    return clips


def make_clip(
    lang: str, level: str, name: str, font: str, text: str, audio: Path
) -> Clip:
    """The clip of one line of dialogue."""
    speaker = f"{lang}_fil_{re.sub('[^a-z]', '', font.removeprefix('font_').lower())}"
    return Clip(
        utt=f"{speaker}_{slug(level)}_{slug(name)}",
        speaker=speaker,
        lang=lang,
        text=one_line(text),
        audio=audio,
        group=f"fil:{level}",
        digest=digest(audio),
    )


def dialogs(root: Path, lang: str):
    """Yield (level, id, font, English, text) of every line of dialogue."""
    for path in sorted(root.glob(f"script/*/*dialogs_{lang}.lua")):
        for fields in parse(path.read_text(encoding="utf-8", errors="replace")):
            yield path.parent.name, *fields


def parse(lua: str) -> list[tuple[str, str, str, str]]:
    """(id, font, English, text) of each dialogue in a script, escapes resolved."""
    code = re.sub(r"(?m)^\s*--.*$", "", lua)
    found = _DIALOG.findall(code)
    return [(unquote(a), unquote(b), unquote(c), unquote(d)) for a, b, c, d in found]


def unquote(literal: str) -> str:
    """Resolve Lua's escapes: ``\\"``, ``\\n``, ``\\195`` (a byte), ``\\xc3``."""

    def resolve(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code.isdigit():
            return bytes([int(code) & 0xFF])
        if len(code) == 3:
            return bytes.fromhex(code[1:].decode())
        return _CONTROL.get(code, code)

    return _ESCAPE.sub(resolve, literal.encode()).decode("utf-8", errors="replace")


def find_audio(root: Path, level: str, lang: str, name: str) -> Path | None:
    """The recording of a line, or None when it was not recorded."""
    places = [root / "sound" / level / lang, *root.glob(f"sound/{level}/*/{lang}")]
    found = [place / f"{name}.ogg" for place in places]
    return next((path for path in found if path.is_file()), None)
