"""Writers of checkpoint files, one a layout, each as the upstream project writes it.

Nothing is imported from featkit. Containers, names and ballast come from the upstream sources named
in each docstring with their commit; the names were compared with those of the upstream classes.
"""

import argparse
import collections
import contextlib
import json
import pickle
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from tests.backbones.checkpoints import keys
from tests.backbones.checkpoints.sources import (
    CifarResNet20,
    DeepClusterAlexNet,
    DinoHead,
    SepariusResNet50,
    VisslAlexNet,
    after,
    class_token,
    lightly_small_resnet,
    moco_vit,
    named,
    pooled,
    randomized,
    resnet,
    sequential,
    trunk,
    unit,
    vit,
    windowed_resnet,
    zipped,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RAW = ((0.0,) * 3, (1.0,) * 3)


@dataclass
class Net:
    """What one network of a file computes from images.

    ``head`` is None where the file has none that runs on whole images one by one.
    """

    features: Callable
    head: Callable | None = None
    architecture: str = "resnet18"


@dataclass
class Sample:
    """A written file and what must come out of it.

    Attributes:
        path: The file to load.
        nets: By role, the one that is loaded by default first.
        names: Names in the file of that network's tensors, its head left out.
        content: What was written, for damaging it.
        size: Pixels of the images to compare features on.
        normalization: Mean and standard deviation that it was trained with; None says nothing.
        interpolation: How its authors resize images to evaluate it.
        pixels: The input size that it was trained with.
        head: Whether the head must be there; where it is, it must be right.
        query: What must be said to load it, where the file does not tell it.
        tapped: Whether its features are those of the default tap, or the output of the network.
    """

    path: Path
    nets: dict[str, Net]
    names: list[str]
    content: object = None
    size: int = 64
    normalization: tuple | None = IMAGENET
    interpolation: str = "bilinear"
    pixels: int = 224
    head: bool = True
    save: Callable | None = None
    query: str = ""
    tapped: bool = True


@dataclass
class Saver:
    """Puts files into a folder, in the format of torch's archives or in that of torch < 1.6."""

    folder: Path
    legacy: bool
    count: int = field(default=0)

    def __call__(self, content, name="checkpoint.pth"):
        path = self.folder / name
        torch.save(content, path, _use_new_zipfile_serialization=not self.legacy)
        return path

    def sample(self, content, nets, names, name="checkpoint.pth", **more):
        return Sample(self(content, name), nets, names, content, save=self, **more)


ROWS: dict[str, Callable] = {}
BOTH: list[str] = []


def row(name, *arguments, both=False):
    """Register a writer; ``both`` where it is cheap to write it in both formats of torch."""

    def register(writer):
        ROWS[name] = lambda save: writer(save, *arguments)
        if both:
            BOTH.append(name)
        return writer

    return register


def parameters(state):
    """The tensors of a state dict that an optimizer trains."""
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    return [tensor for name, tensor in state.items() if not name.endswith(kinds)]


def sgd(state, buffer="momentum_buffer", every=False, **options):
    """The state dict of an optimizer; of large buffers only those asked for.

    Old versions of torch numbered parameters by their address.
    """
    numbers = [140234866361152 + 72 * i for i in range(len(parameters(state)))]
    buffers = {
        number: {buffer: torch.full_like(tensor, 0.5)}
        for number, tensor in zip(numbers, parameters(state), strict=True)
        if every or tensor.numel() < 3000
    }
    group = {"lr": 0.03, "momentum": 0.9, "dampening": 0, "weight_decay": 1e-4, "nesterov": False}
    return {"state": buffers, "param_groups": [group | options | {"params": numbers}]}


@contextlib.contextmanager
def passing_modules(*names):
    """Modules that exist while a file is written, and no longer when it is read."""
    parents = {name.rsplit(".", i)[0] for name in names for i in range(name.count(".") + 1)}
    modules = {name: types.ModuleType(name) for name in sorted(parents)}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield modules
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def class_in(module, name):
    made = type(name, (), {"__module__": module.__name__})
    setattr(module, name, made)
    return made


def mlp_head(net, head):
    return Net(pooled(net), after(pooled(net), head))


# ---------------------------------------------------------------------------------------- VISSL


def vissl_task(trunk_state, heads, loss=None, optimizer=None, consolidated=False, meta=True):
    """The content of a VISSL checkpoint, vissl (09270ed2) and ClassyVision (08a82e8).

    vissl/hooks/log_hooks.py, classy_vision/tasks/classification_task.py get_classy_state,
    vissl/models/base_ssl_model.py get_classy_state.
    """
    loss = collections.OrderedDict(loss or {})
    model = {"model": {"trunk": collections.OrderedDict(trunk_state), "heads": heads}}
    meters = {0: {"state": {"top_k": [1, 5], "total_sample_count": torch.tensor([1281167])}}}
    task = {
        "train": True,
        "base_model": model | ({"meta": {"trunk": {}, "heads": []}} if meta else {}),
        "meters": [{"accuracy_list_meter": meters}],
        "optimizer": {"optim": optimizer or sgd(trunk_state)},
        "phase_idx": 199,
        "train_phase_idx": 199,
        "num_updates": np.float64(256233400.0),
        "losses": [7.5 - 0.001 * i for i in range(2000)],
        "hooks": {"checkpoint_hook": {}, "log_loss_metrics_hook": {}},
        "loss": loss,
    }
    checkpoint = {
        "phase_idx": 199,
        "iteration": 1000800,
        "loss": loss,
        "iteration_num": 0,
        "train_phase_idx": 199,
        "classy_state_dict": task,
    }
    return {"type": "consolidated"} | checkpoint if consolidated else checkpoint


PHASE = "model_final_checkpoint_phase199.torch"
BLOCKS = "_feature_blocks."


def vissl_trunk(net, prefix=BLOCKS, depth=18):
    return zipped(keys.resnet(depth, prefix), trunk(net))


def vissl_mlp(i, layout, *widths, seed=0):
    """vissl/models/heads/mlp.py: head i is ``clf``, an nn.Sequential."""
    module = sequential(layout, *widths, seed=seed)
    return module, named(f"{i}.clf", module)


def vissl_chain(layouts, seed=0):
    """Heads that run in a row (heads_forward in base_ssl_model.py)."""
    modules, state = [], {}
    for i, (layout, *widths) in enumerate(layouts):
        module, names = vissl_mlp(i, layout, *widths, seed=10 * seed + i)
        modules.append(module)
        state |= names
    return modules, collections.OrderedDict(state)


def vissl_row(save, layouts, loss=None, optimizer=None, **options):
    net = resnet()
    modules, heads = vissl_chain(layouts)
    content = vissl_task(vissl_trunk(net), heads, loss, optimizer, **options)
    nets = {"student": Net(pooled(net), after(pooled(net), *modules))}
    return save.sample(content, nets, keys.resnet(18, BLOCKS), PHASE)


@row("vissl-simclr", both=True)
def vissl_simclr(save):
    """configs/config/pretrain/simclr: two heads in a row, vissl (09270ed2)."""
    net = resnet()
    every = sgd(vissl_trunk(net), every=True)
    return vissl_row(save, [("LR", 512, 512), ("L", 512, 32)], optimizer=every, meta=False)


@row("vissl-deepclusterv2")
def vissl_deepclusterv2(save):
    """configs/config/pretrain/deepcluster_v2, vissl/losses/deepclusterv2_loss.py (09270ed2)."""
    loss = {
        "local_memory_embeddings": torch.rand(2, 64, 32),
        "local_memory_index": torch.arange(64),
        "assignments": torch.full((3, 64), -100),
    }
    loss |= {f"centroids{i}": torch.rand(30, 32) for i in range(3)}
    return vissl_row(save, [("LR", 512, 512), ("L", 512, 32)], loss)


@row("vissl-rotnet", [("L", 512, 4)])
@row("vissl-supervised", [("L", 512, 1000)])
def vissl_linear(save, layouts):
    """configs/config/pretrain/{rotnet,supervised}: one linear head, vissl (09270ed2)."""
    return vissl_row(save, layouts)


@row("vissl-npid")
def vissl_npid(save):
    """configs/config/pretrain/npid, vissl/losses/nce_loss.py (09270ed2)."""
    loss = {
        "nce_average.memory": torch.rand(64, 32),
        "nce_average.params": torch.tensor([4096, 0.07, -1, 0.5]),
        "nce_average.multinomial.prob": torch.ones(64),
        "nce_average.multinomial.alias": torch.zeros(64, dtype=torch.long),
    }
    return vissl_row(save, [("L", 512, 32)], loss)


@row("vissl-barlow-twins", both=True)
def vissl_barlow_twins(save):
    """configs/config/pretrain/barlow_twins, vissl/optimizers/lars.py before 43f230cd (09270ed2).

    The optimizer's groups hold a static method of a class, and its module is not there any more.
    """
    layouts = [("lBR", 512, 64, 64), ("lBR", 64, 64, 64), ("l", 64, 64)]
    with passing_modules("vissl.optimizers.lars") as modules:
        lars = class_in(modules["vissl.optimizers.lars"], "_LARS")

        def exclude(p):
            return p.ndim == 1

        exclude.__module__ = "vissl.optimizers.lars"
        exclude.__qualname__ = "_LARS._exclude_bias_and_norm"
        exclude.__name__ = "_exclude_bias_and_norm"
        lars._exclude_bias_and_norm = staticmethod(exclude)
        optimizer = sgd(vissl_trunk(resnet()), "mu", eta=0.001, exclude=exclude)
        sample = vissl_row(save, layouts, optimizer=optimizer)
    sample.content["classy_state_dict"]["optimizer"] = {}
    return sample


@row("vissl-swav", both=True)
def vissl_swav(save):
    """configs/config/pretrain/swav, vissl/models/heads/swav_prototypes_head.py (09270ed2)."""
    net = resnet()
    projection = sequential("LBRL", 512, 64, 32, seed=1)
    prototypes = sequential("l", 32, 30, seed=2)
    heads = named("0.projection_head", projection) | named("0.prototypes0", prototypes[0])
    loss = {
        "num_iteration": torch.zeros(1, dtype=torch.int),
        "local_queue0": torch.rand(2, 8, 30),
        "local_emb_queue": torch.rand(2, 8, 32),
    }
    content = vissl_task(vissl_trunk(net), heads, loss)
    content["classy_state_dict"]["amp"] = {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 8}}
    nets = {"student": Net(pooled(net), after(pooled(net), projection, unit, prototypes))}
    return save.sample(content, nets, keys.resnet(18, BLOCKS), PHASE)


