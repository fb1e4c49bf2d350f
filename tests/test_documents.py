"""JSON that nobody should have written, and messages with names that nobody should have given."""

import json

import pytest

from featkit.documents import DEPTH, parse_json
from featkit.errors import FeatkitError


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'"\\ud800"', b'{"\\udfff": 1}',
     b"1" * 5000],
)  # fmt: skip
def test_what_is_no_json_is_one_error(content):
    with pytest.raises(ValueError, match="."):
        parse_json(content)


def test_a_depth_that_later_code_stands():
    deepest = b"[" * (DEPTH - 1) + b'{"a": 1}' + b"]" * (DEPTH - 1)
    assert json.dumps(parse_json(deepest)).encode() == deepest
    for deeper in (b"[%b]" % deepest, b'{"a": %b}' % deepest, b"[" * 900 + b"]" * 900):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(deeper)


def test_pairs_of_surrogates_are_text():
    assert parse_json(b'["\\ud83d\\ude00"]') == ["\N{GRINNING FACE}"]


def test_messages_are_one_line_that_steers_no_terminal():
    message = str(FeatkitError("a\x1b[2J\nb\u202e\0\udcff ü"))
    assert message == "a [2J b    ü"
    assert str(FeatkitError("x" * 10_000 + "y" * 1200)) == "x" * 1200 + " … " + "y" * 1200
