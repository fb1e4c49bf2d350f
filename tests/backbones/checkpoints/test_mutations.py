"""Damaged checkpoints: the same features, or an error that says so; never something between."""

import hashlib
import io

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors

from featkit.backbones.resolve import load_backbone
from featkit.errors import CheckpointError
from tests.backbones.checkpoints.sources import CifarResNet20

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def network():
    return CifarResNet20(seed=1).eval()


@pytest.fixture(scope="module")
def state(network):
    return {f"module.{name}": tensor for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutations")


def serialize(content, kind):
    if kind == "safetensors":
        return save_safetensors(content)
    buffer = io.BytesIO()
    torch.save({"state_dict": content}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def same_or_refused(path, network, options=""):
    """Whether it loaded; wrong features fail the test."""
    try:
        module = load_backbone(f"{path}{options}").module
    except CheckpointError:
        return False
    with torch.inference_mode():
        assert torch.allclose(module(IMAGES), network.linear(network(IMAGES)), rtol=1e-4, atol=1e-5)
    return True


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_an_intact_file_loads(folder, network, state, kind):
    path = folder / kind
    path.write_bytes(serialize(state, kind))
    assert same_or_refused(path, network)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file(folder, network, state, kind):
    whole = serialize(state, kind)
    path = folder / f"{kind}-short"

    @FEW
    @given(st.integers(0, len(whole) - 1))
    def check(size):
        path.write_bytes(whole[:size])
        assert not same_or_refused(path, network)

    check()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_flipped_byte(folder, network, state, kind):
    """Zip files carry checksums; for the others the file's own is given."""
    whole = serialize(state, kind)
    path = folder / f"{kind}-flipped"
    options = "" if kind == "zip" else f"?sha256={hashlib.sha256(whole).hexdigest()}"

    @FEW
    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    def check(position, mask):
        damaged = bytearray(whole)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        assert not same_or_refused(path, network, options) or kind == "zip"

    check()


def rename(state, name, draw):
    letter = draw(st.integers(0, len(name) - 1))
    new = name[:letter] + draw(st.sampled_from("xyz019._/")) + name[letter + 1 :]
    return {(new if key == name else key): tensor for key, tensor in state.items()}


def drop(state, name, _draw):
    return {key: tensor for key, tensor in state.items() if key != name}


def reshape(state, name, draw):
    tensor = state[name]
    new = draw(st.sampled_from([tensor[None], tensor.flatten(), torch.cat([tensor.flatten()] * 2)]))
    return state | {name: new}


@pytest.mark.parametrize("change", [rename, drop, reshape])
def test_a_changed_state_dict(folder, network, state, change):
    path = folder / change.__name__

    @FEW
    @given(st.data())
    def check(data):
        name = data.draw(st.sampled_from(sorted(state)))
        changed = change(state, name, data.draw)
        path.write_bytes(serialize(changed, "zip"))
        loaded = same_or_refused(path, network)
        if not name.endswith("num_batches_tracked"):
            assert loaded == (changed.keys() == state.keys() and same_shapes(changed))

    def same_shapes(changed):
        return all(changed[key].shape == state[key].shape for key in state)

    check()