@row("vissl-jigsaw")
def vissl_jigsaw(save):
    """configs/config/pretrain/jigsaw, vissl/models/heads/siamese_concat_view.py (09270ed2).

    Head 1 joins the nine patches of an image and has no tensors.
    """
    net = resnet()
    heads = vissl_mlp(0, "LBR", 512, 40, 40)[1] | vissl_mlp(2, "L", 360, 20)[1]
    content = vissl_task(vissl_trunk(net), heads)
    nets = {"student": Net(pooled(net))}
    return save.sample(content, nets, keys.resnet(18, BLOCKS), PHASE)


@row("vissl-pirl")
def vissl_pirl(save):
    """configs/config/pretrain/pirl, multiple_input_mapping.py (09270ed2): head 1 reads images."""
    net = resnet()
    on_images = sequential("L", 512, 32, seed=3)
    heads = (
        named("0.0.clf", sequential("L", 512, 32, seed=1))
        | named("0.2.clf", sequential("L", 9 * 32, 32, seed=2))
        | named("1.0.clf", on_images)
    )
    content = vissl_task(vissl_trunk(net), heads, {"update_memory": torch.rand(64, 32)})
    return save.sample(
        content, {"student": mlp_head(net, on_images)}, keys.resnet(18, BLOCKS), PHASE, head=False
    )


@row("vissl-moco", both=True)
def vissl_moco(save):
    """configs/config/pretrain/moco, vissl/losses/moco_loss.py, hooks/moco_hooks.py (09270ed2)."""
    query, key = resnet(), resnet(seed=1)
    layouts = [("LR", 512, 64), ("L", 64, 32)]
    query_heads, heads = vissl_chain(layouts, seed=1)
    key_heads, of_key = vissl_chain(layouts, seed=2)
    loss = {"queue": torch.rand(32, 128), "queue_ptr": torch.tensor([64])}
    loss |= vissl_trunk(key, "moco_encoder.trunk._feature_blocks.")
    loss |= {f"moco_encoder.heads.{name}": tensor for name, tensor in of_key.items()}
    content = vissl_task(vissl_trunk(query), heads, loss)
    nets = {
        "student": Net(pooled(query), after(pooled(query), *query_heads)),
        "teacher": Net(pooled(key), after(pooled(key), *key_heads)),
    }
    return save.sample(content, nets, keys.resnet(18, BLOCKS), PHASE)


def dino_net(net, head, architecture):
    features = class_token(net)
    return Net(features, head and after(features, head), architecture)


