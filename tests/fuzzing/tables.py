"""CSV tables: of images, of models, and of label maps."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from featkit.data.decoding import open_image
from tests.fuzzing.mutate import any_json, mutated
from tests.fuzzing.target import Case, Target

CELLS = (
    "", " ", "a.png", "b/c.png", "./a.png", "b/../a.png", "../a.png", "../outside/x.png", "b/../..",
    "/etc/passwd", "..", ".", "b", "\0", "a.png\0", "x" * 5000, "é.png", "a.png ", "~", "~root/x",
    "link.png", "C:\\x", "..\\x", "//etc/passwd", "file:///etc/passwd", "http://x/y.png",
    "%2e%2e/x",
    "cat", "cat;dog", ";", ";;", "1", "-1", "1e400", "nan", "inf", "9" * 5000, "٣", "=1+1",
    "\u202e",
    "0.5", "0,5", "a\nb", '"', ",", "\ufeff", "path", "label", "model", "None", "\ud7ff", "1_0",
)  # fmt: skip


def written(rows: Sequence[Sequence[str]], delimiter: str = ",") -> bytes:
    """Return rows as a CSV."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def mutated_rows(
    rows: Sequence[Sequence[str]], delimiters: Sequence[str] = (",",), header: int = 0
) -> SearchStrategy[bytes]:
    """A CSV with cells, rows or columns changed; below the header, where that has a number."""
    how = st.sampled_from(["cell", "cell", "cell", "more", "less", "drop", "double", "blank"])
    one = st.tuples(how, st.integers(header, 20), st.integers(0, 20), st.sampled_from(CELLS))

    def apply(made: tuple[list[tuple[str, int, int, str]], str]) -> bytes:
        new = [list(row) for row in rows]
        for what, line, column, cell in made[0]:
            if not new:
                break
            at = line % len(new)
            row = new[at]
            if what == "cell" and row:
                row[column % len(row)] = cell
            elif what == "more":
                row.append(cell)
            elif what == "less" and row:
                row.pop(column % len(row))
            elif what == "drop":
                new.pop(at)
            elif what == "double":
                new.append(list(row))
            elif what == "blank":
                new.insert(at, [])
        return written(new, made[1])

    return st.tuples(st.lists(one, min_size=1, max_size=3), st.sampled_from(delimiters)).map(apply)


def any_table(
    rows: Sequence[Sequence[str]], delimiters: Sequence[str] = (",",)
) -> SearchStrategy[bytes]:
    """A CSV, mostly with the right header."""
    whole = written(rows)
    tokens = [b'"', b",", b"\n", b"\r", b"\0", b";", b"\xff", b"../", b"\xef\xbb\xbf", b'""']
    return st.one_of(
        mutated_rows(rows, delimiters, header=1),
        mutated_rows(rows, delimiters),
        mutated(whole, tokens, start=len(whole.split(b"\n")[0]) + 1),
        mutated(whole, tokens),
    )


