"""Files that are nearly right: small changes of good ones, and of what got furthest."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

Case = dict[str, bytes]
"""Content of each file of a folder."""

EDGES = (0, 1, 2, 3, 4, 7, 16, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31)
EDGES += (2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (
    *(b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9" * 30),
    *(b"[" * 3000, b"{a: " * 300, b"&a [*a]", b"<<: *a", b"!!python/name:os.system x"),
    *(
        b"../",
        b"/etc/passwd",
        b"$(id)",
        b"`id`",
        b"a b",
        b"'",
        b'"',
        b"\\",
        b"|",
        b"\0",
    ),
    *(
        b"\n",
        b"\r",
        b"\t",
        b"\xff\xfe",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xf0\x9f\x98\x80",
    ),
    *(b"(a+)+$", b"2001-99-99", b"1:99:99", b"0x", b"\xed\xa0\x80", b"---\n", b"..."),
)


def first(draw: random.Random, seeds: list[Case]) -> Iterator[Case]:
    """The seeds, and then each word where a value stood in one of them."""
    yield from seeds
    for word in WORDS:
        case = dict(draw.choice(seeds))
        name = draw.choice([*case])
        case[name] = bytes(_replaced(draw, bytearray(case[name]), VALUE, word))
        yield case


def mutated(draw: random.Random, corpus: list[Case]) -> Case:
    """A case of a corpus with one to eight changes in one or two of its files."""
    case = dict(draw.choice(corpus))
    for name in draw.choices([*case], k=draw.choice((1, 1, 1, 2))):
        content = bytearray(case.get(name, b""))
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 8))):
            content = draw.choice(CHANGES)(draw, content)
        case[name] = bytes(content[:MOST])
    if len(case) > 1 and draw.random() < 0.01:
        del case[draw.choice([*case])]
    if draw.random() < 0.05:
        other = draw.choice(corpus)
        case[draw.choice([*other])] = other[draw.choice([*other])]
    return case


MOST = 2**20
DIGITS, VALUE = re.compile(rb"([0-9]+)"), re.compile(rb"[:,\[ ]([^,\]}\n]*)")


def _place(draw: random.Random, content: bytearray) -> int:
    """Headers matter more than what follows."""
    if draw.random() < 0.6:
        return draw.randrange(min(len(content), 200) + 1)
    return draw.randrange(len(content) + 1)


def _flip(draw, content):
    if content:
        at = min(_place(draw, content), len(content) - 1)
        content[at] ^= 1 << draw.randrange(8)
    return content


def _byte(draw, content):
    if content:
        content[min(_place(draw, content), len(content) - 1)] = draw.randrange(256)
    return content


def _number(draw, content):
    at, size = _place(draw, content), draw.choice((1, 2, 4, 8))
    value = draw.choice(EDGES) % 2 ** (8 * size)
    content[at : at + size] = value.to_bytes(size, draw.choice(("little", "big")))
    return content


def _digits(draw, content):
    """Another number, in text, where one stands."""
    return _replaced(draw, content, DIGITS, str(draw.choice(EDGES)).encode())


def _word(draw, content):
    at = _place(draw, content)
    content[at : at + draw.choice((0, 0, 1, 5))] = draw.choice(WORDS)
    return content


def _value(draw, content):
    """Another value after a colon, as JSON and YAML have them."""
    return _replaced(draw, content, VALUE, draw.choice(WORDS))


def _replaced(draw, content, pattern, by):
    """Another text where a pattern's only group stands, from any place on."""
    begin = draw.randrange(len(content) + 1)
    found = pattern.search(content, begin) or pattern.search(content)
    if found:
        content[found.start(1) : found.end(1)] = by
    return content


def _cut(draw, content):
    return content[: _place(draw, content)]


def _drop(draw, content):
    at = _place(draw, content)
    del content[at : at + draw.choice((1, 2, 4, 8, 100))]
    return content


def _again(draw, content):
    at = _place(draw, content)
    piece = content[at : at + draw.choice((1, 4, 30, 300))]
    place = _place(draw, content)
    content[place:place] = piece * draw.choice((1, 1, 2, 50))
    return content


CHANGES = (_flip, _byte, _number, _digits, _word, _value, _cut, _drop, _again)