@row("vissl-dino-vit-ddp", "momentum_teacher.module.")
@row("vissl-dino-vit", "momentum_teacher.")
def vissl_dino(save, prefix):
    """configs/config/pretrain/dino, vissl/losses/dino_loss.py, hooks/hook_utils.py (09270ed2).

    The teacher is a part of the loss, in DistributedDataParallel or not: checkpoint.py reads both.
    """
    student, teacher = vit(192, 3), vit(192, 3, seed=1)
    student_head, teacher_head = DinoHead(192, 1), DinoHead(192, 2)
    heads = zipped(keys.dino_head("0.", last="prototypes0"), student_head.tensors())
    loss = {"center": torch.rand(1, 24)}
    loss |= zipped(keys.vit(f"{prefix}trunk."), teacher.state_dict().values())
    of_teacher = keys.dino_head(f"{prefix}heads.0.", last="prototypes0")
    loss |= zipped(of_teacher, teacher_head.tensors())
    content = vissl_task(zipped(keys.vit(), student.state_dict().values()), heads, loss)
    nets = {
        "student": dino_net(student, student_head, "vit_tiny_patch16"),
        "teacher": dino_net(teacher, teacher_head, "vit_tiny_patch16"),
    }
    return save.sample(content, nets, keys.vit(), PHASE, size=224, interpolation="bicubic")


@row("vissl-dino-extracted-teacher")
def vissl_dino_extracted(save):
    """vissl/utils/checkpoint.py DINOCheckpointUtils, extra_scripts/convert_dino_checkpoint.py."""
    teacher, head = vit(192, 3, seed=1), DinoHead(192, 2)
    model = {
        "trunk": zipped(keys.vit(), teacher.state_dict().values()),
        "heads": zipped(keys.dino_head("0.", last="prototypes0"), head.tensors()),
    }
    content = {"type": "consolidated", "classy_state_dict": {"base_model": {"model": model}}}
    nets = {"student": dino_net(teacher, head, "vit_tiny_patch16")}
    return save.sample(content, nets, keys.vit(), size=224, interpolation="bicubic")


@row("vissl-linear-eval", both=True)
def vissl_linear_eval(save):
    """configs/config/benchmark/linear_image_classification, linear_eval_mlp.py (09270ed2).

    The trunk is a FeatureExtractorModel, its one head an eval_mlp on res5avg.
    """
    net = resnet()
    norm = randomized(nn.BatchNorm2d(512), 21)
    classifier = sequential("L", 512, 10, seed=4)
    heads = named("0.channel_bn", norm) | named("0.clf.clf", classifier)
    prefix = "base_model._feature_blocks."
    content = vissl_task(vissl_trunk(net, prefix), heads, consolidated=True)

    def head(images):
        return classifier(torch.flatten(norm(pooled(net)(images)[:, :, None, None]), 1))

    return save.sample(content, {"student": Net(pooled(net), head)}, keys.resnet(18, prefix), PHASE)


@row("vissl-linear-eval-of-all-layers")
def vissl_linear_eval_all(save):
    """The seven heads of eval_resnet_8gpu_transfer_in1k_linear.yaml (09270ed2), one a layer."""
    net, heads = resnet(), {}
    for i, (channels, width) in enumerate(
        ((64, 576), (64, 576), (128, 512), (256, 1024), (512, 2048), (512, 512))
    ):
        heads |= named(f"{i}.channel_bn", randomized(nn.BatchNorm2d(channels), 30 + i))
        heads |= named(f"{i}.clf.clf", sequential("L", width, 10, seed=i))
    heads |= named("6.clf", sequential("L", 512, 10, seed=6))
    prefix = "base_model._feature_blocks."
    content = vissl_task(vissl_trunk(net, prefix), heads)
    nets = {"student": Net(pooled(net))}
    return save.sample(content, nets, keys.resnet(18, prefix), PHASE)


@row("vissl-model-state-dict")
def vissl_model_state_dict(save):
    """extra_scripts/convert_caffe2_to_vissl_alexnet.py and the zoo's converted files (09270ed2)."""
    net = resnet()
    content = {"model_state_dict": vissl_trunk(net)}
    return save.sample(content, {"student": Net(pooled(net))}, keys.resnet(18, BLOCKS))


@row("vissl-flat", "_feature_blocks.")
@row("vissl-flat-trunk", "trunk._feature_blocks.")
@row("vissl-flat-base-model", "base_model._feature_blocks.")
@row("vissl-flat-trunk-base-model", "trunk.base_model._feature_blocks.")
def vissl_flat(save, prefix):
    """vissl/utils/checkpoint.py get_checkpoint_model_state_dict, APPEND_PREFIX (09270ed2)."""
    net = resnet()
    content = vissl_trunk(net, prefix)
    head, nets = None, {"student": Net(pooled(net))}
    if prefix.startswith("trunk."):
        head = sequential("L", 512, 10, seed=5)
        content |= named("heads.0.clf", head)
        nets = {"student": mlp_head(net, head)}
    return save.sample(content, nets, keys.resnet(18, prefix))


@row("vissl-w2", 50, 2)
@row("vissl-w4", 18, 4)
def vissl_wide(save, depth, width):
    """vissl/models/trunks/resnext.py WIDTH_MULTIPLIER (09270ed2); the tensors share storages."""
    net = windowed_resnet(depth, width)
    head, heads = vissl_mlp(0, "L", net.fc.in_features, 16)
    content = vissl_task(vissl_trunk(net, depth=depth), heads)
    nets = {"student": Net(pooled(net), after(pooled(net), head), f"resnet{depth}w{width}")}
    return save.sample(content, nets, keys.resnet(depth, BLOCKS), PHASE)


@row("vissl-alexnet-deepcluster", both=True)
def vissl_alexnet(save):
    """vissl/models/trunks/alexnet_deepcluster.py (09270ed2)."""
    net = VisslAlexNet(0)
    state = zipped(keys.vissl_alexnet(), net.tensors())
    content = vissl_task(state, {})
    nets = {"student": Net(net, None, "alexnet96_bn_sobel_conv")}
    return save.sample(content, nets, keys.vissl_alexnet(), PHASE, size=224, tapped=False)


# --------------------------------------------------------------------------------------- caffe2


class Python2Pickler(pickle._Pickler):
    """Pickles as cPickle of Python 2 did: strings and the bytes of arrays are both ``str``."""

    dispatch: typing.ClassVar = dict(pickle._Pickler.dispatch)

    def save_str2(self, value):
        data = value.encode() if isinstance(value, str) else value
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    def save_global2(self, value, name=None):
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_str2
    dispatch[type] = dispatch[types.FunctionType] = save_global2
    dispatch[types.BuiltinFunctionType] = save_global2


