"""``featkit completion``: commands that a shell completes when Tab is pressed."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click
from click.shell_completion import (
    BashComplete,
    add_completion_class,
    get_completion_class,
    shell_complete,
    split_arg_string,
)

from featkit_cli.render import note

VARIABLE = "_FEATKIT_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

_BASH = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
        dir)
            compopt -o filenames 2>/dev/null
            mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -d -- "$value") ;;
        file)
            compopt -o filenames 2>/dev/null
            mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$value") ;;
        plain)
            [[ $value == *[:=,/] ]] && compopt -o nospace 2>/dev/null
            COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_CUR="$2" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class WholeWords(BashComplete):
    """Bash, which takes ``:`` and ``=`` for ends of words, where featkit does not."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the one that it is in."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        while words and "=" in words[0]:  # of the environment
            words.pop(0)
        is_begun = bool(line) and not line[-1].isspace()
        incomplete = words.pop() if words and is_begun else ""
        # what bash replaces is the end of the word
        self._replaced = os.environ.get("COMP_CUR", incomplete).lstrip(":=")
        self._word = incomplete
        return words[1:], incomplete

    def format_completion(self, item: Any) -> str:
        """Return what stands in place of the end of the word."""
        kept = ""
        if self._word.endswith(self._replaced):
            kept = self._word[: len(self._word) - len(self._replaced)]
        _, equals, value = kept.partition("=") if kept.startswith("-") else ("", "", kept)
        kept = value if equals else kept
        return f"{item.type},{item.value.removeprefix(kept)}"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    r"""Print the script that makes SHELL complete featkit's commands when Tab is pressed.

    \b
    bash:  featkit completion bash > ~/.local/share/bash-completion/completions/featkit
    zsh:   featkit completion zsh > ~/.zfunc/_featkit      (a folder in $fpath)
    fish:  featkit completion fish > ~/.config/fish/completions/featkit.fish

    The first time it takes some seconds: every command is looked at once, so that Tab is quick.
    """
    from featkit_cli.main import cli

    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - the choices are click's
    script = made(cli, {}, "featkit", VARIABLE).source()
    look_at_all(cli)
    click.echo(script)


def look_at_all(cli: click.Group) -> None:
    """Remember every command's options, and every name of a network or a set of images."""
    from featkit_cli.main import known_commands
    from featkit_cli.remembered import backbones, data_sets

    context = click.Context(cli, info_name="featkit", resilient_parsing=True)
    for name in known_commands():
        try:
            command = cli.get_command(context, name)
            if isinstance(command, click.Group):
                for method in command.list_commands(context):
                    command.get_command(context, method)
        except Exception as error:  # noqa: BLE001 - of whoever wrote the plugin
            note(f"options of {name} are not completed: {error}")
    backbones()
    data_sets()


def complete(cli: click.Command) -> NoReturn:
    """Answer a shell, and exit; what goes wrong is no matter of whoever pressed Tab."""
    try:
        status = shell_complete(cli, {}, "featkit", VARIABLE, os.environ[VARIABLE])
    except Exception:  # noqa: BLE001
        sys.exit(1)
    sys.exit(status)
