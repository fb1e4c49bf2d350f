"""The preprocessing that families of networks were trained with."""

from __future__ import annotations

from featkit.data.preprocessing import Preprocessing

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

IMAGENET = Preprocessing((224, 224), 256, "bilinear", _MEAN, _STD)
"""What ResNets and AlexNets expect."""

IMAGENET_BICUBIC = Preprocessing((224, 224), 256, "bicubic", _MEAN, _STD)
"""What DINO evaluates its networks with (``eval_knn.py``)."""

UNIT_RANGE = Preprocessing((224, 224), 256, "bilinear", (0.0,) * 3, (1.0,) * 3)
"""What SimCLR was trained with: pixels from 0 to 1 as they are."""

CIFAR = Preprocessing((32, 32), 32, "bicubic", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
"""What ResNets for 32 pixels expect, with the channels' statistics of CIFAR-10."""

GREY = Preprocessing((32, 32), 32, "bicubic", (0.5,) * 3, (0.5,) * 3)
"""What LeNet-5 expects: from -1 to 1, the same of each colour, so that what is grey stays grey."""
