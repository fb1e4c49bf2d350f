"""TreeNets against single networks of torch's own layers, and what the paper says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import featkit
from featkit.backbones.architectures import build
from featkit.backbones.base import Backbone
from featkit.backbones.layer_names import classifier_path
from featkit.backbones.nets.treenet.joins import make_join
from featkit.backbones.nets.treenet.pooling import AttentionPool, RecurrentAttentionPool, attend
from featkit.backbones.nets.treenet.shape import Join, TreeShape, tree_name, tree_shape
from featkit.backbones.nets.treenet.tree import TreeNet, encoder_parameters, image_parts, widened
from featkit.backbones.probe import default_tap, probe, resolve_taps
from featkit.backbones.taps import Tap, TapRunner
from featkit.errors import BackboneError

TINY = (4, 6, 8)
ORDERS = ("norm-conv", "conv-norm")
FORMS = ("_by_leaf", "_grouped")

JOINS: tuple[Join, ...] = get_args(Join)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tree_of(form: str = "_by_leaf", seed: int = 0, **parts: object) -> TreeNet:
    """A small tree whose normalisations are not the identity, so that their place shows."""
    torch.manual_seed(seed)
    tree = TreeNet(TreeShape(**{"leaves": 3, "channels": TINY, **parts}), num_classes=5).eval()
    for module in tree.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    tree.paths.forward = getattr(tree.paths, form)
    return tree


class Leaf(nn.Module):
    """A leaf as sec. 5.1 or 3.2.1 has it, of layers that know of no groups."""

    def __init__(self, order: str, pool: nn.Module, channels: tuple[int, ...] = TINY) -> None:
        super().__init__()
        inputs = (3, *channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 2) for i, o in zip(inputs, channels, strict=True)
        )
        normed = channels[:-1] if order == "norm-conv" else channels
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for c in normed)
        width = channels[-1]
        self.norm, self.pool, self.order = nn.LayerNorm(width), pool, order
        self.dense1, self.dense2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        for number, conv in enumerate(self.convs):
            if self.order == "norm-conv":
                x = conv(x if number == 0 else self.norms[number - 1](x))
            else:
                x = self.norms[number](conv(x))
            x = functional.relu(x)
        return self.dense2(functional.relu(self.dense1(self.norm(self.pool(x).flatten(1)))))


def reference(tree: TreeNet) -> list[Leaf]:
    """Its leaves, each with a copy of the weights that are its own."""
    pool = {"avg": nn.AdaptiveAvgPool2d(1), "max": nn.AdaptiveMaxPool2d(1)}[tree.shape.pool]
    leaves = []
    for number in range(tree.shape.leaves):
        leaf = Leaf(tree.shape.order, pool, tree.shape.channels).to(tree.head.weight.dtype)
        with torch.no_grad():
            for own, wanted in zip(leaf.parameters(), of_leaf(tree, number), strict=True):
                own.copy_(wanted.view(own.shape))
        leaves.append(leaf)
    return leaves


def of_leaf(tree: TreeNet, number: int, gradients: bool = False) -> list[Tensor]:
    """What one leaf has of every weight, or of its gradient: convolutions, norms, and the end."""
    weights = [*tree.paths.parameters(), *tree.ends.parameters()]
    found = [weight.grad if gradients else weight.detach() for weight in weights]
    return [each.chunk(tree.shape.leaves)[number] for each in found if each is not None]


def test_a_leaf_has_the_parameters_of_the_papers_channels() -> None:
    """2 x 2 x inputs x outputs and biases: 3·4·8 + 8 … 48·4·64 + 64, which are 21,256."""
    convolutions = [104, 8 * 4 * 16 + 16, 16 * 4 * 32 + 32, 32 * 4 * 48 + 48, 48 * 4 * 64 + 64]
    assert sum(convolutions) == 21_256
    before, behind = 2 * (8 + 16 + 32 + 48), 2 * (8 + 16 + 32 + 48 + 64)
    end = 2 * 64 + 2 * (64 * 64 + 64)
    for leaves in (1, 32):
        dense = leaves * 64 * 256 + 256 + 2 * (256 * 256 + 256)
        for shape, norms, join in (
            (TreeShape(leaves), before, dense),
            (TreeShape(leaves, order="conv-norm"), behind, dense),
            (TreeShape(leaves, "average"), before, 0),
            (TreeShape(leaves, "attention"), before, 4 * (64 * 64 + 64)),
        ):
            assert encoder_parameters(shape) == leaves * (21_256 + norms + end) + join
    head = build("treenet", num_classes=7).module.head
    assert (head.in_features, head.out_features) == (256, 7)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_it_is_networks_of_their_own_forward_and_backward(form: str, order: str) -> None:
    tree = tree_of(form, order=order)
    leaves = reference(tree)
    images, weights = normal(4, 3, 9, 7, seed=1), normal(4, 3, 8, seed=2)
    ours, theirs = tree.leaves(images), torch.stack([leaf(images) for leaf in leaves], 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for number, leaf in enumerate(leaves):
        found = of_leaf(tree, number, gradients=True)
        for own, parameter in zip(found, leaf.parameters(), strict=True):
            assert parameter.grad is not None
            difference = (own.reshape(-1) - parameter.grad.reshape(-1)).norm()
            assert difference <= 1e-4 * parameter.grad.norm()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_in_float64_it_is_them_to_ten_digits(form: str, order: str) -> None:
    tree = tree_of(form, order=order, pool="max").double()
    images = normal(2, 3, 6, 8).double()
    wanted = torch.stack([leaf(images) for leaf in reference(tree)], 1)
    torch.testing.assert_close(tree.leaves(images), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_leaves_do_not_see_each_other(form: str) -> None:
    tree = tree_of(form)
    images = normal(2, 3, 8, 8)
    before = tree.leaves(images)
    before[:, 1].square().sum().backward()
    for number in range(3):
        moved = [bool(grad.any()) for grad in of_leaf(tree, number, gradients=True)]
        # what norms before ReLUs add to dead channels may move nothing: one that moves is enough
        assert any(moved) == (number == 1)
        assert sum(moved) >= (12 if number == 1 else 0)
    with torch.no_grad():
        for weight in of_leaf(tree, 2):
            weight.add_(0.3)
    after = tree.leaves(images)
    assert torch.equal(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2], atol=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_an_image_a_leaf_is_each_leaf_on_its_own(form: str) -> None:
    tree = tree_of(form)
    images = normal(2, 3, 3, 7, 9)
    wanted = [leaf(images[:, number]) for number, leaf in enumerate(reference(tree))]
    torch.testing.assert_close(tree.leaves(images), torch.stack(wanted, 1), rtol=1e-4, atol=1e-5)
    same = images[:, :1].expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(tree.leaves(same), tree.leaves(images[:, 0]))


def permuted(tree: TreeNet, order: list[int]) -> TreeNet:
    """The same tree, its leaves in another order."""
    other = tree_of(seed=9, join=tree.shape.join)
    other.load_state_dict(tree.state_dict())
    with torch.no_grad():
        for number, wanted in enumerate(order):
            for own, weight in zip(of_leaf(other, number), of_leaf(tree, wanted), strict=True):
                own.copy_(weight)
    return other


@pytest.mark.parametrize("join", JOINS)
def test_which_joins_ask_for_the_order_of_leaves(join: Join) -> None:
    tree, images = tree_of(join=join), normal(2, 3, 8, 8)
    other = permuted(tree, [2, 0, 1])
    torch.testing.assert_close(other.leaves(images), tree.leaves(images)[:, [2, 0, 1]])
    found, wanted = (net.join(net.leaves(images)) for net in (other, tree))
    assert found.shape == (2, tree.features)
    is_same = torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert is_same == (join in ("average", "attention", "max"))
    torch.testing.assert_close(tree(images), tree.head(wanted))


def test_joins_by_hand() -> None:
    leaves = torch.tensor([[[1.0, -2.0, 0.0, 0.0], [3.0, -4.0, 0.0, 1.0]]])
    wanted = {
        "average": [2.0, -3.0, 0.0, 0.5],
        "max": [3.0, -2.0, 0.0, 1.0],
        "concat": [1.0, -2.0, 0.0, 0.0, 3.0, -4.0, 0.0, 1.0],
    }
    for kind, row in wanted.items():
        join, features = make_join(kind, 2, 4)
        assert join(leaves).tolist() == [row]
        assert features == len(row)


def test_attention_joins_by_dot_products() -> None:
    """Four heads by torch's own product, with the weights of the layer."""
    torch.manual_seed(0)
    join, _ = make_join("attention", 3, 8)
    nn.init.normal_(join.attention.in_proj_bias)
    nn.init.normal_(join.attention.out_proj.bias)
    leaves = normal(2, 3, 8)
    inner = functional.linear(leaves, join.attention.in_proj_weight, join.attention.in_proj_bias)
    parts = [part.view(2, 3, 4, 2).transpose(1, 2) for part in inner.chunk(3, 2)]
    said = functional.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(2, 3, 8)
    wanted = join.attention.out_proj(said).mean(1)
    for mode in (True, False):
        torch.testing.assert_close(join.train(mode)(leaves), wanted, rtol=1e-4, atol=1e-6)


