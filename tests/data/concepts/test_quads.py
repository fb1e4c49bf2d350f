"""Quad parts: drawn cases, and the geometry of any shape."""

import numpy as np
import pytest

from featkit.data.concepts.base import Concept
from featkit.data.concepts.merge import MergedConcepts
from featkit.data.concepts.quads import QuadParts

CONCEPTS = (Concept("car", "object"), Concept("red", "color"), Concept("dog", "object"))
SIDES = "top left bottom right".split()  # noqa: SIM905


class Drawn:
    """A source whose labels are given."""

    name = "drawn"
    concepts = CONCEPTS

    def __init__(self, *layers):
        self.layers = np.array(layers, dtype=np.int32)

    def identity(self):
        return {"drawn": 1}

    def check(self, ids):
        assert ids == ["a"]

    def label(self, sample, image, grid):
        return self.layers


def parts(*layers):
    """The parts of each layer with objects, as the first letters of their sides."""
    source = QuadParts(Drawn(*layers))
    labels = source.label("a", None, None)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels[: len(layers)], layers)
    letter = {0: "."} | {
        source.concepts.index(Concept(f"{name}-{side}", "part")) + 1: side[0].upper()
        if name == "dog"
        else side[0]
        for name in ("car", "dog")
        for side in SIDES
    }
    return [["".join(letter[i] for i in row) for row in layer] for layer in labels[len(layers) :]]


def test_a_box_is_halved_and_the_middle_goes_down_and_right():
    grid = np.zeros((5, 6), int)
    grid[1:4, 1:6] = 1  # 3 rows, 5 columns
    assert parts(grid) == [
        ["......", ".ttttt", ".bbbbb", ".bbbbb", "......"],
        ["......", ".llrrr", ".llrrr", ".llrrr", "......"],
    ]


def test_each_component_has_its_own_box():
    """Both dogs, the last component too, and diagonal neighbours are one component."""
    grid = [[1, 1, 0, 0, 3], [0, 0, 0, 3, 0], [1, 1, 0, 0, 0], [1, 1, 0, 3, 3]]
    assert parts(grid) == [
        ["bb..T", "...B.", "tt...", "bb.BB"],
        ["lr..R", "...L.", "lr...", "lr.LR"],
    ]


def test_a_component_inside_the_box_of_another_has_its_own_halves():
    grid = [[0, 0, 1, 0, 0], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert parts(grid) == [
        ["..t..", "t.b.t", "b...b", "bbbbb"],
        ["..r..", "l.r.r", "l...r", "llrrr"],
    ]


def test_touching_objects_are_not_one_component():
    assert parts([[1, 1, 3, 3]]) == [["bbBB"], ["lrLR"]]


def test_only_objects_have_parts():
    assert parts([[2, 2, 0]]) == []
    assert parts([[2, 2, 0]], [[0, 3, 3]]) == [[".BB"], [".LR"]]


@pytest.mark.parametrize("seed", range(5))
def test_parts_partition_every_object_twice(seed):
    grid = np.random.default_rng(seed).integers(0, 4, (20, 17))
    source = QuadParts(Drawn(grid))
    whole, vertical, horizontal = source.label("a", None, None)
    objects = np.isin(whole, [1, 3])
    np.testing.assert_array_equal(vertical > 0, objects)
    np.testing.assert_array_equal(horizontal > 0, objects)
    names = np.array(["", *(c.name.partition("-")[0] for c in source.concepts)])
    assert np.all(names[vertical[objects]] == names[whole[objects]])
    assert np.all(names[horizontal[objects]] == names[whole[objects]])


def test_mirrored_and_turned_shapes_have_mirrored_and_turned_parts():
    """Metamorphic, on components with even sides: no middle row or column to give away."""
    grid = np.zeros((10, 12), int)
    grid[1:5, 2:8] = 1
    grid[1:3, 2:4] = 0
    top, left = parts(grid)
    flipped_top, flipped_left = parts(grid[::-1])
    swap = str.maketrans("tblr", "btrl")
    assert flipped_top == [row.translate(swap) for row in top[::-1]]
    assert flipped_left == left[::-1]
    turned_top, turned_left = parts(grid.T)
    turn = str.maketrans("lr", "tb")
    assert turned_top == ["".join(row).translate(turn) for row in zip(*left, strict=True)]
    assert turned_left == [
        "".join(row).translate(str.maketrans("tb", "lr")) for row in zip(*top, strict=True)
    ]


def test_names_and_identity():
    source = QuadParts(Drawn([[0]]))
    assert source.concepts[:3] == CONCEPTS
    assert [c.name for c in source.concepts[3:]] == [
        f"{name}-{side}" for name in ("car", "dog") for side in SIDES
    ]
    assert {c.category for c in source.concepts[3:]} == {"part"}
    assert source.name == "drawn"
    assert source.identity() == {"drawn": 1, "parts": "quad"}
    source.check(["a"])


def test_merged_sources_share_equal_concepts():
    other = Drawn([[1, 2, 3, 0]], [[3, 3, 3, 3]])
    other.concepts = (Concept("sky", "object"), Concept("dog", "object"), Concept("dog", "part"))
    merged = MergedConcepts([Drawn([[1, 2, 3, 0]]), other])
    assert merged.concepts == (*CONCEPTS, Concept("sky", "object"), Concept("dog", "part"))
    assert merged.label("a", None, None).tolist() == [[[1, 2, 3, 0]], [[4, 3, 5, 0]], [[5] * 4]]
    assert merged.name == "drawn + drawn"
    assert merged.identity() == {"sources": [{"drawn": 1}, {"drawn": 1}]}
    merged.check(["a"])
    with pytest.raises(AssertionError):
        merged.check(["b"])
