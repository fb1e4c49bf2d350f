"""Unified Perceptual Parsing against the authors' definition, kernel and forward pass."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import roi_align

from featkit.backbones.segmenters.resolve import open_concepts
from featkit.backbones.segmenters.upernet import precise_pool
from featkit.backbones.segmenters.upp import UnifiedParser, Vocabulary
from featkit.data.concepts.base import Concept
from featkit.data.concepts.grid import Grid
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError, CheckpointError, UsageError

LABELS = {
    "object": ["-", "sky", "building", "person", "door", "tree", "car"],
    "material": ["-", "brick", "glass", "wood"],
    "scene": ["a", "b", "c", "d", "e"],
    "part": ["-", "window", "door", "head"],
    "object_part": {"person": ["-", "head"], "building": ["-", "window", "door"]},
}
VOCABULARY = Vocabulary(
    LABELS["object"], LABELS["material"], 5, {3: ["-", "head"], 2: ["-", "window", "door"]}
)


def values(name, tensor):
    """Numbers that any program can make: a fraction of a sine, scaled by the kind of tensor."""
    i = torch.arange(tensor.numel(), dtype=torch.float64)
    u = torch.sin(i * 12.9898 + (sum(map(ord, name)) % 97 + 1) * 78.233) * 43758.5453
    u = u - u.floor()
    if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
        u = 0.5 + u
    elif tensor.ndim == 1:
        u = u - 0.5
    else:
        u = (u - 0.5) * 2 * (3 * tensor.shape[0] / tensor.numel()) ** 0.5
    return u.reshape(tensor.shape).to(tensor.dtype)


@pytest.fixture(scope="module")
def parser():
    """The network of half the width, filled part by part as the authors' was."""
    module = UnifiedParser(VOCABULARY, width=256).eval()
    for part in (module.encoder, module.decoder):
        state = part.state_dict()
        made = {n: t if n.endswith("tracked") else values(n, t) for n, t in state.items()}
        part.load_state_dict(made)
    return module


@pytest.fixture(scope="module")
def published(parser, tmp_path_factory):
    """A folder as the authors publish it, without the counters that old releases lack."""
    folder = tmp_path_factory.mktemp("upp-resnet50-upernet")
    for side in ("encoder", "decoder"):
        state = getattr(parser, side).state_dict()
        state = {n: t for n, t in state.items() if not n.endswith("tracked")}
        torch.save(state, folder / f"{side}_epoch_40.pth")
    (folder / "encoder_epoch_41.pth").write_bytes(b"a half of a pair is not taken")
    (folder / "labels.json").write_text(json.dumps(LABELS))
    return folder


def test_tensors_are_named_and_shaped_as_in_the_authors_definition():
    """The list was written by the authors' own classes.

    davidbau/dissect 9421eaa, netdissect/upsegmodel: ``Resnet(resnet50)`` and ``UPerNet`` of width
    512 with the classes counted in CSAILVision/unifiedparsing c0b2ae1, meta_file/joint_dataset
    (336 objects, 365 scenes, 26 materials, 427 parts of 77 objects).
    """
    lines = (Path(__file__).parent / "upp_tensors.txt").read_text().split()
    wanted = dict(zip(lines[::2], lines[1::2], strict=True))
    parts = {owner: ["-"] * 5 for owner in range(2, 78)} | {1: ["-"] * 47}
    with torch.device("meta"):
        module = UnifiedParser(Vocabulary(["x"] * 336, ["x"] * 26, 365, parts))
    state = module.state_dict()
    shapes = {n: "x".join(map(str, t.shape)) for n, t in state.items() if n[-7:] != "tracked"}
    assert shapes == wanted
    assert len(wanted) == 363