def picture(path: Path, codes: object = None, mode: str = "L") -> None:
    """Write a small PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(np.arange(16).reshape(4, 4) % 3 if codes is None else codes, np.uint8)
    Image.fromarray(array).convert(mode).save(path)


IMAGES = [["path", "label"], ["a.png", "cat"], ["b/c.png", "dog"], ["b/d.png", "cat"]]
SEVERAL = [["label", "note", "path"], ["x;y", "", "a.png"], ["", "n", "b/c.png"],
           ["y", "n", "b/d.png"]]  # fmt: skip
UNLABELLED = [["path"], ["a.png"], ["b/d.png"]]


def _lay_out_images(folder: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d.png"):
        picture(folder / name)
    (folder / "list.csv").write_bytes(written(IMAGES))


_ROOTS = ("", "", "", "", "?root=.", "?root=b", "?root=..", "?root=/", "?root=x", "?root=",
          "?rot=b", "?root=b&root=b", "?root=\0", "?root=a.png", "?")  # fmt: skip


def _image_cases(folder: Path) -> SearchStrategy[Case]:
    outside = str(folder.parent / "outside")
    links = st.sampled_from([{}, {}, {}, {"link.png": "a.png"}, {"link.png": outside}])
    tables = st.one_of(*(any_table(rows) for rows in (IMAGES, SEVERAL, UNLABELLED)))
    return st.builds(
        lambda data, root, link: Case({"list.csv": data}, (f"list.csv{root}",), link),
        tables, st.sampled_from(_ROOTS), links,
    )  # fmt: skip


def _has_header(folder: Path, _words: tuple[str, ...]) -> object:
    header = (folder / "list.csv").read_bytes().decode("utf-8-sig").split("\n")[0]
    return "path" in [name.strip(' "\r') for name in header.split(",")]


def _read_images(folder: Path, words: tuple[str, ...]) -> object:
    from featkit.data.sources import open_source

    source = open_source(words[0])
    assert all(not name.startswith(("/", "..")) for name in source.ids)
    source.stamps()
    read = []
    for row in range(len(source.ids)):
        source.digest(row)
        read.append(source.read(row).size)
    return [list(source.ids), None if source.labels is None else source.labels.tolist(),
            source.classes, read]  # fmt: skip


CSV = Target(
    name="csv of images",
    kind="CSV",
    modules=("featkit.data.table", "featkit.data.sources", "featkit.spec"),
    lay_out=_lay_out_images,
    cases=_image_cases,
    starts=_has_header,
    read=_read_images,
    valid=(("list.csv",),),
)

FAMILY = [
    ["backbone", "epochs", "width", "depth", "norm", "method", "parameters", "error"],
    ["net_a", "10", "1", "18", "BatchNorm", "SimCLR", "1e6", "0.25"],
    ["net_b", "20", "2", "18", "", "SimCLR", "", "0.2"],
]
SCORES = [["model", "accuracy", "loss"], ["net_a", "0.5", "1"], ["net_b", "", "2e3"]]
GROUPS = [["model", "group"], ["net_a", "A"], ["net_b", "B"]]
_MODELS = ("net_a", "net_b")


def _lay_out_models(folder: Path) -> None:
    for name, rows in (("family", FAMILY), ("scores", SCORES), ("groups", GROUPS)):
        (folder / f"{name}.csv").write_bytes(written(rows))


def _model_cases(_folder: Path) -> SearchStrategy[Case]:
    kinds = [("family", FAMILY, (",", ";", "\t")), ("scores", SCORES, (",",)),
             ("groups", GROUPS, (",",))]  # fmt: skip
    return st.one_of(
        *(
            any_table(rows, delimiters).map(
                lambda data, kind=kind: Case({f"{kind}.csv": data}, (kind,))
            )
            for kind, rows, delimiters in kinds
        )
    )


def _is_utf8(folder: Path, words: tuple[str, ...]) -> object:
    text = (folder / f"{words[0]}.csv").read_bytes().decode("utf-8-sig")
    return text.split("\n")[0].strip() != ""


def _read_models(_folder: Path, words: tuple[str, ...]) -> object:
    from featkit.analyses.diversity.family import read_family
    from featkit.analyses.lce.model_csv import read_groups, read_scores

    if words[0] == "family":
        return {name: model.known() for name, model in read_family("family.csv").items()}
    if words[0] == "scores":
        found = read_scores("scores.csv", _MODELS)
        return {name: numbers.tolist() for name, numbers in found.items()}
    return read_groups("groups.csv", _MODELS)


MODELS = Target(
    name="csv of models",
    kind="CSV",
    modules=("featkit.analyses.lce.model_csv", "featkit.analyses.diversity.family"),
    lay_out=_lay_out_models,
    cases=_model_cases,
    starts=_is_utf8,
    read=_read_models,
    valid=(("family",), ("scores",), ("groups",)),
)

CLASSES = {"0": {"name": "sky", "category": "object"}, "1": {"name": "car", "category": "object"},
           "2": {"name": "road", "category": "part"}}  # fmt: skip
PANOPTIC = {
    "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "sky"}],
    "annotations": [
        {
            "file_name": "a.png",
            "image_id": 1,
            "segments_info": [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 2}],
        }
    ],
}
BRODEN = {
    "index.csv": [["image", "split", "object", "color", "scene"],
                  ["a.jpg", "train", "a_object.png", "a_object.png", "2"]],
    "label.csv": [["number", "name", "category"], ["1", "car", "object(3)"],
                  ["2", "red-c", "color(1);scene(4)"]],
    "category.csv": [["name", "first", "last"], ["object", "0", "1"], ["color", "1", "2"],
                     ["scene", "2", "2"]],
}  # fmt: skip
INFO = [["Idx", "Ratio", "Name"], ["1", "0.5", "wall"], ["2", "0.2", "building, edifice"]]
_PLACES = ("../outside/x.png", "/etc/passwd", "a.png/../../x", "..", "a\0", "sub/a.png")


def _lay_out_masks(folder: Path) -> None:
    picture(folder / "classes/a.png")
    (folder / "classes/classes.json").write_text(json.dumps(CLASSES))
    (folder / "panoptic.json").write_text(json.dumps(PANOPTIC))
    segments = np.zeros((4, 4, 3), np.uint8)
    segments[:2, :, 0], segments[2:, :, 0] = 1, 2
    picture(folder / "panoptic/a.png", segments, "RGB")
    for name, rows in BRODEN.items():
        (folder / "broden").mkdir(exist_ok=True)
        (folder / "broden" / name).write_bytes(written(rows))
    labels = np.zeros((4, 4, 3), np.uint8)
    labels[..., 0] = 1
    picture(folder / "broden/images/a_object.png", labels, "RGB")
    picture(folder / "info/a.png")
    (folder / "info/objectInfo150.txt").write_bytes(written(INFO, "\t"))
    picture(folder / "camvid/a.png")


def _mask_cases(folder: Path) -> SearchStrategy[Case]:
    from tests.fuzzing import images
    from tests.fuzzing.mutate import mutated_png

    def case(spec: str, file: str, contents: SearchStrategy[bytes]) -> SearchStrategy[Case]:
        return contents.map(lambda data: Case({file: data}, (spec,)))

    made = [
        case("masks:classes", "classes/classes.json", any_json(CLASSES, _PLACES)),
        case("panoptic:panoptic.json", "panoptic.json", any_json(PANOPTIC, _PLACES)),
        case("panoptic:panoptic.json", "panoptic.json", any_json(PANOPTIC, _PLACES)),
        case("masks:info", "info/objectInfo150.txt", any_table(INFO, ("\t", ","))),
    ]
    for spec, file in (("masks:classes", "classes/a.png"), ("masks:camvid", "camvid/a.png"),
                       ("panoptic:panoptic.json", "panoptic/a.png"),
                       ("masks:broden", "broden/images/a_object.png")):  # fmt: skip
        whole = (folder / file).read_bytes()
        made += [case(spec, file, mutated_png(whole))] * 4
        made.append(
            case(
                spec,
                file,
                st.one_of(mutated(whole, start=41), mutated(whole, start=41), images.files()),
            )
        )
    for name, rows in BRODEN.items():
        cells = [*rows, ["../outside/x.png", *rows[1][1:]]]
        made.append(case("masks:broden", f"broden/{name}", any_table(cells)))
    return st.one_of(*made)


def _is_there(folder: Path, words: tuple[str, ...]) -> object:
    """Whether what was changed can be read as text, JSON or an image at all."""
    kind, _, place = words[0].partition(":")
    path = folder / place
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    files += list((folder / "panoptic").glob("*")) if kind == "panoptic" else []
    for file in files:
        if file.suffix == ".json":
            json.loads(file.read_text("utf-8"))
        elif file.suffix == ".png":
            open_image(file)
        else:
            file.read_bytes().decode("utf-8-sig")
    return True


def _label(_folder: Path, words: tuple[str, ...]) -> object:
    from featkit.backbones.segmenters.resolve import open_concepts
    from featkit.data.concepts.grid import Grid
    from featkit.data.preprocessing import Preprocessing

    source = open_concepts(words[0])
    source.check(["a.jpg"])
    source.identity()
    recipe = Preprocessing((4, 4), None, "bilinear", (0.5,) * 3, (0.5,) * 3)
    labels = source.label("a.jpg", Image.new("RGB", (4, 4)), Grid(recipe, (2, 2)))
    return [[c.name for c in source.concepts], labels.tolist()]


MASKS = Target(
    name="label maps",
    kind="CSV",
    modules=(
        "featkit.data.concepts.broden", "featkit.data.concepts.masks",
        "featkit.data.concepts.panoptic", "featkit.data.concepts.layouts",
        "featkit.data.concepts.pairing",
    ),
    lay_out=_lay_out_masks,
    cases=_mask_cases,
    starts=_is_there,
    read=_label,
    valid=(("masks:classes",), ("panoptic:panoptic.json",), ("masks:info",), ("masks:camvid",),
           ("masks:broden",)),
    megabytes=1500,
)  # fmt: skip
