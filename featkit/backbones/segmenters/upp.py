"""Objects, parts and materials from the published Unified Perceptual Parsing network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from featkit.backbones.architectures import UnsetWeights
from featkit.backbones.checkpoints.load import read_tensors
from featkit.backbones.segmenters.network import NetworkConcepts
from featkit.backbones.segmenters.upernet import DeepStemResNet50, UPerNet
from featkit.data.concepts.base import CodeBook, Concept, Labels
from featkit.documents import parse_json
from featkit.errors import BackboneError, CheckpointError, one_line
from featkit.spec import check_options, given_path, int_option, split_query

_MEAN = (102.9801, 115.9465, 122.7717)  # of blue, green and red, on the scale 0..255
_SIZE = 256
_STRIDE = 32
_PART, _MATERIAL = 10_000, 20_000  # added to class numbers, so that one table holds them all


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a checkpoint, the empty one (number 0) included.

    Attributes:
        objects: Names.
        materials: Names.
        scenes: How many there are.
        parts: For the number of each object that has parts, their names, the empty one first. The
            part head gives the scores of one object after the other, by the objects' numbers.
    """

    objects: Sequence[str]
    materials: Sequence[str]
    scenes: int
    parts: Mapping[int, Sequence[str]]

    def book(self) -> CodeBook:
        """Number objects, parts and materials; a part that is called like an object is that."""
        known = set(self.objects)
        codes = [(i, Concept(n, "object")) for i, n in enumerate(self.objects) if i]
        names = [name for owner in sorted(self.parts) for name in self.parts[owner]]
        starts = np.cumsum([0, *(len(self.parts[o]) for o in sorted(self.parts))]).tolist()
        for i, name in enumerate(names):
            if i not in starts:
                category = "object" if name in known else "part"
                codes.append((_PART + i, Concept(name, category)))
        codes += [(_MATERIAL + i, Concept(n, "material")) for i, n in enumerate(self.materials)]
        return CodeBook([(c, concept) for c, concept in codes if c != _MATERIAL])


class UnifiedParser(nn.Module):
    """Encoder and decoder, named as the two files of the checkpoint are.

    Args:
        vocabulary: Its classes.
        width: Channels of the feature pyramid.
    """

    def __init__(self, vocabulary: Vocabulary, width: int = 512) -> None:
        super().__init__()
        parts = sum(len(names) for names in vocabulary.parts.values())
        counts = vocabulary.scenes, len(vocabulary.objects), parts, len(vocabulary.materials)
        self.encoder = DeepStemResNet50()
        self.decoder = UPerNet(*counts, width=width)
        self.parts = {owner: len(vocabulary.parts[owner]) for owner in sorted(vocabulary.parts)}

    def forward(self, images: Tensor) -> Tensor:
        """Map images (b, 3, h, w), BGR without their mean, to class numbers (b, 3, h/4, w/4).

        The layers are object, part and material. A part is given only where its owner is the
        object.
        """
        scores = self.decoder(self.encoder(images))
        things = scores["object"].argmax(1)
        parts = torch.full_like(things, -1)
        start = 0
        for owner, count in self.parts.items():
            best = scores["part"][:, start : start + count].argmax(1)
            parts = torch.where(things == owner, best + start + _PART, parts)
            start += count
        return torch.stack([things, parts, scores["material"].argmax(1) + _MATERIAL], 1)


