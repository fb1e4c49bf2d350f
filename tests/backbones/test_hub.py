"""Downloads from servers on this machine: torch's hub cache and a small Hugging Face hub."""

import contextlib
import gc
import hashlib
import http.server
import json
import os
import threading
import warnings

import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torchvision import models

from featkit.backbones.architectures import build
from featkit.backbones.base import hash_tensors
from featkit.backbones.hub import explain_download_errors, torchvision_pretrained
from featkit.backbones.resolve import load_backbone
from featkit.errors import BackboneError, DownloadError
from tests.processes import run_forked

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Server:
    """Files by path; remembers what was asked for, and can go away."""

    def __init__(self, files):
        self.files, self.asked = files, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.asked.append(f"{self.command} {self.path}")
                body = outer.files.get(self.path)
                self.send_response(404 if body is None else 200)
                if body is None:
                    self.send_header("X-Error-Code", "EntryNotFound")
                else:
                    self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                revision = self.path.split("/resolve/")[-1].split("/")[0]
                self.send_header("X-Repo-Commit", COMMITS.get(revision, revision))
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body or b"")

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self):
        if self.thread.is_alive():
            self.http.shutdown()
            self.thread.join()
            self.http.server_close()


@pytest.fixture(autouse=True)
def sockets_of_failed_downloads():
    """urllib leaves the socket of a refused answer to the garbage collector, which warns."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def start(files):
            server = Server(files)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def published(tmp_path, monkeypatch, serve):
    """torchvision's squeezenet1_1, whose published weights are ours and on our server."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    state = build("torchvision:squeezenet1_1", seed=9).module.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    body = (tmp_path / "weights.pth").read_bytes()
    path = f"/squeezenet-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    server = serve({path: body})
    weights = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    value = type(weights.value)(server.url + path, weights.transforms, weights.meta)
    monkeypatch.setattr(weights, "_value_", value)
    return server, hash_tensors(state)


def test_torchvision_weights_are_fetched_once(published):
    server, wanted = published
    backbone = load_backbone("torchvision:squeezenet1_1")
    assert backbone.weights == wanted
    assert backbone.identity()["architecture"] == "torchvision:squeezenet1_1"
    server.stop()
    named = load_backbone("torchvision:squeezenet1_1?weights=IMAGENET1K_V1")
    assert named.weights == wanted
    assert len(server.asked) == 1


def test_torchvision_weights_with_another_hash_are_refused(published, capfd):
    server, _ = published
    (path,) = server.files
    server.files[path] = server.files[path][:-1] + b"x"
    with pytest.raises(DownloadError, match="torchvision:squeezenet1_1: .*invalid hash value"):
        load_backbone("torchvision:squeezenet1_1")
    assert not capfd.readouterr().out  # stdout is for results alone


@pytest.mark.parametrize("state", ["down", "empty"])
def test_a_torchvision_failure_is_one_line(published, state):
    server, _ = published
    server.files.clear()
    if state == "down":
        server.stop()
    with pytest.raises(DownloadError) as caught:
        load_backbone("torchvision:squeezenet1_1")
    message = str(caught.value)
    assert message.startswith("torchvision:squeezenet1_1: the weights could not be fetched (")
    assert ("refused" if state == "down" else "404") in message
    assert message.endswith("or give a checkpoint file instead")
    assert "\n" not in message


def test_unknown_torchvision_weights_are_told_apart():
    with pytest.raises(BackboneError, match="has no weights 'V1': there is IMAGENET1K_V1"):
        torchvision_pretrained("squeezenet1_1", "V1")


def test_errors_of_ours_pass_through():
    with pytest.raises(BackboneError, match="mine"), explain_download_errors("x"):
        raise BackboneError("mine")
    with pytest.raises(DownloadError, match=r"x: .* \(a\); connect"), explain_download_errors("x"):
        raise OSError("a\nb")
    with pytest.raises(DownloadError, match=r"\(KeyError\)"), explain_download_errors("x"):
        raise KeyError


def test_the_hub_is_silent_only_meanwhile():
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    with contextlib.suppress(DownloadError), explain_download_errors("x"):
        assert logging.get_verbosity() > before
        raise OSError
    assert logging.get_verbosity() == before


@pytest.fixture(scope="module")
def hub_files(tmp_path_factory):
    """Two revisions of a CIFAR ResNet and of a small timm network."""
    tmp = tmp_path_factory.mktemp("hub")
    files, digests = {}, {}
    for seed, revision in ((1, "main"), (2, "v1")):
        state = build("cifar_resnet20", seed=seed).module.state_dict()
        files[f"/me/cifar/resolve/{revision}/sub/net.safetensors"] = save(state)
        digests["cifar", revision] = hash_tensors(state)
        parts = {"a.safetensors": {}, "b.safetensors": {}}
        for number, (name, tensor) in enumerate(state.items()):
            list(parts.values())[number % 2][name] = tensor
        names = {name: file for file, part in parts.items() for name in part}
        folder = f"/me/cifar/resolve/{revision}/parts"
        files |= {f"{folder}/{file}": save(part) for file, part in parts.items()}
        files[f"{folder}/net.safetensors.index.json"] = json.dumps({"weight_map": names}).encode()
        files[f"{folder}/bad.safetensors.index.json"] = b"{}"
        torch.manual_seed(seed)
        module = timm.create_model("mobilenetv3_small_050", num_classes=4)
        config = {
            "architecture": "mobilenetv3_small_050",
            "num_classes": 4,
            "pretrained_cfg": {
                "input_size": [3, 96, 96],
                "interpolation": "bicubic",
                "crop_pct": 0.75,
                "mean": [0.25, 0.5, 0.75],
                "std": [0.5, 0.5, 0.25],
                "num_classes": 4,
                "classifier": "classifier",
                "first_conv": "conv_stem",
            },
        }
        files[f"/me/net/resolve/{revision}/config.json"] = json.dumps(config).encode()
        save_file(module.state_dict(), tmp / "net.safetensors")
        files[f"/me/net/resolve/{revision}/model.safetensors"] = (
            tmp / "net.safetensors"
        ).read_bytes()
        digests["net", revision] = hash_tensors(module.state_dict())
    for name, commit in COMMITS.items():
        files |= {p.replace(f"/{name}/", f"/{commit}/"): b for p, b in list(files.items())}
    return files, digests


