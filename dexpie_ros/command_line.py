"""What all commands of `dexpie` have in common: defaults in the help, and `--set KEY=VALUE`.

A command that has settings names them once, to :func:`add_set`; `--set help` then lists their keys.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

Settings = Callable[[argparse.Namespace], Any]
"""Options read so far -> the command's config, before any ``--set``."""


class Parser(argparse.ArgumentParser):
    """Help names every default that its text does not name itself; so do all subcommands' helps."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": _Formatter, **options})


class _Formatter(argparse.HelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        unsaid = default in (None, "", [], argparse.SUPPRESS) or isinstance(default, bool)
        takes_one = action.option_strings or action.nargs == argparse.OPTIONAL
        if unsaid or not takes_one or "default" in text:
            return text
        return f"{text}; default: %(default)s" if text else "default: %(default)s"

    def _format_action(self, action: argparse.Action) -> str:
        if action.help is None:  # else its default would not be shown either
            action.help = self._get_help_string(action) or None
        return super()._format_action(action)


def add_set(
    parser: argparse.ArgumentParser, settings: Settings, what: str = "a setting", after: str = ""
) -> None:
    """Add ``--set KEY=VALUE``, any number of times; ``after`` names options that settings follow."""
    order = f" (after {after})" if after else ""
    parser.add_argument(
        "--set", action=_Set, const=settings, default=[], metavar="KEY=VALUE",
        help=f"{what}; any number of times. --set help lists all keys with their values{order}",
    )  # fmt: skip


class _Set(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values == "help":  # like --help it needs no option that the command does need
            from dexpie_ros import config as configs  # emulators, which need none, start sooner

            print("\n".join(configs.listed(self.const(namespace))), flush=True)
            parser.exit()
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values])
