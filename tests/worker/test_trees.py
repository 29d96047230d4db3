"""Parse trees as sequences: read exactly, or refused with the line; and a treebank's two halves."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserver.errors import ConfigurationError, DataError
from worker.zoo.treebank import is_bracket, split, treebank_corpus
from worker.zoo.trees import linearised

PIERRE = """
( (S
    (NP-SBJ-1 (NNP Pierre) (NNP Vinken) )
    (VP (MD will)
      (VP=2 (VB join) (-LRB- -LRB-)
        (NP (DT the) (NN board) )
        (S (NP-SBJ (-NONE- *-1) ) (PRT|ADVP (RB on)))))
    (. .) ))
"""


def read(text: str) -> list[str]:
    return [" ".join(tree) for tree in linearised(text, "here.mrg")]


def test_labels_lose_their_functions_words_their_tags_and_traces_vanish() -> None:
    assert read(PIERRE) == [
        "(S (NP Pierre Vinken NP) (VP will (VP join -LRB- (NP the board NP) (S (PRT|ADVP on PRT|ADVP) S) VP) VP) . S)"
    ]


def test_trees_come_with_or_without_an_outer_bracket() -> None:
    assert read("(S (NN a))((S (NN b)))(TOP (S (NN c))) (NN d) ( (-NONE- *) )") == [
        "(S a S)",
        "(S b S)",
        "(S c S)",
        "d",
    ]
    assert read(" \n ") == []


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("(S (NN a))\n)", 2, "a closing bracket that none opened"),
        ("(S\n(NP (NN a))\n", 1, "a tree that the file ends in"),
        ("(S (NN a))\n(S (NN b)", 2, "a tree that the file ends in"),
        ("(S\n(NP\n))", 3, "a phrase with neither words nor phrases"),
        ("()", 1, "a phrase with neither words nor phrases"),
        ("dogs bark", 1, "the word 'dogs' without a tag"),
        ("(S\n(NP the old\ncat))", 2, "the word 'the' without a tag"),
        ("(NN old cat)", 1, "the word 'old' without a tag"),
        ("(S ((NN a)))", 1, "a phrase without a label inside a tree"),
        ("(S (NN", 1, "a tree that the file ends in"),
        ("(", 1, "a tree that the file ends in"),
    ],
)
def test_what_is_no_tree_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(text)
    assert str(caught.value).startswith(f"here.mrg, line {line}: {said}")


WORD = st.text("abcXYZ'.,-$%", min_size=1, max_size=4)
TREE: Any = st.deferred(
    lambda: (
        st.tuples(st.sampled_from(["NN", "-NONE-", "$"]), WORD)
        | st.tuples(st.sampled_from(["NP", "S-TPC", "VP=3"]), st.lists(TREE, min_size=1, max_size=3))
    )
)


def written(tree: Any) -> str:
    label, inside = tree
    return f"({label} {inside if isinstance(inside, str) else ' '.join(map(written, inside))})"


def expected(tree: Any) -> list[str]:
    label, inside = tree
    if isinstance(inside, str):
        return [] if label == "-NONE-" else [inside]
    words = [token for part in inside for token in expected(part)]
    name = label.split("-")[0].split("=")[0]
    return [f"({name}", *words, f"{name})"] if words else []


@settings(max_examples=60, deadline=None)
@given(st.lists(TREE, max_size=3))
def test_any_tree_is_read_as_the_definition_says(trees: list[Any]) -> None:
    text = "\n".join(f"({written(tree)})" for tree in trees)
    assert list(linearised(text, "")) == [tokens for tree in trees if (tokens := expected(tree))]


@settings(max_examples=150, deadline=None)
@given(st.text("()N a\n-", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        trees = list(linearised(text, "here"))
    except DataError as error:
        assert "here, line " in str(error)  # noqa: PT017
    else:
        opened = sum(token[0] == "(" for tree in trees for token in tree)
        assert opened == sum(token[-1] == ")" for tree in trees for token in tree)


def test_the_real_sample_is_read_whole(wsj_data: Path) -> None:
    with zipfile.ZipFile(wsj_data / "wsj-sample" / "treebank.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".mrg")]
        trees = [tree for name in names for tree in linearised(archive.read(name).decode(), name)]
    assert (len(names), len(trees)) == (199, 3914)
    for tree in trees:
        depth = [(token[0] == "(") - (token[-1] == ")") for token in tree]
        assert sum(depth) == 0
    words = [token for tree in trees for token in tree if not is_bracket(token)]
    assert len(words) == 94_084  # 100,676 leaves, of which 6,592 are traces


def test_the_samples_corpus_has_few_words_and_all_brackets(wsj_data: Path) -> None:
    corpus = treebank_corpus(None, wsj_data, at_least=10)
    assert treebank_corpus(str(wsj_data / "wsj-sample" / "treebank.zip"), None, 10).vocabulary == corpus.vocabulary
    assert 1000 < corpus.vocabulary < 2000
    assert int(corpus.train.max()) == corpus.vocabulary - 1
    assert 0.05 < len(corpus.held_out) / len(corpus.train) < 0.2


def folder(path: Path, **files: str) -> str:
    path.mkdir()
    for name, text in files.items():
        (path / f"{name}.mrg").write_text(text)
    return str(path)


def test_a_folder_is_read_and_rare_words_become_unknown(tmp_path: Path) -> None:
    place = folder(tmp_path / "wsj", a="(S (NN x) (NN x) (NN rare))", b="(S (NN x) (NN new))")
    for corpus in (treebank_corpus(place, None, 2), treebank_corpus(None, tmp_path, 2)):
        assert corpus.vocabulary == 5  # (S, S), <eos>, x, <unk>
        left, right = corpus.train.tolist(), corpus.held_out.tolist()
        assert left[0] == right[0]
        assert (left[1], left[4:]) == (right[1], right[3:])
        assert left[1] == left[2]
        assert left[3] == right[2]


def test_held_out_is_every_tenth_file_or_section_22_where_there_is_one() -> None:
    names = [f"wsj_{k:04d}.mrg" for k in range(1, 26)]
    train, held_out = split(names)
    assert held_out == ["wsj_0010.mrg", "wsj_0020.mrg"]
    assert sorted(train + held_out) == names
    assert split(names[:2]) == (names[:1], names[1:2])
    whole = [f"{section:02d}/wsj_{section:02d}{k:02d}.mrg" for section in range(25) for k in range(2)]
    train, held_out = split(whole)
    assert held_out == ["22/wsj_2200.mrg", "22/wsj_2201.mrg"]
    assert train == whole[4:44]


def test_a_treebank_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no treebank in .*task\.arguments\.treebank"):
        treebank_corpus(None, tmp_path, 1)
    with pytest.raises(ConfigurationError, match="treebank: there is no file or folder"):
        treebank_corpus(str(tmp_path / "nowhere"), None, 1)
    with pytest.raises(DataError, match="expected trees in two"):
        treebank_corpus(folder(tmp_path / "one", a="(S (NN x))"), None, 1)
    (tmp_path / "treebank.zip").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"treebank\.zip cannot be read"):
        treebank_corpus(None, tmp_path, 1)
    place = folder(tmp_path / "bad", a="(S (NN x))", b="(S (NN x)")
    with pytest.raises(DataError, match=r"bad: b\.mrg, line 1: a tree that the file ends in"):
        treebank_corpus(place, None, 1)
    (tmp_path / "bad" / "b.mrg").write_bytes(b"(S (NN \xff))")
    with pytest.raises(DataError, match="not UTF-8"):
        treebank_corpus(place, None, 1)
