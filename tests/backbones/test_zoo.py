"""The published checkpoints: their addresses, their names, and how one is fetched."""

import dataclasses
import hashlib
import http.server
import io
import re
import threading
from urllib.parse import urlsplit

import pytest
import torch
import torchvision

from featkit.backbones import zoo
from featkit.backbones.resolve import load_backbone
from featkit.backbones.zoo import ZOO, list_zoo, zoo_entry, zoo_file
from featkit.errors import BackboneError, DownloadError

# arXiv:2110.10293, appendix A.3
PAPER = {
    "barlow_twins_rn50": "https://dl.fbaipublicfiles.com/vissl/model_zoo/barlow_twins/barlow_twins_32gpus_4node_imagenet1k_1000ep_resnet50.torch",
    "simclr_rn50_200ep": "https://dl.fbaipublicfiles.com/vissl/model_zoo/simclr_rn50_200ep_simclr_8node_resnet_16_07_20.a816c0ef/model_final_checkpoint_phase199.torch",
    "simclr_rn50_400ep": "https://dl.fbaipublicfiles.com/vissl/model_zoo/simclr_rn50_400ep_simclr_8node_resnet_16_07_20.36b338ef/model_final_checkpoint_phase399.torch",
    "simclr_rn50_800ep": "https://dl.fbaipublicfiles.com/vissl/model_zoo/simclr_rn50_800ep_simclr_8node_resnet_16_07_20.7e8feed1/model_final_checkpoint_phase799.torch",
    "simclr_rn50w2_1000ep": "https://dl.fbaipublicfiles.com/vissl/model_zoo/simclr_rn50w2_1000ep_simclr_8node_resnet_16_07_20.e1e3bbf0/model_final_checkpoint_phase999.torch",
    "supervised_rn50": "https://download.pytorch.org/models/resnet50-19c8e357.pth",
    "supervised_rn50_caffe2": "https://dl.fbaipublicfiles.com/vissl/model_zoo/converted_vissl_rn50_supervised_in1k_caffe2.torch",
    "supervised_rn50_105ep": "https://dl.fbaipublicfiles.com/vissl/model_zoo/sup_rn50_in1k_ep105_supervised_8gpu_resnet_17_07_20.733dbdee/model_final_checkpoint_phase208.torch",
    "pirl_rn50_800ep": "https://dl.fbaipublicfiles.com/vissl/model_zoo/pirl_jigsaw_4node_pirl_jigsaw_4node_resnet_22_07_20.34377f59/model_final_checkpoint_phase799.torch",
    "rotnet_rn50_105ep_in22k": "https://dl.fbaipublicfiles.com/vissl/model_zoo/converted_vissl_rn50_rotnet_in22k_ep105.torch",
    "swav_rn50_800ep": "https://dl.fbaipublicfiles.com/vissl/model_zoo/swav_in1k_rn50_800ep_swav_8node_resnet_27_07_20.a0a6b676/model_final_checkpoint_phase799.torch",
}


def test_the_networks_of_the_paper_are_here_to_the_letter():
    listed = {e.name: e.url for e in list_zoo() if e.source == "arXiv:2110.10293, A.3"}
    assert listed == PAPER


def test_what_the_paper_does_not_say_is_noted():
    wide = zoo_entry("simclr_rn50w2_1000ep")
    assert (wide.network, wide.epochs) == ("ResNet-50 ×2", 1000)
    assert "4,096" in wide.note
    assert "ImageNet-22k" in zoo_entry("rotnet_rn50_105ep_in22k").note