def open_upp(spec: str, device: str = "cpu") -> NetworkConcepts:
    """Load the Unified Perceptual Parsing network, ResNet-50 with UPerNet.

    The whole image is resized to a shorter side of 256 pixels (both sides to multiples of 32) and
    labelled at a quarter of that resolution, as the network gives it.

    Args:
        spec: ``upp:CHECKPOINT``, a folder with ``encoder_epoch_N.pth`` and ``decoder_epoch_N.pth``
            as published (the largest N), or one file with names ``encoder.…`` and ``decoder.…``;
            ``?labels=`` the JSON with the names of its classes (default: ``labels.json`` there),
            ``?size=`` another shorter side.
        device: Where it runs.

    Raises:
        BackboneError: A file is missing, or the names do not fit the weights.

    Source: Xiao et al. 2018, arXiv:1807.10221; CSAILVision/unifiedparsing at c0b2ae1 and, for the
    rules by which labels are made of scores, davidbau/dissect at 9421eaa,
    ``netdissect/segmenter.py`` (Bau et al. 2020, arXiv:2009.05041). We differ in resizing the whole
    image where 256 x 256 of a square crop are taken there.
    """
    target, options = split_query(spec)
    check_options(spec, options, ["labels", "size"])
    size = int_option(spec, options, "size", _SIZE) or 0
    if size < _STRIDE:
        raise BackboneError(f"{spec!r}: size is a number of pixels, at least {_STRIDE}")
    path = given_path(target.partition(":")[2])
    beside = path if path.is_dir() else path.parent
    labels = given_path(options["labels"]) if "labels" in options else beside / "labels.json"
    vocabulary = _read_vocabulary(spec, labels)
    module = _fill(spec, vocabulary, _read_weights(spec, path)).to(device)

    def predict(image: Image.Image) -> Labels:
        scale = size / min(image.size)
        width, height = (max(1, round(side * scale / _STRIDE)) * _STRIDE for side in image.size)
        pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR))[..., ::-1]
        images = torch.from_numpy(pixels - np.array(_MEAN)).to(device, torch.float32)
        with torch.inference_mode():
            found = module(images.permute(2, 0, 1)[None])[0]
        labels: Labels = found.to(torch.int32).cpu().numpy()
        return labels

    return NetworkConcepts(spec, "upp", module, vocabulary.book(), predict, {"size": size})


def _read_vocabulary(spec: str, path: Path) -> Vocabulary:
    """Read ``{"object": […], "material": […], "scene": […], "object_part": {owner: […]}}``."""
    try:
        content: Any = parse_json(path.read_bytes())
        objects, materials = ([str(n) for n in content[key]] for key in ("object", "material"))
        number = {name: i for i, name in reversed(list(enumerate(objects)))}
        parts = {number[o]: [str(n) for n in p] for o, p in content["object_part"].items()}
        return Vocabulary(objects, materials, len(content["scene"]), parts)
    except OSError as error:
        raise BackboneError(
            f"{spec!r}: {path} cannot be read ({error.strerror}); give the names of the classes "
            f"with ?labels=FILE"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackboneError(
            f"{spec!r}: {path.name} has not the lists object, material and scene and the lists of "
            f"object_part ({type(error).__name__}: {one_line(error)})"
        ) from error


def _read_weights(spec: str, path: Path) -> dict[str, Tensor]:
    if path.is_file():
        return read_tensors(path)
    found = {
        side: sorted(
            (int(match[1]), file)
            for file in (path.iterdir() if path.is_dir() else ())
            if (match := re.fullmatch(rf"{side}_epoch_(\d+)\.pth", file.name))
        )
        for side in ("encoder", "decoder")
    }
    both = {n for n, _ in found["encoder"]} & {n for n, _ in found["decoder"]}
    if not both:
        raise BackboneError(
            f"{spec!r}: there is neither a file {path} nor a folder with encoder_epoch_N.pth and "
            f"decoder_epoch_N.pth"
        )
    epoch = max(both)
    return {
        f"{side}.{name}": tensor
        for side, files in found.items()
        for name, tensor in read_tensors(dict(files)[epoch]).items()
    }


def _fill(spec: str, vocabulary: Vocabulary, tensors: Mapping[str, Tensor]) -> UnifiedParser:
    fusion = tensors.get("decoder.conv_fusion.0.weight")
    with UnsetWeights():
        module = UnifiedParser(vocabulary, 512 if fusion is None else fusion.shape[0]).eval()
    own = {n: t.shape for n, t in module.state_dict().items() if not n.endswith("_tracked")}
    given = {n: t for n, t in tensors.items() if not n.endswith("_tracked")}
    wrong = [
        f"{name} is {tuple(given[name].shape) if name in given else 'missing'}, "
        f"wanted {tuple(shape)}"
        for name, shape in own.items()
        if name not in given or given[name].shape != shape
    ]
    wrong += [f"{name} is not known" for name in given if name not in own]
    if wrong:
        raise CheckpointError(
            f"{spec!r}: {len(wrong)} tensors do not fit the network and its labels "
            f"({'; '.join(wrong[:3])})"
        )
    module.load_state_dict(given, strict=False)
    return module