@row("caffe2", pickle.Pickler)
@row("caffe2-python2", Python2Pickler)
def caffe2(save, pickler):
    """extra_scripts/convert_caffe2_to_torchvision_resnet.py of vissl (09270ed2); BGR.

    A pickle of arrays, without counters; ``_riv`` is loaded as the running variance.
    """
    net = resnet(50)
    tensors = [tensor for tensor in trunk(net) if tensor.ndim]
    blobs = {
        name: tensor.numpy() for name, tensor in zipped(keys.caffe2_resnet50(), tensors).items()
    }
    blobs["conv1_w"] = np.ascontiguousarray(blobs["conv1_w"][:, ::-1])
    blobs |= {
        "conv1_w_momentum": np.zeros((64, 3, 7, 7), np.float32),
        "res_conv1_bn_s_momentum": np.zeros(64, np.float32),
        "lr": np.array([0.0001], np.float32),
        "model_iter": np.array([900000], np.int64),
        "pred_w": net.fc.weight.numpy(),
        "pred_b": net.fc.bias.numpy(),
    }
    path = save.folder / "resnet50.pkl"
    with path.open("wb") as file:
        pickler(file, protocol=2).dump({"blobs": blobs})
    nets = {"student": Net(pooled(net), net, "resnet50")}
    return Sample(path, nets, keys.caffe2_resnet50())


# ---------------------------------------------------------------------------------- MoCo and PCL


def moco_state(query, key, layout, *widths, seed=0, queue=128):
    modules = [sequential(layout, *widths, seed=seed + i) for i in (1, 2)]
    state = {"module.queue": torch.rand(32, queue), "module.queue_ptr": torch.tensor([64])}
    for name, net, module in zip(("encoder_q", "encoder_k"), (query, key), modules, strict=True):
        state |= zipped(keys.resnet(18, f"module.{name}."), trunk(net))
        state |= named(f"module.{name}.fc", module[0] if len(module) == 1 else module)
    nets = {"student": mlp_head(query, modules[0]), "teacher": mlp_head(key, modules[1])}
    return collections.OrderedDict(state), nets


@row("moco-v1", "L", 512, 32, both=True)
@row("moco-v2", "LRL", 512, 512, 32, both=True)
@row("pcl-v1", "L", 512, 32)
@row("pcl-v2", "LRL", 512, 512, 32)
def moco(save, layout, *widths):
    """moco/builder.py and main_moco.py of moco (8976944); pcl/builder.py, main_pcl.py (964da1f)."""
    state, nets = moco_state(resnet(), resnet(seed=1), layout, *widths)
    content = {"epoch": 200, "arch": "resnet18", "state_dict": state}
    content["optimizer"] = sgd(state, every=len(layout) > 1)
    names = keys.resnet(18, "module.encoder_q.")
    return save.sample(content, nets, names, "checkpoint_0199.pth.tar")


def moco_v3(save, nets, prefix, layout, heads, names, tensors, **more):
    """moco/builder.py, main_moco.py and vits.py of moco-v3 (c349e6e)."""
    state = {}
    for i, encoder in enumerate(("base_encoder", "momentum_encoder")):
        state |= zipped(names(f"module.{encoder}."), tensors[i])
        state |= named(f"module.{encoder}.{prefix}", heads[i])
    state |= named("module.predictor", sequential(layout, 32, 64, 64, 32, seed=9))
    content = {
        "epoch": 300,
        "arch": "vit_small" if prefix == "head" else "resnet18",
        "state_dict": collections.OrderedDict(state),
        "optimizer": sgd(state, "mu", lr=np.float64(0.3)),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 1200},
    }
    return save.sample(content, nets, names("module.base_encoder."), "r-300ep.pth.tar", **more)


@row("moco-v3-resnet", both=True)
def moco_v3_resnet(save):
    """MoCo_ResNet of moco-v3 (c349e6e): ``fc`` is a projector of two layers."""
    encoders = resnet(), resnet(seed=1)
    heads = [sequential("lBRlb", 512, 64, 32, seed=i) for i in (1, 2)]
    nets = {
        role: mlp_head(net, head)
        for role, net, head in zip(("student", "teacher"), encoders, heads, strict=True)
    }
    tensors = [trunk(net) for net in encoders]

    def names(prefix):
        return keys.resnet(18, prefix)

    return moco_v3(save, nets, "fc", "lBRl", heads, names, tensors)


@row("moco-v3-vit")
def moco_v3_vit(save):
    """MoCo_ViT of moco-v3 (c349e6e): its ViT-S has 12 heads, ``head`` is a projector of three."""
    encoders = moco_vit(), moco_vit(seed=1)
    heads = [sequential("lBRlBRlb", 384, 64, 64, 32, seed=i) for i in (1, 2)]
    nets = {
        role: dino_net(net, head, "vit_small_patch16_heads12")
        for role, net, head in zip(("student", "teacher"), encoders, heads, strict=True)
    }
    tensors = [net.state_dict().values() for net in encoders]
    return moco_v3(save, nets, "head", "lBRlb", heads, keys.vit, tensors, size=224)


@row("moco-v3-vit-as-deit")
def moco_v3_deit(save):
    """convert_to_deit.py of moco-v3 (c349e6e); nothing tells how many heads it has."""
    net = moco_vit()
    content = {"model": zipped(keys.vit(), net.state_dict().values())}
    nets = {"student": dino_net(net, None, "vit_small_patch16_heads12")}
    query = "arch=vit_small_patch16_heads12"
    return save.sample(content, nets, keys.vit(), size=224, query=query)


# --------------------------------------------------------------------------------------- SimCLR


@row("simclr-v1")
def simclr_v1(save):
    """convert.py and resnet_wider.py of tonylins' simclr-converter (139d3cb).

    ``fc`` is a linear probe whose bias convert.py puts into ``fc.weight.bias``: it stays random.
    """
    net = resnet(50)
    state = net.state_dict()
    names = keys.resnet(50, downsample_first=True)
    content = {"state_dict": {name: state[name] for name in (*names, "fc.weight", "fc.bias")}}
    nets = {"student": Net(pooled(net), None, "resnet50")}
    return save.sample(content, nets, names, "resnet50-1x.pth", normalization=RAW)


@row("simclr-v2")
def simclr_v2(save):
    """convert.py and resnet.py of SimCLRv2-Pytorch (f4c2f41)."""
    net = randomized(SepariusResNet50(), 3)
    assert list(net.state_dict()) == keys.separius_resnet50()
    head = sequential("lBRlBRlB", 2048, 64, 64, 32, seed=1)
    names = keys.separius_resnet50()
    content = {
        "resnet": zipped(names, net.state_dict().values()),
        "head": zipped(keys.separius_head(), head.state_dict().values()),
    }
    nets = {"student": Net(net, after(net, head), "resnet50")}
    return save.sample(content, nets, names[:-2], "r50_1x_sk0.pth", normalization=RAW)