def test_the_dense_join_has_three_layers() -> None:
    torch.manual_seed(0)
    join, features = make_join("dense", 3, 8)
    first, second, third = (m for m in join.modules() if isinstance(m, nn.Linear))
    x = normal(2, 3, 8).reshape(2, 24)
    inner = (second((first(x)).clamp(min=0))).clamp(min=0)
    torch.testing.assert_close(join(x.view(2, 3, 8)), third(inner))
    assert features == third.out_features == 256


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("size", [(4, 4), (5, 11), (20, 6)])
def test_pools_of_any_size_are_those_of_torch(pool: str, size: tuple[int, int]) -> None:
    tree, images = tree_of(pool=pool), normal(2, 3, *size)
    wanted = torch.stack([leaf(images) for leaf in reference(tree)], 1)
    torch.testing.assert_close(tree.leaves(images), wanted, rtol=1e-4, atol=1e-5)


def test_attention_is_torchs_product_of_a_query_and_all_positions() -> None:
    positions, query = normal(2, 3, 7, 4), normal(2, 3, 4, seed=1)
    wanted = functional.scaled_dot_product_attention(query[:, :, None], positions, positions)
    torch.testing.assert_close(attend(positions, query), wanted[:, :, 0], rtol=1e-4, atol=1e-6)
    pool = AttentionPool(3, 4)
    same = attend(positions, pool.query.expand(2, -1, -1))
    assert torch.equal(pool(positions), same)
    torch.testing.assert_close(pool(positions[:, 2:], first=2), same[:, 2:])


