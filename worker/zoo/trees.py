"""Parse trees in the Penn Treebank's bracketed form, read as sequences of tokens: "(S", "(NP", "dogs", "NP)", …

A sequence keeps phrase labels and words; it leaves out tags of words, function labels (NP-SBJ is NP) and traces
(words tagged -NONE-, and phrases of nothing else). So a language model of such sequences is a parser:
Vinyals et al. 2015, Choe and Charniak 2016.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from psserver.errors import DataError

_TOKEN = re.compile(r"[()]|[^\s()]+")
_ROOTS = {"", "TOP", "ROOT"}
"""Labels of the bracket around a whole tree, which say nothing."""


def linearised(text: str, place: str) -> Iterator[list[str]]:
    """Yield the tokens of each tree in `text`, the content of the file `place`.

    Raises `DataError`, with place and line, where the brackets are not those of trees.
    """
    tokens = _TOKEN.findall(text)
    tokens.append("")  # the end
    phrases: list[tuple[str, int, int]] = []  # label, where its words begin in the sentence, its place in the text
    sentence: list[str] = []
    k = 0
    while tokens[k]:
        if tokens[k] == ")":
            if not phrases:
                raise _malformed(text, place, k, "a closing bracket that none opened")
            if tokens[k - 1] != ")":
                raise _malformed(text, place, k, "a phrase with neither words nor phrases")
            _close(sentence, *phrases.pop()[:2])
            k += 1
        elif tokens[k] != "(":
            raise _malformed(text, place, k, f"the word {tokens[k]!r} without a tag")
        elif _is_word(tokens, k):
            if tokens[k + 1] != "-NONE-":
                sentence.append(tokens[k + 2])
            k += 4
        else:
            label = "" if tokens[k + 1] in ("(", ")", "") else tokens[k + 1]
            if phrases and not label:
                raise _malformed(text, place, k, "a phrase without a label inside a tree")
            phrases.append((_phrase(label), len(sentence), k))
            if phrases[-1][0] not in _ROOTS:
                sentence.append("(" + phrases[-1][0])
            k += 2 if label else 1
        if not phrases and sentence:
            yield sentence
            sentence = []
    if phrases:
        raise _malformed(text, place, phrases[0][2], "a tree that the file ends in")


def _is_word(tokens: list[str], k: int) -> bool:
    """Whether the bracket at `k` opens (TAG WORD)."""
    word = tokens[k + 1 : k + 4]
    return len(word) == 3 and word[2] == ")" and not {"(", ")"} & set(word[:2])


def _phrase(label: str) -> str:
    """The label without its functions and indices: NP-SBJ-1 and NP=2 are NP; -LRB- is itself."""
    return re.split(r"[-=]", label)[0] or label


def _close(sentence: list[str], label: str, start: int) -> None:
    if label in _ROOTS:
        return
    if len(sentence) == start + 1:
        sentence.pop()  # it held traces only
    else:
        sentence.append(label + ")")


def _malformed(text: str, place: str, k: int, what: str) -> DataError:
    starts = [match.start() for match in _TOKEN.finditer(text)]
    line = text.count("\n", 0, starts[k]) + 1
    return DataError(f"{place}, line {line}: {what}; expected trees such as (S (NP (NNS dogs)) (VP (VBP bark)))")