SCRIPT = """
import sys, time, warnings
warnings.simplefilter("error")
from featkit.backbones.resolve import load_backbone
from featkit.errors import FeatkitError
time.sleep = lambda seconds: None  # the hub's client waits 23 s between its tries
for spec in sys.argv[1:]:
    try:
        backbone = load_backbone(spec)
    except FeatkitError as error:
        print(type(error).__name__, error)
    else:
        print(backbone.name, backbone.network.architecture, backbone.weights, end=" ")
        print(backbone.preprocessing.size[0], backbone.preprocessing.mean[0])
"""


def run(home, url, *specs, **variables):
    """Load backbones in a fresh process that knows only our hub."""
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **variables,
    }
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        if name not in variables:
            environment.pop(name, None)
    done = run_forked(SCRIPT, *specs, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_the_hub_is_asked_for_the_revision_and_then_its_cache(tmp_path, serve, hub_files):
    files, digests = hub_files
    server = serve(dict(files))
    file = "hf:me/cifar/sub/net.safetensors?arch=cifar_resnet20"
    bare = file.partition("?")[0]  # the architecture is read off the tensors
    specs = [bare, f"{file}&revision=v1", "hf:me/net", "hf:me/net?revision=v1"]
    wanted = [
        f"net cifar_resnet20 {digests['cifar', 'main']} 32 0.485",
        f"net cifar_resnet20 {digests['cifar', 'v1']} 32 0.485",
        f"net timm:mobilenetv3_small_050 {digests['net', 'main']} 96 0.25",
        f"net timm:mobilenetv3_small_050 {digests['net', 'v1']} 96 0.25",
    ]
    assert len(set(wanted)) == 4
    found, stderr = run(tmp_path, server.url, *specs)
    assert found == wanted
    assert stderr == ""
    fetched = [line.split()[1] for line in server.asked if line.startswith("GET")]
    pinned = [path for path in fetched if "/v1/" in path or COMMITS["v1"] in path]
    assert [path.rpartition("/")[2] for path in pinned] == ["net.safetensors", "model.safetensors"]
    assert "HEAD /me/net/resolve/v1/config.json" in server.asked

    server.stop()
    again, stderr = run(tmp_path, server.url, *specs, HF_HUB_OFFLINE="1")
    assert again == wanted
    assert stderr == ""


def test_a_checkpoint_in_parts_comes_from_one_revision(tmp_path, serve, hub_files):
    files, digests = hub_files
    server = serve(dict(files))
    index = "hf:me/cifar/parts/net.safetensors.index.json"
    found, stderr = run(tmp_path, server.url, index, f"{index}@v1", f"{index}?revision=v1")
    assert [line.split()[2] for line in found] == [
        digests["cifar", revision] for revision in ("main", "v1", "v1")
    ]
    assert stderr == ""
    bad = index.replace("net.", "bad.")
    (line,), _ = run(tmp_path, server.url, bad)
    assert line == f"CheckpointError {bad}: not an index of safetensors files (no weight_map)"
    server.files = {path: body for path, body in files.items() if "b.safetensors" not in path}
    (line,), _ = run(tmp_path / "other", server.url, index)
    assert line.startswith("DownloadError hf:me/cifar/parts/b.safetensors: the weights could not")


def test_hub_failures_are_one_line_each(tmp_path, serve, hub_files):
    server = serve({})
    specs = [
        "hf:me/cifar/net.safetensors?arch=cifar_resnet20",
        "hf:me/net?revision=v9",
        "timm:mobilenetv3_small_050.lamb_in1k",
    ]
    answers, stderr = run(tmp_path, server.url, *specs)
    server.stop()
    more, chatter = run(tmp_path, server.url, *specs)
    offline, silence = run(tmp_path, server.url, *specs, HF_HUB_OFFLINE="1")
    assert stderr == chatter == silence == ""
    for lines in (answers, more, offline):
        assert len(lines) == len(specs)
        for spec, line in zip(specs, lines, strict=True):
            name = spec.partition("?")[0]
            assert line.startswith(f"DownloadError {name}: the weights could not be fetched (")


def test_a_hub_file_of_another_network(tmp_path, serve, hub_files):
    server = serve(dict(hub_files[0]))
    (line,), _ = run(tmp_path, server.url, "hf:me/cifar/sub/net.safetensors?arch=cifar_resnet32")
    assert line.startswith("CheckpointError")
    assert "not the weights of cifar_resnet32" in line
