"""What users write: selectors, specifications, taps, and whole command lines."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzzing import checkpoints, documents, tables
from tests.fuzzing.target import Case, Target
from tests.store.conftest import make_samples, make_table

TEXTS = (
    "", " ", "-", "--", "x", "features", "features:net_a", "features:net_a/fc.none", "photos",
    "run", "net.pth", "a", "out", "list.csv", "family.csv", "digits", "0", "1", "2", "-1", "3.5",
    "nan", "inf", "1e400", "9" * 400, "0x1", "1_0", "true", "none", "all", ",", "1,,2", "a,b", "=",
    "?", "&",
    ":", "/", "..", "../..", "~", "*", "[", "(", "\\", "\n", "\x1b[31m", "\u202e", "é", "\ud800",
    "/dev/null", "/etc/passwd", "x" * 5000, "--help", "--json", "--debug", "-o", "--k", "--seed",
    "cifar_resnet20?weights=none", "lenet5?weights=none&size=0", "a=cifar_resnet20?weights=none",
    "treenet(leaves=4)?weights=none", "treenet(leaves=1e9)?weights=none", "timm:no_such_thing",
    "cifar_resnet20?weights=none&seed=-1", "cifar_resnet20?weights=none&size=99999",
    "cifar_resnet20?weights=none&mean=a", "cifar_resnet20?weights=none&std=0", "zoo:nothing",
    "layer1:avg", "layer1:avg3s2p1", "layer1:avg0s0", "layer1:avg99s1", "net_a/layer1:avg", "conv1",
    "layer1:avg9999s9999p4999", "layer1:none", "layer1.0.conv1:max", "masks:photos", "color",
)  # fmt: skip
_LETTERS = "abcxyz019:/.?=&,-_()[]~ \\\"'%*\n\0é"


def _mutated_text(text: str) -> SearchStrategy[str]:
    behind = st.integers(0, 8)  # from the end, where what is asked of a known thing stands
    place = st.one_of(behind, behind, st.integers(0, 80))
    one = st.tuples(place, st.sampled_from(_LETTERS), st.sampled_from("rid"))

    def apply(made: list[tuple[int, str, str]]) -> str:
        new = text
        for at, letter, how in made:
            place = len(new) - at % (len(new) + 1)
            rest = new[place + 1 :] if how in "rd" else new[place:]
            new = new[:place] + ("" if how == "d" else letter) + rest
        return new

    return st.lists(one, min_size=1, max_size=2).map(apply)


def lay_out(folder: Path) -> None:
    """Write one of everything that a command can be given."""
    rng = np.random.default_rng(0)
    manifest = make_samples(folder / "features", np.arange(24) % 3, ["ant", "bee", "cow"])
    for name in ("net_a/fc.none", "net_b/fc.none"):
        make_table(folder / "features", manifest, name, rng.standard_normal((24, 6)).astype("f4"))
    maps = rng.standard_normal((24, 2, 3, 3)).astype("f4")
    make_table(folder / "features", manifest, "net_a/layer1.none", maps)
    for i in range(6):
        tables.picture(folder / "photos" / f"{i % 2}" / f"{i}.png", rng.integers(0, 256, (8, 8)))
    (folder / "list.csv").write_text("path,label\nphotos/0/0.png,x\nphotos/1/1.png,y\n")
    rows = [["backbone", "epochs", "error"], ["net_a", "1", "0.5"], ["net_b", "2", "0.25"]]
    (folder / "family.csv").write_bytes(tables.written(rows))
    documents.make_dissections(folder)
    documents.make_run(folder)
    (folder / "net.pth").write_bytes(checkpoints.whole("zip"))
    (folder / "picture").write_bytes(b"not a store")


SPECS = {
    "backbone": ("cifar_resnet20?weights=none&seed=1", "run?epoch=3", "net.pth?size=32",
                 "mine=net.pth?mean=0.5&std=0.2,0.2,0.2", "treenet(leaves=2)?weights=none",
                 "lenet5?weights=none"),
    "tap": ("layer1:avg", "layer2:avg3s2p1", "res3:max", "head", "conv1:flatten", "avgpool"),
    "table": ("features:net_a/fc.none", "features:net_b", "features", "features:net_a/layer1"),
    "source": ("photos", "list.csv?root=.", "list.csv?root=photos", "torchvision:FakeData?size=3",
               "torchvision:FakeData?size=12", "digits"),
    "concepts": ("color", "masks:photos", "masks:photos/0", "panoptic:x.json?masks=photos",
                 "panoptic:list.csv?masks=photos", "texture"),
}  # fmt: skip


def _spec_cases(_folder: Path) -> SearchStrategy[Case]:
    def of(kind: str) -> SearchStrategy[Case]:
        changed = [st.sampled_from(SPECS[kind]).flatmap(_mutated_text) for _ in range(4)]
        text = st.one_of(*changed, st.sampled_from(SPECS[kind]), st.sampled_from(TEXTS))
        return text.map(lambda written: Case(words=(kind, written)))

    return st.one_of(*map(of, SPECS))


def _names_something(folder: Path, words: tuple[str, ...]) -> object:
    """Whether what comes first, before options, poolings and taps, is there."""
    from featkit.backbones.taps import split_tap

    kind, text = words
    if kind == "tap":
        return split_tap(text)
    whole = text.partition("?")[0]
    before, _, after = whole.partition("=")
    name = after if after and "(" not in before else whole
    known = [spec.partition("?")[0].partition(":")[0] for spec in SPECS[kind]]
    first = name.partition(":")[0].partition("(")[0]
    return first in [k.partition("(")[0].rpartition("=")[2] for k in known]


def _read_spec(folder: Path, words: tuple[str, ...]) -> object:
    from featkit.backbones.probe import probe, resolve_taps
    from featkit.backbones.resolve import load_backbone
    from featkit.backbones.segmenters.resolve import open_concepts
    from featkit.data.sources import open_source
    from featkit.store.reader import open_store
    from featkit.store.selectors import split_selector

    kind, text = words
    if kind == "table":
        store, pattern = split_selector(text)
        return [table.name for table in open_store(store).select(pattern)]
    if kind == "source":
        source = open_source(text)
        return [len(source.ids), source.read(0).size]
    if kind == "concepts":
        return [concept.name for concept in open_concepts(text).concepts]
    backbone = load_backbone("cifar_resnet20?weights=none" if kind == "tap" else text)
    if kind == "tap":
        return [str(tap) for tap in resolve_taps(backbone, [text], probe(backbone))]
    return [backbone.name, len(probe(backbone))]


SELECTORS = Target(
    name="selectors", kind="selectors",
    modules=("featkit.spec", "featkit.store.selectors", "featkit.backbones.resolve",
             "featkit.backbones.taps", "featkit.data.sources"),
    lay_out=lay_out, cases=_spec_cases, starts=_names_something, read=_read_spec,
    valid=tuple((kind, texts[0]) for kind, texts in SPECS.items()), megabytes=1500,
)  # fmt: skip

NET = "cifar_resnet20?weights=none"
COMMANDS = tuple(
    tuple(shlex.split(line))
    for line in (
        f"extract photos -b {NET} -o out --workers 0 --batch-size 4",
        f"extract list.csv -b {NET} -b run --tap layer1:avg --tap res3 -o out --dry-run",
        f"extract photos -b {NET} -o features --workers 0",
        f"extract photos -b {NET} -o out --workers 0 --devices=1",
        "layers run", "layers net.pth?size=32", "backbones --zoo", "backbones resnet",
        "ls features", "ls run", "verify features", "verify photos",
        "export features -o out.npz", "export features:net_a/fc -o out.h5",
        "knn features:net_a/fc features:net_a/fc --k 1,3 -o out", "knn features features --json",
        "knn features features --combine concat --k 5",
        "knn features:net_a/fc features:net_a/fc --k 3 --approximate ivf -o out",
        "knn features features:net_b/fc --k 3 --approximate hnsw --recall 0.9 --json",
        "report a b -o page.html", "report c --title Found -o out/page.html --json",
        "probe features:net_a/fc features:net_a/fc --json", "spectrum features -o out",
        "fewshot features features --shots 1,2 --ways 2 --episodes 10",
        "similarity features --json", "similarity features:net_a/fc features:net_b/fc",
        "diversity features --taps fc --power 0,1 --over samples --family family.csv --size 10",
        "project features:net_a/fc --methods tsne --perplexity 3 --json",
        "lce a b c d --permutations 20 -o out", "lce a b c d --k 2 --json",
        "best-subset features features --json", "pair-ensemble features features --json",
        f"dissect photos -b {NET} --tap layer1 -c color --chance 0 -o out --workers 0",
        "saliency treenet(leaves=2)?weights=none photos -o out --images 2 --chance 0 --workers 0",
        "train simclr photos -o out --epochs 1 --batch-size 4 --workers 0",
        "train treenet photos -o run --workers 0",
        "train deepcluster photos -o out --cycles 0 --workers 0",
        "ensemble-fit features -o out --test nothing", "ensemble-transform a features",
        "demo --nothing", "--version", "--help", "knn --help",
    )
)  # fmt: skip


def _command_cases(_folder: Path) -> SearchStrategy[Case]:
    how = st.sampled_from(["swap", "swap", "letters", "letters", "drop", "double", "add"])
    one = st.tuples(how, st.integers(1, 12), st.sampled_from(TEXTS), st.integers(0, 400))

    def apply(made: tuple[tuple[str, ...], list[tuple[str, int, str, int]]]) -> Case:
        words = list(made[0])
        for what, place, text, number in made[1]:
            at = place % max(1, len(words))
            pairs = enumerate(pairwise(words), 1)
            free = [i for i, pair in pairs if not any(word.startswith("-") for word in pair)]
            if number % 8 and free and what in ("swap", "letters"):
                at = free[place % len(free)]  # an argument, which can be any text
            if what == "swap" and words:
                words[at] = text
            elif what == "letters" and words:
                cut = number % (len(words[at]) + 1)
                words[at] = (
                    words[at][:cut] + _LETTERS[number % len(_LETTERS)] + words[at][cut + 1 :]
                )
            elif what == "drop" and words:
                words.pop(at)
            elif what == "double" and words:
                words.insert(at, words[at])
            else:
                words.insert(at, text)
        return Case(words=tuple(word.replace("\0", "") for word in words if word != "--debug"))

    changes = st.one_of(*(st.lists(one, min_size=1, max_size=most) for most in (1, 1, 2)))
    commands = st.tuples(st.sampled_from(COMMANDS), changes)
    return commands.map(apply).filter(_is_small)


def _is_small(case: Case) -> bool:
    """Whether a command asks for no other processes, of any number, and not for the whole demo."""
    if "demo" in case.words and "--nothing" not in case.words:
        return False
    counts = [word.partition("=")[2] for word in case.words if word.startswith("--devices=")]
    return all(count == "1" or not any(map(str.isdigit, count)) for count in counts)


def _is_parsed(_folder: Path, words: tuple[str, ...]) -> object:
    """Whether the words are arguments and options of a command."""
    import click
    from featkit_cli.main import cli

    command: click.Command = cli
    rest = list(words)
    try:
        while isinstance(command, click.Group):
            context = command.make_context("featkit", rest)
            _, found, rest = command.resolve_command(
                context, [*context._protected_args, *context.args]
            )
            assert found is not None
            command = found
        return command.make_context("featkit", rest)
    except click.exceptions.Exit:  # --help and --version
        return True


class BadManners(Exception):
    """A command that ends otherwise than commands end, or says otherwise what is wrong."""


def _run(_folder: Path, words: tuple[str, ...]) -> object:
    from featkit_cli.main import main

    kept = [os.dup(1), os.dup(2)]
    streams = [sys.stdout, sys.stderr]
    for number, name in ((1, ".stdout"), (2, ".stderr")):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", encoding="utf-8", errors=errors)  # as Python opens them
        for number, errors in ((1, "strict"), (2, "backslashreplace"))
    )
    try:
        main(list(words))
    except SystemExit as ended:
        status = ended.code or 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        sys.stdout, sys.stderr = streams
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
    said = Path(".stderr").read_text("utf-8", "replace")
    return check_manners(status, said, words)


def check_manners(status: object, said: str, words: Sequence[str]) -> object:
    """Return what a command said, if it ended as commands end.

    Raises:
        BadManners: It did not.
    """
    errors = [line for line in said.splitlines() if line.startswith("featkit: ")]
    if status not in (0, 1, 2):
        raise BadManners(f"exit {status} of {shlex.join(words)}")
    if "Traceback" in said or "this is a bug in featkit" in said:
        raise BadManners(f"{errors or said[-300:]}")
    if len(errors) != bool(status):
        raise BadManners(f"exit {status} with {len(errors)} errors: {said[-300:]!r}")
    if any(not line.isprintable() for line in errors):
        raise BadManners(f"unprintable: {errors[0]!r}")
    return [status, errors]


COMMAND_LINE = Target(
    name="command line", kind="command line",
    modules=("featkit_cli.main", "featkit_cli.analysis", "featkit_cli.extract", "featkit_cli.ls",
             "featkit_cli.verify", "featkit_cli.export", "featkit_cli.layers", "featkit_cli.report",
             "featkit.report.page"),
    lay_out=lay_out, cases=_command_cases, starts=_is_parsed, read=_run,
    valid=(("ls", "features"), ("knn", "features", "features", "--k", "1"), ("layers", "run"),
           ("extract", "photos", "-b", NET, "-o", "out", "--workers", "0"),
           ("knn", "features:net_a/fc", "features:net_a/fc", "--k", "1", "--approximate", "hnsw"),
           ("report", "a", "b", "-o", "page.html"),
           ("probe", "features:net_a/fc", "features:net_a/fc", "--json"),
           ("project", "features:net_a/fc", "--methods", "tsne", "--perplexity", "3", "-o", "o")),
    output=(".",), is_fresh=True, megabytes=1500,
)  # fmt: skip