def test_scores_are_those_of_the_authors_network(parser):
    """Values by davidbau/dissect 9421eaa, netdissect/upsegmodel/models.py, filled as here.

    Its pooling, a CUDA kernel, was there replaced by an exact quadrature (see below).
    """
    i = torch.arange(3 * 64 * 96, dtype=torch.float64)
    images = (torch.sin(i * 0.7) * 100).reshape(1, 3, 64, 96).float()
    with torch.inference_mode():
        got = parser.decoder(parser.encoder(images))
        classes = parser(images)
    wanted = {
        "object": (
            (1, 7, 16, 24),
            [15.6781, 12.3662, -30.0729, 9.4815, 91.5211, 27.1241, -42.1236],
            34.4347,
            [0, 10, 20, 0, 353, 1],
        ),
        "part": ((1, 5, 16, 24), [68.1277, -9.6736, -38.4802, 18.0382, -51.5758], 43.3724, []),
        "material": (
            (1, 4, 16, 24),
            [-3.3032, 86.1241, -46.0153, 76.9295],
            54.0261,
            [0, 149, 0, 235],
        ),
    }
    for name, (shape, pixel, deviation, counts) in wanted.items():
        assert tuple(got[name].shape) == shape
        np.testing.assert_allclose(got[name][0, :, 5, 7], pixel, rtol=2e-4, atol=2e-3)
        assert float(got[name].std()) == pytest.approx(deviation, rel=1e-4)
        if name != "part":
            seen = (classes[0, 0] if name == "object" else classes[0, 2] - 20000).flatten()
            assert torch.bincount(seen).tolist() == counts


def test_a_part_is_given_only_where_its_owner_is_the_object(parser, monkeypatch):
    # a row a pixel: nothing, window, door of a building; nothing, head of a person
    parts = [[0, 1, 2, 7, 9], [9, 1, 2, 9, 7], [1, 9, 2, 3, 4], [9, 8, 7, 4, 3], [1, 1, 9, 1, 9]]
    rows = {
        "object": F.one_hot(torch.tensor([2, 2, 3, 3, 5]), 7),
        "part": torch.tensor(parts),
        "material": F.one_hot(torch.tensor([0, 1, 2, 3, 0]), 4),
    }
    scores = {name: row.T[None, :, None].float() for name, row in rows.items()}
    monkeypatch.setattr(parser.decoder, "forward", lambda _: scores)
    monkeypatch.setattr(parser.encoder, "forward", lambda _: None)
    labels = VOCABULARY.book().labels(parser(torch.zeros(1, 3, 4, 4))[0].numpy())
    names = [None, *((c.name, c.category) for c in VOCABULARY.book().concepts)]
    got = [[names[i] for i in row[0]] for row in labels.tolist()]
    building, person = ("building", "object"), ("person", "object")
    assert got == [
        [building, building, person, person, ("tree", "object")],
        [("door", "object"), None, ("head", "part"), None, None],
        [None, ("brick", "material"), ("glass", "material"), ("wood", "material"), None],
    ]


def test_precise_pooling_is_the_authors_kernel():
    """CSAILVision/unifiedparsing c0b2ae1, lib/nn/prroi_pool/src/prroi_pooling_gpu_impl.cu.

    Its forward kernel was compiled for the CPU and run on a map of 5 x 7, box (0, 0, 7, 5).
    """
    i = torch.arange(35)
    maps = ((i * i * 7 + i * 3) % 23).float().view(1, 1, 5, 7)
    wanted = {
        1: [8.62857],
        2: [10.36250, 7.90179, 8.75179, 7.49821],
        3: [12.34524, 10.23413, 6.24206, 7.29365, 10.29841, 5.91508, 9.49683, 10.22460, 5.60714],
    }
    for cells, pooled in wanted.items():
        got = precise_pool(maps, cells)
        assert got.shape == (1, 1, cells, cells)
        np.testing.assert_allclose(got.flatten(), pooled, atol=2e-5)
    six = precise_pool(maps, 6).flatten()
    np.testing.assert_allclose(six[[0, 1, 6, 35]], [9.625, 13.02976, 13.65436, 1.48314], atol=2e-5)


