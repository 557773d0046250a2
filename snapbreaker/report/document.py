"""The shape of a report: sections of blocks, which Markdown and HTML render alike."""

from __future__ import annotations

from dataclasses import field

from snapbreaker.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Mono:
    """A path, a command, a rule's name: shown as code."""

    text: str


Words = tuple[str | Mono, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """``label`` is shown bold before the words."""

    words: Words
    label: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Lines shown exactly as they are; ``marked`` is the index of the one that stands out, -1 for none."""

    text: str
    language: str = "text"
    marked: int = -1


@dataclass(frozen=True, slots=True)
class Items:
    rows: list[Words]


Block = Paragraph | Code | Items


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: list[Block] = field(default_factory=list)

    def say(self, *words: str | Mono, label: str = "") -> None:
        self.blocks.append(Paragraph(words, label))

    def show(self, text: str, language: str = "text", marked: int = -1) -> None:
        self.blocks.append(Code(text, language, marked))

    def items(self, rows: list[Words]) -> None:
        if rows:
            self.blocks.append(Items(rows))


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    sections: list[Section]