# --------------------------------------------------------------- SwAV, DeepCluster-v2 and SeLa-v2


def swav_state(depth, prototypes):
    """src/resnet50.py of swav (06b1b7c), in DistributedDataParallel."""
    net = resnet(depth)
    width = 512 if depth == 18 else 2048
    projection = sequential("LBRL", width, 64, 32, seed=1)
    layers = [sequential("l", 32, 30, seed=2 + i) for i in range(prototypes)]
    state = zipped(keys.resnet(depth, "module."), trunk(net))
    state |= named("module.projection_head", projection)
    if prototypes == 1:
        state |= named("module.prototypes", layers[0][0])
    else:
        for i, layer in enumerate(layers):
            state |= named(f"module.prototypes.prototypes{i}", layer[0])

    def head(images):
        rows = unit(projection(pooled(net)(images)))
        return torch.cat([layer(rows) for layer in layers], 1)

    return collections.OrderedDict(state), {"student": Net(pooled(net), head, f"resnet{depth}")}


@row("swav", 50, 1)
@row("sela-v2", 18, 3)
@row("deepcluster-v2", 18, 3, both=True)
def swav(save, depth, prototypes):
    """hubconf.py of swav (06b1b7c): the published files are flat."""
    state, nets = swav_state(depth, prototypes)
    names = keys.resnet(depth, "module.")
    return save.sample(state, nets, names, "swav_800ep_pretrain.pth.tar")


@row("swav-training")
def swav_training(save):
    """main_swav.py of swav (06b1b7c)."""
    state, nets = swav_state(18, 1)
    content = {"epoch": 400, "state_dict": state, "optimizer": sgd(state, "mu")}
    scaler = collections.OrderedDict(loss_scale=65536.0, unskipped=1000)
    content["amp"] = collections.OrderedDict(loss_scaler0=scaler)
    return save.sample(content, nets, keys.resnet(18, "module."), "checkpoint.pth.tar")


# ----------------------------------------------------------------------------------- PyContrast


def pycontrast_state(prefix, net, layout, *widths, jigsaw, seed):
    """networks/build_backbone.py and networks/util.py (84f94ea); heads end in a Normalize."""
    head = sequential(layout, *widths, seed=seed)
    state = zipped(keys.resnet(18, f"{prefix}encoder."), trunk(net)) | named(f"{prefix}head", head)
    if jigsaw:
        fc1 = sequential(layout, *widths, seed=seed + 1)
        state |= named(f"{prefix}head_jig.fc1", fc1[0] if len(fc1) == 1 else fc1)
        state |= named(f"{prefix}head_jig.fc2", sequential("L", 9 * 32, 32, seed=seed + 2)[0])
    return state, Net(pooled(net), after(pooled(net), head, unit))


@row("insdis", "L", 512, 32, False, False, both=True)
@row("pirl", "L", 512, 32, True, False)
@row("infomin", "LRL", 512, 512, 32, True, True)
def pycontrast(save, layout, *arguments):
    """learning/contrast_trainer.py save, memory/mem_bank.py of PyContrast (84f94ea)."""
    *widths, jigsaw, momentum = arguments
    options = {"jigsaw": jigsaw, "seed": 10}
    state, net = pycontrast_state("module.", resnet(), layout, *widths, **options)
    contrast = {"memory": torch.rand(128, 32)}
    content = {"model": state, "contrast": contrast, "optimizer": sgd(state), "epoch": 200}
    nets = {"student": net}
    if momentum:
        options["seed"] = 20
        ema, nets["teacher"] = pycontrast_state("", resnet(seed=1), layout, *widths, **options)
        content |= {"model_ema": ema, "amp": {"loss_scaler0": {"loss_scale": 1.0}}}
    names = keys.resnet(18, "module.encoder.")
    return save.sample(content, nets, names, "ckpt_epoch_200.pth")


@row("supcontrast", "encoder.")
@row("supcontrast-parallel", "encoder.module.")
def supcontrast(save, prefix):
    """networks/resnet_big.py, main_supcon.py, util.py save_model of SupContrast (66a8fe5).

    Where there are several GPUs the encoder alone is in a DataParallel.
    """
    net = resnet(small_images=True, padding=1)
    head = sequential("LRL", 512, 512, 32, seed=1)
    names = [name.replace("downsample", "shortcut") for name in keys.resnet(18, prefix)]
    state = zipped(names, trunk(net)) | named("head", head)
    options = argparse.Namespace(model="resnet18", temp=0.07)
    content = {"opt": options, "model": state, "optimizer": sgd(state), "epoch": 1000}
    nets = {"student": Net(pooled(net), after(pooled(net), head, unit), "resnet18_32px")}
    more = {"size": 32, "pixels": 32, "normalization": None}
    return save.sample(content, nets, names, "ckpt_epoch_1000.pth", **more)


# --------------------------------------------------------------------------------------- SimSiam


@row("simsiam", both=True)
def simsiam(save):
    """simsiam/builder.py and main_simsiam.py of simsiam (a7bc177): ``fc`` becomes the projector."""
    net, predictor = resnet(), sequential("lBRL", 32, 16, 32, seed=2)
    head = sequential("lBRlBRLb", 512, 512, 512, 32, seed=1)
    names = keys.resnet(18, "module.encoder.")
    state = zipped(names, trunk(net))
    state |= named("module.encoder.fc", head) | named("module.predictor", predictor)
    content = {"epoch": 100, "arch": "resnet18", "state_dict": state, "optimizer": sgd(state)}
    return save.sample(content, {"student": mlp_head(net, head)}, names, "checkpoint_0099.pth.tar")


# ----------------------------------------------------------- BYOL, Barlow Twins, VICReg and flat


def with_fc(net):
    return {name: net.state_dict()[name] for name in (*keys.resnet(), "fc.weight", "fc.bias")}


@row("byol-converted", True)
@row("byol-flat", False)
def byol(save, contained):
    """download_and_prepare_models.py convert_byol of ssl-transfer (416913f); fc is random there.

    The flat form is the one that is saved after fc was taken off.
    """
    net = resnet(seed=1)
    if contained:
        nets = {"student": Net(pooled(net), net)}
        return save.sample({"state_dict": with_fc(net)}, nets, keys.resnet(), "byol.pth")
    content = zipped(keys.resnet(), trunk(net))
    return save.sample(content, {"student": Net(pooled(net))}, keys.resnet(), "byol.pth")