@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_precise_pooling_is_roi_align_in_the_limit(cells):
    """torchvision's samples, on the map with zeros beyond it; the midpoint rule is exact here."""
    maps = torch.randn(2, 3, 8, 11, generator=torch.Generator().manual_seed(0))
    padded = F.pad(maps, (0, 2, 0, 2))
    box = torch.tensor([[0.0, 0.0, 11.0, 8.0]])
    peer = roi_align(padded, [box] * 2, cells, sampling_ratio=264, aligned=False)
    torch.testing.assert_close(precise_pool(maps, cells), peer, atol=1e-4, rtol=1e-4)
    if cells == 1:
        assert not torch.allclose(precise_pool(maps, 1), F.adaptive_avg_pool2d(maps, 1), atol=0.02)


def test_the_published_folder_is_loaded_and_labels_an_image(parser, published):
    source = open_concepts(f"upp:{published}?size=64")
    for name, tensor in parser.state_dict().items():
        if not name.endswith("tracked"):
            assert torch.equal(source.module.state_dict()[name], tensor), name
    assert Concept("head", "part") in source.concepts
    assert Concept("brick", "material") in source.concepts
    assert [c for c in source.concepts if c.name == "door"] == [Concept("door", "object")]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    grid = Grid(Preprocessing((64, 96), None, "bilinear", (0.5,) * 3, (0.5,) * 3), (16, 24))
    labels = source.label("x", Image.fromarray(pixels), grid)
    assert labels.shape == (3, 16, 24)
    # blue first, from 0 to 255, without the mean of its channel
    bgr = pixels[..., ::-1].astype(np.float32) - np.float32([102.9801, 115.9465, 122.7717])
    with torch.inference_mode():
        scores = parser.decoder(parser.encoder(torch.from_numpy(bgr).permute(2, 0, 1)[None]))
    names = np.array(["-", *(c.name for c in source.concepts)])
    np.testing.assert_array_equal(
        names[labels[0]], np.array(LABELS["object"])[scores["object"][0].argmax(0)]
    )
    np.testing.assert_array_equal(
        names[labels[2]], np.array(LABELS["material"])[scores["material"][0].argmax(0)]
    )


def test_one_file_holds_both_halves_too(parser, published, tmp_path):
    torch.save(parser.state_dict(), tmp_path / "upp.pth")
    source = open_concepts(f"upp:{tmp_path / 'upp.pth'}?labels={published / 'labels.json'}")
    folder = open_concepts(f"upp:{published}")
    assert source.identity()["codes"] == folder.identity()["codes"]
    assert source.identity()["size"] == 256


def test_labels_that_do_not_fit_the_weights(published, tmp_path):
    fewer = LABELS | {"object": LABELS["object"][:-1]}
    (tmp_path / "l.json").write_text(json.dumps(fewer))
    with pytest.raises(CheckpointError, match=r"2 tensors .*object_head.1.weight is \(7"):
        open_concepts(f"upp:{published}?labels={tmp_path / 'l.json'}")
    (tmp_path / "l.json").write_text(json.dumps(LABELS | {"object_part": {"dog": ["-"]}}))
    with pytest.raises(BackboneError, match="l.json has not the lists .*KeyError: 'dog'"):
        open_concepts(f"upp:{published}?labels={tmp_path / 'l.json'}")


def test_what_is_missing_is_said(published, tmp_path):
    with pytest.raises(BackboneError, match=r"give the names of the classes with \?labels=FILE"):
        open_concepts(f"upp:{tmp_path}")
    labels = f"?labels={published / 'labels.json'}"
    with pytest.raises(BackboneError, match=r"neither a file .* nor a folder with encoder_epoch_N"):
        open_concepts(f"upp:{tmp_path}{labels}")
    with pytest.raises(BackboneError, match="size is a number of pixels, at least 32"):
        open_concepts(f"upp:{published}?size=31")
    with pytest.raises(UsageError, match="unknown option 'label': did you mean labels"):
        open_concepts(f"upp:{published}?label=x")