def test_entries_are_regular():
    entries = list_zoo()
    assert len(entries) == len(ZOO) == 95
    assert len({entry.url for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.name == entry.name.lower()
        address = urlsplit(entry.url)
        assert address.scheme == "https"
        assert address.path.endswith((".torch", ".pth", ".pth.tar"))
        assert entry.url.isascii()
        assert not re.search(r"//|\s|[{}]", address.path)
        assert entry.source.startswith(("arXiv:", "github.com/"))
        assert re.fullmatch(r"ResNet-\d+( ×[245])?|ViT-[SB]/(8|16)|AlexNet", entry.network)
        assert len(entry.note) < 90


@pytest.mark.parametrize(
    ("name", "method", "network", "epochs", "note"),
    [
        ("barlow_twins_rn50", "Barlow Twins", "ResNet-50", 1000, ""),
        ("moco_v2_rn50_800ep", "MoCo v2", "ResNet-50", 800, ""),
        ("dino_vits16", "DINO", "ViT-S/16", None, ""),
        ("dino_vits16_full", "DINO", "ViT-S/16", None, "the whole state of training"),
        ("vicreg_rn200w2", "VICReg", "ResNet-200 ×2", None, ""),
        ("npid_pp_rn50w2_800ep", "NPID++", "ResNet-50 ×2", 800, "32,000 negatives"),
        ("deepcluster_alexnet", "DeepCluster", "AlexNet", None, "starts with Sobel filters"),
        (
            "jigsaw_rn50_105ep_perm2k_in22k",
            "Jigsaw",
            "ResNet-50",
            105,
            "2,000 permutations; trained on ImageNet-22k",
        ),
    ],
)
def test_a_name_says_what_it_is(name, method, network, epochs, note):
    entry = zoo_entry(name)
    assert (entry.method, entry.network, entry.epochs, entry.note) == (
        method,
        network,
        epochs,
        note,
    )


def test_only_published_checksums_are_here():
    checked = {entry.name: entry.sha256 for entry in list_zoo() if entry.sha256}
    assert checked == {"supervised_rn50": "19c8e357", "supervised_rn101": "5d3b4d8f"}
    for name, digits in checked.items():
        assert zoo_entry(name).url.endswith(f"-{digits}.pth")


def test_patterns():
    assert list_zoo() == list_zoo("*") == list_zoo("")
    names = [entry.name for entry in list_zoo("SimCLR_rn50_")]
    assert names == [f"simclr_rn50_{epochs}ep" for epochs in (100, 200, 400, 800, 1000)]
    assert [entry.name for entry in list_zoo("zoo:dino_vit?16")] == ["dino_vitb16", "dino_vits16"]
    assert list_zoo("rn5") != []
    assert list_zoo("rn5?") == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("simclr_rn50_300ep", "did you mean simclr_rn50_"),
        ("barlow", "there is barlow_twins_rn50, barlow_twins_rn50_300ep, barlow_twins_rn50_1000ep"),
        ("simsiam", "there are 95, none like it"),
        ("", "there are 95, none like it"),
    ],
)
def test_unknown_names(name, meant):
    for look in (zoo_entry, zoo_file):
        with pytest.raises(BackboneError, match=rf"no published .* zoo:{name}: {meant}.*--zoo"):
            look(name)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Put a file on a server of ours in the place of a published checkpoint."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEATKIT_CACHE", str(tmp_path / "cache"))
    asked, bodies = [], {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(bodies[self.path])))
            self.end_headers()
            self.wfile.write(bodies[self.path])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()

    def move(name, body=b"weights", **changes):
        entry = zoo_entry(name)
        path = urlsplit(entry.url).path
        bodies[path] = body
        url = f"http://127.0.0.1:{server.server_port}{path}"
        moved = dataclasses.replace(entry, url=url, **changes)
        monkeypatch.setattr(zoo, "ZOO", {n: ZOO[n] for n in ZOO} | {name: moved})
        return asked

    yield move
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("simclr_rn50_200ep", "simclr_rn50_200ep.torch"),
        ("simclr_rn50_400ep", "simclr_rn50_400ep.torch"),
        ("moco_v2_rn50_200ep", "moco_v2_rn50_200ep.torch"),
        ("moco_v2_rn50_800ep", "moco_v2_rn50_800ep.pth.tar"),
        ("vicreg_rn50", "vicreg_rn50.pth"),
    ],
)
def test_a_checkpoint_is_fetched_once(publish, tmp_path, name, file):
    asked = publish(name)
    for _ in range(2):
        path = zoo_file(name)
        assert path == tmp_path / "cache" / "zoo" / file
        assert path.read_bytes() == b"weights"
    assert asked == [urlsplit(zoo_entry(name).url).path]


def test_a_published_checksum_is_checked(publish):
    publish("supervised_rn50")
    with pytest.raises(DownloadError, match="not with 19c8e357"):
        zoo_file("supervised_rn50")
    publish("supervised_rn50", sha256=hashlib.sha256(b"weights").hexdigest()[:8])
    assert zoo_file("supervised_rn50").name == "supervised_rn50.pth"


def test_a_name_resolves_to_the_network_of_the_file(publish, monkeypatch):
    """As Barlow Twins publishes its backbone: names of torchvision, without a head."""
    net = torchvision.models.resnet50(weights=None).eval()
    net.fc = torch.nn.Identity()
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    asked = publish("barlow_twins_rn50", buffer.getvalue())
    backbone = load_backbone("zoo:barlow_twins_rn50")
    assert backbone.name == "barlow_twins_rn50"
    assert backbone.network.architecture == "torchvision:resnet50"
    assert backbone.network.checkpoint.sha256 == hashlib.sha256(buffer.getvalue()).hexdigest()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(backbone.module(images), net(images))
    assert load_backbone("mine=zoo:barlow_twins_rn50?size=96").preprocessing.size == (96, 96)
    assert len(asked) == 1
    for spec in ("zoo:barlow_twins_rn50?revision=a", "zoo:barlow_twins_rn50?weights=none"):
        with pytest.raises(BackboneError):
            load_backbone(spec)