@row("barlow-twins", 18)
@row("vicreg", 50)
@row("dino-resnet", 50)
def backbone_only(save, depth):
    """barlowtwins/main.py (8e8d284), vicreg/main_vicreg.py (4e12602), dino/hubconf.py (7c446df).

    Each takes off ``fc`` and saves the backbone's state dict alone, as resnet50.pth.
    """
    net = resnet(depth)
    content = collections.OrderedDict(zipped(keys.resnet(depth), trunk(net)))
    nets = {"student": Net(pooled(net), None, f"resnet{depth}")}
    return save.sample(content, nets, keys.resnet(depth), "resnet50.pth")


@row("barlow-twins-training", "lBRlBRl", True, "checkpoint.pth", both=True)
@row("vicreg-training", "LBRLBRl", False, "model.pth")
def barlow_twins(save, layout, norm, name):
    """barlowtwins/main.py (8e8d284), vicreg/main_vicreg.py (4e12602)."""
    net = resnet()
    projector = sequential(layout, 512, 64, 64, 64, seed=1)
    state = zipped(keys.resnet(18, "module.backbone."), trunk(net))
    state |= named("module.projector", projector)
    if norm:
        state |= named("module.bn", sequential("b", 64, seed=2)[0])
    content = {"epoch": 1000, "model": state, "optimizer": sgd(state, "mu", eta=0.001)}
    nets = {"student": mlp_head(net, projector)}
    return save.sample(content, nets, keys.resnet(18, "module.backbone."), name)


# ----------------------------------------------------------------------------------------- DINO


@row("dino-vit")
def dino_vit(save):
    """hubconf.py and vision_transformer.py of dino (7c446df): ViT-S/16, six heads."""
    net = vit(384, 6)
    content = collections.OrderedDict(zipped(keys.vit(), net.state_dict().values()))
    nets = {"student": dino_net(net, None, "vit_small_patch16")}
    return save.sample(
        content,
        nets,
        keys.vit(),
        "dino_deitsmall16_pretrain.pth",
        size=224,
        interpolation="bicubic",
    )


def dino_checkpoint(student, teacher, arch):
    """main_dino.py save_dict of dino (7c446df)."""
    args = argparse.Namespace(
        arch=arch, patch_size=16, out_dim=24, norm_last_layer=True, local_crops_scale=(0.05, 0.4)
    )
    return {
        "student": student,
        "teacher": teacher,
        "optimizer": sgd(student, "exp_avg", lr=np.float64(1e-6)),
        "epoch": 800,
        "args": args,
        "dino_loss": {"center": torch.rand(1, 24)},
        "fp16_scaler": {"scale": 65536.0, "_growth_tracker": 5},
    }


@row("dino-vit-training", both=True)
def dino_vit_training(save):
    """main_dino.py of dino (7c446df): the student in DistributedDataParallel, the teacher not."""
    networks = {"teacher": vit(192, 3, seed=1), "student": vit(192, 3)}
    heads = {"teacher": DinoHead(192, 2), "student": DinoHead(192, 1)}
    states, nets = {}, {}
    for role, prefix in (("teacher", ""), ("student", "module.")):
        names = keys.vit(f"{prefix}backbone.")
        states[role] = zipped(names, networks[role].state_dict().values())
        states[role] |= zipped(keys.dino_head(f"{prefix}head."), heads[role].tensors())
        nets[role] = dino_net(networks[role], heads[role], "vit_tiny_patch16")
    content = dino_checkpoint(states["student"], states["teacher"], "vit_tiny")
    return save.sample(content, nets, keys.vit("backbone."), size=224, interpolation="bicubic")


@row("dino-resnet-training")
def dino_resnet_training(save):
    """main_dino.py of dino (7c446df): with batch norms both are in DistributedDataParallel."""
    networks = {"teacher": resnet(seed=1), "student": resnet()}
    states, nets = {}, {}
    for i, role in enumerate(networks):
        head = DinoHead(512, i)
        names = keys.resnet(18, "module.backbone.")
        states[role] = zipped(names, trunk(networks[role]))
        states[role] |= zipped(keys.dino_head("module.head."), head.tensors())
        nets[role] = mlp_head(networks[role], head)
    content = dino_checkpoint(states["student"], states["teacher"], "resnet18")
    return save.sample(content, nets, keys.resnet(18, "module.backbone."), interpolation="bicubic")


# ------------------------------------------------------------------------------- DeepCluster v1


@row("deepcluster-sobel", True, True)
@row("deepcluster-rgb", False, True)
@row("deepcluster-without-batch-norm", True, False)
def deepcluster(save, sobel, batch_norm):
    """models/alexnet.py and main.py of deepcluster (2d1927e), from before counters existed."""
    net = DeepClusterAlexNet(sobel, batch_norm, 0)
    tensors = [t for n, t in net.state_dict().items() if not n.endswith("num_batches_tracked")]
    names = keys.deepcluster_alexnet(sobel, batch_norm)
    state = collections.OrderedDict(zipped(names, tensors))
    content = {"epoch": 500, "arch": "alexnet", "state_dict": state, "optimizer": sgd(state)}
    architecture = f"alexnet96{'_bn' * batch_norm}{'_sobel' * sobel}"
    nets = {"student": Net(net, after(net, net.top_layer), architecture)}
    names = [name for name in names if not name.startswith("top_layer")]
    return save.sample(content, nets, names, "checkpoint.pth.tar", size=224)


# ------------------------------------------------------------------------------------ Lightning


def lightning(state, **more):
    """pytorch_lightning's Trainer.save_checkpoint."""
    best = {"monitor": "val_acc1", "best_model_score": torch.tensor(0.91), "kth_value": 0.9}
    return {
        "epoch": 99,
        "global_step": 195100,
        "pytorch-lightning_version": "1.9.5",
        "state_dict": collections.OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 100}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_acc1', 'mode': 'max'}": best},
        "optimizer_states": [sgd(state)],
        "lr_schedulers": [{"last_epoch": 99, "_last_lr": [0.0], "base_lrs": [0.3]}],
    } | more


def solo_state(net, prefix, head, **more):
    return zipped(keys.resnet(18, prefix), trunk(net)) | named("projector", head) | more


@row("solo-learn", "backbone.", both=True)
@row("solo-learn-old", "encoder.")
def solo_learn(save, prefix):
    """solo/methods/{base,simclr}.py, main_linear.py (reads both names) of solo-learn (9187ea3)."""
    net, head = resnet(), sequential("LRL", 512, 64, 32, seed=1)
    classifier = named("classifier", sequential("L", 512, 10, seed=2)[0])
    content = lightning(solo_state(net, prefix, head) | classifier)
    nets = {"student": mlp_head(net, head)}
    return save.sample(content, nets, keys.resnet(18, prefix), "simclr-imagenet100-ep=399.ckpt")


