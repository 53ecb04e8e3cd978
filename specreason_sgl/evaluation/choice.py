r"""Multiple choice: the option that a box or a text clearly chooses, read without guessing.

``\boxed{C2v}``, ``\boxed{A and C}`` and "the answer is not B" choose none.
"""

from __future__ import annotations

import re
from itertools import takewhile

LETTERS = "ABCDEFGHIJ"

_DRESS = re.compile(
    r"\\(?:text)?color\s*\{[^{}]*\}"
    r"|\\(?:text\w*|math(?:rm|bf|it|sf|tt|cal|bb|frak|scr|normal)|bf|it|rm|sf|sl|tt|em|bfseries|itshape|bm|boldsymbol"
    r"|pmb|emph|underline|[mhf]box|boxed|operatorname|displaystyle|large|Large|left|right)(?![A-Za-z])"
    r"|\\[()\[\]]|[${}*`]"
)
_SPACE = re.compile(r"\\(?:[,;:! ]|q?quad(?![A-Za-z]))|~")

_LETTER = r"(?-i:[A-HJ]|I(?!\s+[a-z]))(?![\w'^])"
_BRACKETED = r"[(\[]\s*[A-J]\s*[)\]]"
_KIND = r"(?:option|choice|answer|letter)\b"
_LABEL = rf"(?:{_KIND}\s*)?(?:{_BRACKETED}|{_LETTER})"
_JOINED = r"(?:[,;/&]|\b(?:and|or)\b)"

_BOXED = re.compile(
    rf"(?:the\s+)?(?:(?:correct|final|right|best)\s+)*(?:{_KIND}(?:\s*:|\s+is\b:?)?\s*)?"
    r"(?P<label>[(\[]\s*[A-J]\s*[)\]]|[A-J](?![\w'^]))"
    r"(?:\s*[.:)\]]?\s*|(?P<apart>(?<=[)\]])\s*|\s*[)\]]\s*|[.:]\s+)(?P<text>.+)|(?:[.:]|\s+[-–—]\s+|\s+(?=\())(?P<words>.+))",
    re.IGNORECASE | re.DOTALL,
)
"""A label, alone or followed by its option's text, which is separated from it or consists of words."""
_WORDS = re.compile(r"[^\W\d_]{2}")
_WORDS_OR_NUMBER = re.compile(r"[^\W\d_]{2}|\d")
_GOES_ON = re.compile(rf"{_JOINED}|[-+*=<>^\\]|.*{_JOINED}\s*(?:{_BRACKETED}|[A-J][).:])", re.IGNORECASE | re.DOTALL)

_SAID = re.compile(
    rf"\b(?:answer|option|choice)\b(?:\s+(?!not\b|is\b)[a-z]+){{0,5}}?"
    rf"(?:\s*[:=]\s*(?P<set>(?:{_KIND}\s*)?[A-J](?![\w'^])|{_LABEL})|\s+(?:is|would\s+be|must\s+be|should\s+be)\b:?\s*"
    rf"(?:(?:[a-z]+ly|therefore|thus|then|hence)\s+)?(?P<is>{_LABEL}))"
    rf"(?P<more>\s*{_JOINED}\s*{_LABEL})?(?:(?<=[)\]])|\s*(?:$|[.,;:!)\]](?!\w)|[-–—(]|\b(?:because|since|as|for|due|rather)\b))"
    rf"|\b(?:choose|select|pick|go\s+with)\s+(?P<chosen>{_LABEL})(?=\s*(?:$|[.,;:!]))"
    rf"|(?P<before>{_LABEL}\s*{_JOINED}\s*)?(?P<right>{_LABEL})\s+(?:is|must\s+be)\s+(?:the\s+)?(?:correct|right|best)\b",
    re.IGNORECASE,
)
_REFUSED = re.compile(r"\s*(?:is|was)\s+(?:wrong|incorrect|false|not)\b", re.IGNORECASE)
_TAKEN_BACK = re.compile(r"\s*(?:actually|wait|hmm|correction|no,)(?!\w)", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|never|nor|cannot|if|unless|whether|suppose|assum\w+)\b|n['\u2019]t\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s|\n")
_LABELLED = re.compile(r"(?:^|\s)[(\[]?([A-J])[).:\]]")
_OFFERED = re.compile(r"^[ \t]*[(\[]?([A-J])[).:\]]", re.MULTILINE)


def letter(answer: str | None, text: str = "", options: str = LETTERS) -> str | None:
    """The letter that is chosen: by the box, else by the text after the box, or by the whole text if there is no box.

    Args:
        answer: the content of the box.
        text: the whole answer phase.
        options: the letters of all options.
    """
    if answer is None:
        chosen = _said(text)
    else:
        box = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
        chosen = option(answer) or (_said(text[box:]) if box >= 0 else None)
    return chosen if chosen and chosen in options else None


def option(text: str, options: str = LETTERS) -> str | None:
    """The letter that a box or a dataset's right answer stands for; None if it is no option."""
    found = _BOXED.fullmatch(_undressed(text).strip())
    if not found:
        return None
    if (rest := found["text"] or found["words"]) and (
        _GOES_ON.match(rest) or not (_WORDS_OR_NUMBER if found["text"] else _WORDS).search(rest)
    ):
        return None
    chosen = _bare(found["label"])
    return chosen if chosen in options else None


def offered(question: str) -> str:
    """The letters of a question's options, each at the beginning of a line; all possible letters if there are none."""
    shown = set(_OFFERED.findall(question))
    return "".join(takewhile(shown.__contains__, LETTERS)) if {"A", "B"} <= shown else LETTERS


def is_choice(question: str, answer: str | None) -> bool:
    """Whether the right answer is the letter of one of the options that a question offers."""
    shown = set(_LABELLED.findall(question))
    return answer is not None and {"A", "B"} <= shown and option(answer, "".join(shown)) is not None


def _said(text: str) -> str | None:
    """The choice in the last sentence that makes one; if it makes several, the first."""
    last = None
    for sentence in _SENTENCE.split(re.sub(r":\s+", ": ", _undressed(text))):
        said = _SAID.search(sentence)
        if not said and _TAKEN_BACK.match(sentence):
            last = None
        if (
            not said
            or _REFUSED.match(sentence, said.end())
            or sentence.rstrip().endswith("?")
            or _DENIED.search(sentence[: said.start()])
        ):
            continue
        label = said["set"] or said["is"] or said["chosen"] or said["right"]
        last = None if said["more"] or said["before"] else _bare(label)
    return last


def _undressed(text: str) -> str:
    return re.sub(r"[^\S\n]+", " ", _SPACE.sub(" ", _DRESS.sub("", text)))


def _bare(label: str) -> str:
    return label.rstrip(")] \t\n")[-1].upper()
