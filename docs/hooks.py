"""What the site asks of its pages: nothing is fetched from elsewhere, and links lead somewhere.

`<!-- commands -->` in a page becomes the help of every command, as click writes it.

A page links a file of the repository as `../tasks/README.md`, which works where the repository is
browsed. The site has no such files, so there the link's text is shown alone.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = "<!-- commands -->"
WIDTH = 80  # columns of help: what a page has room for
_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_FETCHED = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]*"""
)


def on_startup(**_: Any) -> None:
    """Overlook one complaint of the API reference: it can't follow `__all__ = [*NAMES, ...]`."""
    griffe = logging.getLogger("mkdocs.plugins.griffe")
    griffe.addFilter(lambda record: "Unsupported item in" not in record.getMessage())


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Take links out that lead to files beside docs/. Raises PluginError for a file not there."""
    folder = posixpath.dirname(page.file.src_uri)

    def plain(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, found[2]))
        if path.startswith("docs/"):
            return found[0]
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_uri} links {path}, and there is no such file")
        text = found[1].strip("`")
        return found[1] if text.rstrip("/") == path.rstrip("/") else f"{found[1]} (`{path}`)"

    markdown = _LINK.sub(plain, markdown)
    if COMMANDS in markdown:
        from autoresearch.cli import cli

        markdown = markdown.replace(COMMANDS, "\n".join(helps(cli, "autoresearch", None)))
    return markdown


def helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """A heading and the help of a command and all below it, as lines of Markdown."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    text = command.get_help(context).replace("\b", "")
    yield f"## {context.command_path}\n\n```text\n{text}\n```\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            assert below is not None
            yield from helps(below, each, context)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Raises PluginError for a page that would fetch something from another host."""
    found = _FETCHED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} fetches from elsewhere: {found[0]}")
    return output