@row("solo-learn-byol", both=True)
def solo_learn_byol(save):
    """solo/methods/byol.py and BaseMomentumMethod of solo-learn (9187ea3)."""
    online, momentum = resnet(), resnet(seed=1)
    heads = [sequential("LBRL", 512, 64, 32, seed=i) for i in (1, 2)]
    state = solo_state(online, "backbone.", heads[0])
    state |= named("classifier", sequential("L", 512, 10, seed=3)[0])
    state |= zipped(keys.resnet(18, "momentum_backbone."), trunk(momentum))
    state |= named("momentum_projector", heads[1])
    state |= named("predictor", sequential("LBRL", 32, 64, 32, seed=4))
    nets = {"student": mlp_head(online, heads[0]), "teacher": mlp_head(momentum, heads[1])}
    names = keys.resnet(18, "backbone.")
    return save.sample(lightning(state), nets, names, "byol-imagenet100-ep=399.ckpt")


@row("solo-learn-cifar")
def solo_learn_cifar(save):
    """solo/methods/base.py of solo-learn (9187ea3): a 3x3 stem with padding 2, and no max pool."""
    net = resnet(small_images=True)
    head = sequential("LRL", 512, 64, 32, seed=1)
    classifier = named("classifier", sequential("L", 512, 10, seed=2)[0])
    content = lightning(solo_state(net, "backbone.", head) | classifier)
    return save.sample(
        content,
        {"student": Net(pooled(net), after(pooled(net), head), "resnet18_32px_pad2")},
        keys.resnet(18, "backbone."),
        "simclr-cifar10-ep=999.ckpt",
        size=32,
        pixels=32,
        normalization=None,
    )


def lightly_state(nets, heads):
    """Backbones and heads of lightly's examples by the names of their attributes."""
    state = {}
    for name, net in nets.items():
        state |= zipped(keys.lightly_resnet18(f"{name}."), trunk(net))
    for name, head in heads.items():
        state |= named(f"{name}.layers", head)
    return state


@row("lightly-simclr", both=True)
def lightly_simclr(save):
    """examples/pytorch_lightning/simclr.py, models/modules/heads.py of lightly (e8d317fc)."""
    net, head = resnet(), sequential("lBRlB", 512, 64, 32, seed=1)
    content = lightning(lightly_state({"backbone": net}, {"projection_head": head}))
    names = keys.lightly_resnet18("backbone.")
    return save.sample(content, {"student": mlp_head(net, head)}, names, "epoch=9-step=970.ckpt")


@row("lightly-small-images", both=True)
def lightly_small_images(save):
    """docs/source/getting_started/benchmarks/cifar10_benchmark.py of lightly (e8d317fc)."""
    net, head = lightly_small_resnet(), sequential("lBRlB", 512, 64, 32, seed=1)
    names = keys.lightly_small_resnet18("backbone.")
    state = zipped(names, net.state_dict().values()) | named("projection_head.layers", head)
    nets = {"student": Net(net, after(net, head), "resnet18_32px_linear_stem")}
    more = {"size": 32, "pixels": 32, "normalization": None}
    return save.sample(lightning(state), nets, names, "epoch=9-step=970.ckpt", **more)


@row("lightly-moco", "LRL")
@row("lightly-byol", "lBRL")
def lightly_momentum(save, layout):
    """examples/pytorch_lightning/{moco,byol}.py of lightly (e8d317fc)."""
    nets = {"backbone": resnet(), "backbone_momentum": resnet(seed=1)}
    heads = {
        "projection_head": sequential(layout, 512, 64, 32, seed=1),
        "projection_head_momentum": sequential(layout, 512, 64, 32, seed=2),
    }
    state = lightly_state(nets, heads)
    if layout == "lBRL":
        state |= named("prediction_head.layers", sequential(layout, 32, 64, 32, seed=3))
    found = [mlp_head(*pair) for pair in zip(nets.values(), heads.values(), strict=True)]
    return save.sample(
        lightning(state),
        dict(zip(("student", "teacher"), found, strict=True)),
        keys.lightly_resnet18("backbone."),
        "epoch=9-step=970.ckpt",
    )


@row("lightly-swav")
def lightly_swav(save):
    """examples/pytorch_lightning/swav.py of lightly (e8d317fc): its prototypes have a bias."""
    net, head = resnet(), sequential("lBRL", 512, 64, 32, seed=1)
    state = lightly_state({"backbone": net}, {"projection_head": head})
    state |= named("prototypes.heads.0", sequential("L", 32, 30, seed=2)[0])
    nets = {"student": mlp_head(net, head)}
    names = keys.lightly_resnet18("backbone.")
    return save.sample(lightning(state), nets, names, "epoch=9-step=970.ckpt")


@row("lightly-dino")
def lightly_dino(save):
    """examples/pytorch_lightning/dino.py of lightly (e8d317fc)."""
    networks = {"student": resnet(), "teacher": resnet(seed=1)}
    state, nets = {}, {}
    for i, (role, net) in enumerate(networks.items()):
        head = DinoHead(512, i)
        state |= zipped(keys.lightly_resnet18(f"{role}_backbone."), trunk(net))
        state |= zipped(keys.dino_head(f"{role}_head.", mlp="layers"), head.tensors())
        nets[role] = mlp_head(net, head)
    state["criterion.center"] = torch.rand(1, 1, 24)
    nets = {role: nets[role] for role in ("teacher", "student")}
    names = keys.lightly_resnet18("teacher_backbone.")
    return save.sample(lightning(state), nets, names, "epoch=9-step=970.ckpt")


def benchmark_state(nets, heads):
    """benchmarks/imagenet/resnet50 of lightly (e8d317fc): backbones keep torchvision's names."""
    state = {}
    for name, net in nets.items():
        state |= zipped(keys.resnet(18, f"{name}."), trunk(net))
    for name, head in heads.items():
        state |= named(f"{name}.layers", head)
    linear = sequential("L", 512, 10, seed=9)
    return state | named("online_classifier.classification_head", linear[0])


@row("lightly-benchmark-simclr")
def lightly_benchmark_simclr(save):
    """benchmarks/imagenet/resnet50/simclr.py of lightly (e8d317fc)."""
    net, head = resnet(), sequential("lBRlB", 512, 64, 32, seed=1)
    state = benchmark_state({"backbone": net}, {"projection_head": head})
    content = lightning(state, hyper_parameters={"batch_size_per_device": 128, "num_classes": 10})
    names = keys.resnet(18, "backbone.")
    return save.sample(content, {"student": mlp_head(net, head)}, names, "last.ckpt")


