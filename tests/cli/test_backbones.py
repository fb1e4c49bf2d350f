"""``featkit backbones`` as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from featkit_cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["backbones", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_zoo_is_an_aligned_table(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "--zoo", "simclr_rn50w2")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "checkpoint                method  network       epochs  source",
        "zoo:simclr_rn50w2_100ep   SimCLR  ResNet-50 ×2     100  vissl",
        "zoo:simclr_rn50w2_1000ep  SimCLR  ResNet-50 ×2   1,000  arXiv:2110.10293",
        "    the “1000 epoch” SimCLR of arXiv:2110.10293; 4,096 features",
        "",
        "next: featkit extract SOURCE -b zoo:simclr_rn50w2_100ep -o STORE",
    ]


def test_the_whole_zoo_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--zoo")
    assert status == 0
    lines = out.splitlines()
    assert sum(line.startswith("zoo:") for line in lines) == 95
    assert max(map(len, lines)) <= 100


def test_networks_with_their_library(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "cifar_resnet2?")
    assert (status, err) == (0, "")
    assert out.splitlines()[0].split() == ["backbone", "weights"]
    assert out.splitlines()[1].startswith("cifar_resnet20?weights=none")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nothing_like_it"], "no backbone matches 'nothing_like_it'; try .*, as in resnet"),
        (
            ["--zoo", "nothing_like_it"],
            "no published checkpoint matches 'nothing_like_it'; try .*, as in simclr",
        ),
    ],
)
def test_no_match_is_an_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert re.fullmatch(f"featkit: {what}\n", err)


def test_the_zoo_is_listed_without_heavy_imports() -> None:
    code = (
        "import sys\nfrom featkit_cli.main import main\n"
        "try: main(['backbones', '--zoo', 'dino'])\nexcept SystemExit: pass\n"
        "print({'torch', 'timm', 'numpy', 'h5py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nset()\n")
