"""torchvision's semantic segmentation networks."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision import models

from featkit.backbones.architectures import seeded
from featkit.backbones.hub import explain_download_errors
from featkit.backbones.segmenters.network import NetworkConcepts, classes, objects
from featkit.data.concepts.base import Labels
from featkit.errors import BackboneError
from featkit.registry import did_you_mean
from featkit.spec import check_options, int_option, split_query


def open_torchvision_segmenter(spec: str, device: str = "cpu") -> NetworkConcepts:
    """Build one of torchvision's segmentation networks.

    Args:
        spec: ``torchvision:NAME``, with ``?weights=`` a member of the network's weights enumeration
            (default: the best), or ``?weights=none&seed=0`` for random ones.
        device: Where it runs.

    Raises:
        BackboneError: There is no such network, or no such weights.
        DownloadError: The weights could not be fetched.
    """
    target, options = split_query(spec)
    check_options(spec, options, ["seed", "weights"])
    name = target.partition(":")[2]
    known = models.list_models(module=models.segmentation)
    if name not in known:
        raise BackboneError(
            f"{spec!r}: torchvision has no segmentation network {name!r}: "
            f"{did_you_mean(name, known)}"
        )
    published = models.get_model_weights(name)
    asked = options.get("weights")
    if asked not in (None, "none", *published.__members__):
        hint = did_you_mean(str(asked), ["none", *published.__members__])
        raise BackboneError(f"{spec!r}: torchvision:{name} has no weights {asked!r}: {hint}")
    if asked != "none" and "seed" in options:
        raise BackboneError(f"{spec!r}: only random weights (?weights=none) have a seed")
    chosen = published.DEFAULT if asked in (None, "none") else published[asked]
    categories = chosen.meta["categories"]
    if asked == "none":
        with seeded(int_option(spec, options, "seed", 0) or 0):
            module = models.get_model(
                name, weights=None, weights_backbone=None, num_classes=len(categories)
            )
    else:
        with explain_download_errors(f"torchvision:{name}"):
            module = models.get_model(name, weights=chosen, progress=False)
    module = module.eval().to(device)
    transform = chosen.transforms()

    def predict(image: Image.Image) -> Labels:
        with torch.inference_mode():
            scores = module(transform(image)[None].to(device))["out"]
        return classes(scores)

    return NetworkConcepts(
        spec,
        f"torchvision:{name}",
        module,
        objects(dict(enumerate(categories))),
        predict,
        {"resize": list(transform.resize_size)},
    )