def test_a_query_of_nothing_is_a_mean_and_a_long_one_a_choice() -> None:
    positions = normal(2, 1, 6, 4)
    pool = AttentionPool(1, 4)
    nn.init.zeros_(pool.query)
    torch.testing.assert_close(pool(positions), positions.mean(2))
    pool.query.data[0, 1] = 1e6
    best = positions[:, 0, :, 1].argmax(1)
    torch.testing.assert_close(pool(positions)[:, 0], positions[torch.arange(2), 0, best])


def test_three_looks_at_one_position_are_torchs_recurrent_layer() -> None:
    """Whatever is asked, there is nothing else to see."""
    torch.manual_seed(0)
    pool = RecurrentAttentionPool(2, 4)
    positions = normal(3, 2, 1, 4)
    for leaf in range(2):
        layer = nn.GRU(4, 4)
        layer.load_state_dict({f"{n}_l0": p for n, p in pool.units[leaf].state_dict().items()})
        _, state = layer(positions[:, leaf, 0].expand(3, -1, -1))
        torch.testing.assert_close(pool(positions)[:, leaf], state[0])
        torch.testing.assert_close(pool(positions[:, leaf:][:, :1], leaf)[:, 0], state[0])


def test_what_is_asked_next_depends_on_what_was_seen() -> None:
    torch.manual_seed(0)
    pool, positions = RecurrentAttentionPool(1, 4), normal(3, 1, 9, 4)
    for question in pool.questions:
        nn.init.normal_(question.weight, 0.0, 2.0)
    found = pool(positions)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pool(positions[:, :, order]), found)
    nn.init.zeros_(pool.questions[0].weight)
    assert not torch.allclose(pool(positions), found, atol=1e-3)
    pool.units[0].bias_hh.data[4:8] = 1e6  # the gate that keeps the state, which starts at 0
    assert not pool(positions).any()