@row("lightly-benchmark-byol")
def lightly_benchmark_byol(save):
    """benchmarks/imagenet/resnet50/byol.py of lightly (e8d317fc)."""
    nets = {"backbone": resnet(), "teacher_backbone": resnet(seed=1)}
    heads = {
        "projection_head": sequential("lBRL", 512, 64, 32, seed=1),
        "teacher_projection_head": sequential("lBRL", 512, 64, 32, seed=2),
    }
    state = benchmark_state(nets, heads)
    state |= named("prediction_head.layers", sequential("lBRL", 32, 64, 32, seed=3))
    found = [mlp_head(*pair) for pair in zip(nets.values(), heads.values(), strict=True)]
    nets = dict(zip(("student", "teacher"), found, strict=True))
    return save.sample(lightning(state), nets, keys.resnet(18, "backbone."), "last.ckpt")


@row("lightly-benchmark-dino")
def lightly_benchmark_dino(save):
    """benchmarks/imagenet/resnet50/dino.py of lightly (e8d317fc): ``backbone`` is the teacher."""
    networks = {"backbone": resnet(seed=1), "student_backbone": resnet()}
    state, nets = benchmark_state(networks, {}), {}
    for i, (role, net) in enumerate(networks.items()):
        head = DinoHead(512, i)
        prefix = role.replace("backbone", "projection_head.")
        state |= zipped(keys.dino_head(prefix, mlp="layers"), head.tensors())
        nets["student" if "student" in role else "teacher"] = mlp_head(net, head)
    state["criterion.center"] = torch.rand(1, 1, 24)
    return save.sample(lightning(state), nets, keys.resnet(18, "backbone."), "last.ckpt")


def omegaconf_config(modules):
    """What OmegaConf's DictConfig pickles: nodes that know their parent, and types."""
    base, containers, nodes = modules
    metadata = class_in(base, "ContainerMetadata")
    config, node = class_in(containers, "DictConfig")(), class_in(nodes, "AnyNode")()
    about = metadata()
    about.__dict__ |= {
        "ref_type": typing.Any,
        "object_type": dict,
        "optional": True,
        "flags": {},
        "resolver_cache": collections.defaultdict(dict),
    }
    node.__dict__ |= {"_metadata": about, "_parent": config, "_val": "resnet18"}
    config.__dict__ |= {"_metadata": about, "_parent": None, "_content": {"name": node}}
    return config


@row("lightning", both=True)
def lightning_model(save):
    """A LightningModule that holds a torchvision network, with hyper-parameters of Hydra."""
    net = resnet()
    names = keys.resnet(18, "model.")
    state = zipped([*names, "model.fc.weight", "model.fc.bias"], with_fc(net).values())
    nets = {"student": Net(pooled(net), net)}
    libraries = "omegaconf.base", "omegaconf.dictconfig", "omegaconf.nodes"
    with passing_modules(*libraries) as modules:
        config = omegaconf_config([modules[name] for name in libraries])
        content = lightning(state, hparams_name="cfg", hyper_parameters=config)
        sample = save.sample(content, nets, names, "last.ckpt")
    sample.content = lightning(state)
    return sample


# ----------------------------------------------------------------------------- plain and wrapped


@row("torchvision", both=True)
def torchvision_flat(save):
    """The state dict of torchvision's resnet18."""
    net = resnet()
    return save.sample(with_fc(net), {"student": Net(pooled(net), net)}, keys.resnet())


@row("torchvision-wide")
def torchvision_wide(save):
    """torchvision's wide_resnet50_2, of which only the 3x3 convolutions are wider."""
    net = windowed_resnet(50, 1, width_per_group=128)
    state = net.state_dict()
    names = keys.resnet(50)
    content = {name: state[name] for name in (*names, "fc.weight", "fc.bias")}
    nets = {"student": Net(pooled(net), net, "wide_resnet50_2")}
    return save.sample(content, nets, names)


@row("ddp", "module.")
@row("compiled", "_orig_mod.")
@row("ddp-of-compiled", "module._orig_mod.")
@row("compiled-ddp", "_orig_mod.module.")
def wrapped(save, prefix):
    """Prefixes of DistributedDataParallel and torch.compile."""
    net = resnet()
    content = {prefix + name: tensor for name, tensor in with_fc(net).items()}
    nets = {"student": Net(pooled(net), net)}
    return save.sample(content, nets, keys.resnet(18, prefix))


@row("timm", ("state_dict",))
@row("timm-compiled", ("state_dict",), "_orig_mod.")
@row("timm-ema", ("state_dict", "state_dict_ema"), both=True)
@row("model-ema", ("model", "model_ema"))
def timm_training(save, containers, prefix=""):
    """timm/utils/checkpoint_saver.py; ``model``, ``model_ema`` and args in DeiT's main.py."""
    content = {"epoch": 299, "arch": "resnet18", "metric": np.float64(71.3), "version": 2}
    content["args"] = argparse.Namespace(model="resnet18", opt="lamb", data_dir="/data")
    nets = {}
    for i, container in enumerate(containers):
        net = resnet(seed=i)
        content[container] = {prefix + name: t for name, t in with_fc(net).items()}
        nets["teacher" if i else "student"] = Net(pooled(net), net)
    content["optimizer"] = sgd(content[containers[0]])
    content["amp_scaler"] = {"scale": 65536.0, "_growth_tracker": 3}
    nets = dict(reversed(nets.items()))
    return save.sample(content, nets, keys.resnet(18, prefix), "model_best.pth.tar")


@row("safetensors")
def safetensors_flat(save):
    """A safetensors file, as huggingface hubs have them."""
    net = resnet()
    path = save.folder / "model.safetensors"
    save_file(with_fc(net), path, {"format": "pt"})
    return Sample(path, {"student": Net(pooled(net), net)}, keys.resnet())


@row("safetensors-shards")
def safetensors_shards(save):
    """huggingface_hub's save_torch_state_dict: an index beside its shards."""
    net, weight_map = resnet(), {}
    items = list(with_fc(net).items())
    for i, part in enumerate((items[:70], items[70:]), start=1):
        name = f"model-{i:05d}-of-00002.safetensors"
        save_file(dict(part), save.folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(dict(part), name)
    total = sum(t.numel() * t.element_size() for _, t in items)
    path = save.folder / "model.safetensors.index.json"
    path.write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
    )
    return Sample(path, {"student": Net(pooled(net), net)}, keys.resnet())


@row("cifar-resnet", both=True)
def cifar_resnet(save):
    """trainer.py and resnet.py of akamaster's pytorch_resnet_cifar10 (not among the clones)."""
    net = CifarResNet20(0)
    names = keys.cifar_resnet20("module.")
    content = {"state_dict": zipped(names, net.state_dict().values()), "best_prec1": 91.73}
    nets = {"student": Net(net, after(net, net.linear), "cifar_resnet20")}
    return save.sample(
        content, nets, names[:-2], "resnet20.th", size=32, pixels=32, normalization=None
    )