@pytest.mark.parametrize("pool", ["attention", "recurrent"])
def test_learned_pools_are_the_same_in_both_forms(pool: str) -> None:
    one, other = (tree_of(form, pool=pool) for form in FORMS)
    images = normal(2, 3, 5, 9)
    torch.testing.assert_close(one.leaves(images), other.leaves(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 9), (32, 5)])
def test_images_that_convolutions_eat_up_are_refused(size: tuple[int, int]) -> None:
    tree = build("treenet(leaves=2)").module
    tree.leaves(torch.zeros(1, 3, 6, 6))
    said = f"images of {size[0]} x {size[1]} pixels: 5 convolutions need 6 or more"
    with pytest.raises(BackboneError, match=said):
        tree(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("leaves", [4, 5, 7, 8, 9, 32, 48])
@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_parts_of_half_the_sides_cover_the_image(leaves: int, size: tuple[int, int]) -> None:
    h, w = size
    places = torch.arange(h * w).view(1, 1, h, w)
    parts = image_parts(places, leaves)
    assert parts.shape == (1, leaves, 1, -(-h // 2), -(-w // 2))
    assert set(parts.flatten().tolist()) == set(range(h * w))
    for part in parts[0, :, 0]:  # a window: the next column is the next place, and so on
        assert bool((part.diff(dim=1) == 1).all() and (part.diff(dim=0) == w).all())
    each = torch.stack([places + 1000 * leaf for leaf in range(leaves)], 1)
    own = image_parts(each, leaves) - 1000 * torch.arange(leaves).view(1, -1, 1, 1, 1)
    assert torch.equal(own, parts)
    if leaves in (4, 9):
        assert len({part.tobytes() for part in parts[0].numpy()}) == leaves


def test_leaves_of_parts_see_parts() -> None:
    tree = tree_of(view="part", leaves=4)
    images = normal(2, 3, 10, 8)
    corners = [images[:, :, t : t + 5, lf : lf + 4] for t in (0, 5) for lf in (0, 4)]
    wanted = [leaf(part) for leaf, part in zip(reference(tree), corners, strict=True)]
    torch.testing.assert_close(tree.leaves(images), torch.stack(wanted, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_a_leaf_comes_out_as_a_network(order: str) -> None:
    tree, images = tree_of(order=order), normal(2, 3, 9, 7)
    for number in range(3):
        single = tree.leaf_network(number)
        torch.testing.assert_close(
            single(images), tree.leaves(images)[:, number], rtol=1e-4, atol=1e-5
        )
    with torch.no_grad():
        tree.paths.convolutions[0].weight.mul_(0.5)  # the weights are shared
    torch.testing.assert_close(single(images), tree.leaves(images)[:, 2], rtol=1e-4, atol=1e-5)
    with pytest.raises(BackboneError, match="no leaf 3: there are 3, from 0"):
        tree.leaf_network(3)
    with pytest.raises(BackboneError, match="pool max: only leaves with averages come apart"):
        tree_of(pool="max").leaf_network(0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("treenet", TreeShape()),
        ("treenet(leaves=8,join=average)", TreeShape(8, "average")),
        ("treenet(channels=4-6)", TreeShape(channels=(4, 6))),
        ("treenet(leaf=timm:resnet10t,view=part)", TreeShape(leaf="timm:resnet10t", view="part")),
        ("treenet(pool=recurrent,order=conv-norm)", TreeShape(pool="recurrent", order="conv-norm")),
    ],
)
def test_names_say_what_is_not_the_default(name: str, shape: TreeShape) -> None:
    assert tree_name(shape) == name
    assert tree_shape(name) == shape


@pytest.mark.parametrize("name", ["cifar_resnet8", "treenets", "timm:treenet", "treenet(leaves=2"])
def test_other_names_are_no_trees(name: str) -> None:
    assert tree_shape(name) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("treenet()", "a TreeNet has no ''"),
        ("treenet(leafs=8)", "a TreeNet has no 'leafs': did you mean leaf or leaves"),
        ("treenet(leaves=many)", "leaves is 'many'; give whole numbers"),
        ("treenet(leaves)", "leaves is ''; give whole numbers"),
        ("treenet(leaves=0)", "a TreeNet has 1 to 128 leaves, not 0"),
        ("treenet(leaves=129)", "a TreeNet has 1 to 128 leaves, not 129"),
        ("treenet(channels=8-x)", "channels is '8-x'; give whole numbers"),
        ("treenet(channels=8-0)", r"channels \(8, 0\): give one number or more, above 0"),
        ("treenet(join=sum)", "join 'sum': use dense, average, attention, max, concat"),
        ("treenet(pool=min)", "pool 'min': use avg, max, attention, recurrent"),
        ("treenet(order=norm)", "order 'norm': use norm-conv, conv-norm"),
        ("treenet(view=half)", "view 'half': use whole, part"),
        ("treenet(leaf=cifar_resnet8,channels=8-16)", "pool, order and channels are those of"),
        ("treenet(leaf=cifar_resnet9)", "no network 'cifar_resnet9': did you mean"),
        ("treenet(join=attention,channels=4-6)", "leaves of a multiple of 4 dimensions, not 6"),
    ],
)
def test_what_no_tree_has_is_said(name: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        build(name)


@pytest.mark.parametrize(
    ("leaves", "join"), [*((8, join) for join in JOINS), (32, "dense"), (48, "dense")]
)
def test_the_baseline_has_as_many_parameters(leaves: int, join: Join) -> None:
    shape = TreeShape(leaves, join)
    one = widened(shape)
    assert (one.leaves, one.join) == (1, "dense")
    assert encoder_parameters(one) == pytest.approx(encoder_parameters(shape), rel=0.02)
    factors = [wide / c for wide, c in zip(one.channels, shape.channels, strict=True)]
    assert max(factors) / min(factors) < 1.05


def test_where_no_baseline_matches_it_is_said() -> None:
    with pytest.raises(BackboneError, match="only trees of convolutions are matched by one"):
        widened(TreeShape(leaf="cifar_resnet8"))
    with pytest.raises(BackboneError, match="no single pathway has the [0-9,]+ parameters"):
        widened(TreeShape(1, "average", channels=(1,)))


def test_leaves_start_apart_and_the_seed_decides() -> None:
    """Each has a distinct random initialisation (sec. 3)."""
    name = "treenet(leaves=4,channels=4-8,pool=recurrent)"
    first, again, other = (build(name, seed).module for seed in (0, 0, 1))
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two, _ in pairs)
    drawn = [(one, three) for one, _, three in pairs if not bool((one == one.flatten()[0]).all())]
    assert len(drawn) > 10
    assert not any(torch.equal(one, three) for one, three in drawn)
    weights = [*(c.weight for c in first.paths.convolutions), first.ends.linear1.weight]
    for weight in (*weights, first.ends.linear2.weight, first.paths.pool.query):
        parts = weight.detach().chunk(4)
        assert not any(torch.equal(parts[i], parts[j]) for i in range(4) for j in range(i))


def test_other_networks_are_leaves_with_weights_of_their_own() -> None:
    trees = [build("treenet(leaves=2,leaf=cifar_resnet8,join=average)", s).module for s in (0, 1)]
    firsts = [leaf.conv1.weight for tree in trees for leaf in tree.paths.networks]
    assert not any(torch.equal(firsts[i], firsts[j]) for i in range(4) for j in range(i))
    images = normal(2, 3, 12, 12)
    tree, resnet = trees[0], build("cifar_resnet8", num_classes=64).module
    for number, leaf in enumerate(tree.paths.networks):
        resnet.load_state_dict(
            {**leaf.state_dict(), "linear.weight": torch.eye(64), "linear.bias": torch.zeros(64)}
        )
        features = resnet(images)
        torch.testing.assert_close(tree.paths(images)[:, number], features)
        single = tree.leaf_network(number)
        torch.testing.assert_close(single(images), tree.leaves(images)[:, number])
    each = torch.stack([images, images.flip(3)], 1)
    torch.testing.assert_close(tree.paths(each)[:, 1], resnet(images.flip(3)))
    with pytest.raises(BackboneError, match="no leaf 2"):
        tree.leaf_network(2)


def test_a_leaf_without_a_classifier_is_refused() -> None:
    with pytest.raises(BackboneError, match="it ends in no linear layer to take away"):
        build("treenet(leaves=2,leaf=torchvision:squeezenet1_0)")


@pytest.fixture
def tapped() -> Callable[..., tuple[TreeNet, dict[str, Tensor]]]:
    """A tree, and the rows of some of its taps."""

    def read(form: str, images: Tensor, *taps: str) -> tuple[TreeNet, dict[str, Tensor]]:
        network = build("treenet(leaves=3,channels=4-6-8-10-12,join=average)", seed=3)
        network.module.paths.forward = getattr(network.module.paths, form)
        backbone = Backbone("tree", "tree", network)
        outputs = probe(backbone)
        found = resolve_taps(backbone, list(taps), outputs)
        assert default_tap(backbone, outputs) == Tap("join", "none")
        runner = TapRunner(network.module, found, {p: o.calls for p, o in outputs.items()})
        try:
            with torch.no_grad():
                return network.module, dict(zip(taps, runner(images), strict=True))
        finally:
            runner.close()

    return read


@pytest.mark.parametrize("form", FORMS)
def test_taps_are_what_leaves_give_on_their_own(
    form: str, tapped: Callable[..., tuple[TreeNet, dict[str, Tensor]]]
) -> None:
    images = normal(2, 3, 9, 7)
    names = [f"conv{number}:none" for number in range(1, 6)]
    tree, rows = tapped(form, images, *names, "conv2", "leaf.2", "join", "head")
    for number, channels in enumerate((4, 6, 8, 10, 12), 1):
        maps = rows[f"conv{number}:none"]
        assert maps.shape == (2, 3 * channels, 9 - number, 7 - number)
        for leaf in range(3):
            layers = list(tree.leaf_network(leaf))
            relus = [place for place, m in enumerate(layers) if isinstance(m, nn.ReLU)]
            wanted = nn.Sequential(*layers[: relus[number - 1] + 1])(images)
            own = maps[:, leaf * channels : (leaf + 1) * channels]
            torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows["conv2"], rows["conv2:none"].mean((2, 3)))
    with torch.no_grad():  # without any tap
        leaves = tree.leaves(images)
        assert torch.equal(rows["leaf.2"], leaves[:, 2])
        assert torch.equal(rows["join"], leaves.mean(1))
        assert torch.equal(rows["head"], tree(images))


@pytest.mark.parametrize("join", JOINS)
def test_its_features_are_what_is_joined(join: Join) -> None:
    network = build(f"treenet(leaves=2,channels=4-8,join={join})")
    backbone = Backbone("tree", "tree", network)
    assert default_tap(backbone, probe(backbone)) == Tap("join", "none")
    assert classifier_path(network.module) == "head"


def test_a_tree_of_other_networks_is_not_called_as_they_are() -> None:
    backbone = featkit.load_backbone("treenet(leaves=2,leaf=timm:test_resnet)?weights=none")
    assert backbone.name.startswith("treenet")
