"""What a chart is: a Vega-Lite spec without its data, and the same in words and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoresearch.report.looks import config

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """A column of a chart's table: a heading, the field, and Python's format of numbers."""

    title: str
    field: str
    form: str = ""

    @property
    def numeric(self) -> bool:
        """Whether cells are aligned to the right."""
        return bool(self.form)

    def cell(self, row: Mapping[str, Any]) -> str:
        """The text of one cell, "" for what isn't known."""
        value = row.get(self.field)
        if value is None:
            return ""
        return format(value, self.form) if self.form else str(value)


@dataclass(frozen=True)
class Chart:
    """`spec` names its data sets, `data` has them. `summary` is the alternative text."""

    name: str
    title: str
    summary: str
    spec: Mapping[str, Any]
    data: Mapping[str, Rows]
    columns: tuple[Column, ...] = ()
    rows: Rows = field(default=())

    def picture(self, dark: bool = False, width: int = 1000, height: int = 0) -> dict[str, Any]:
        """The complete spec for a file: with data, theme, title and size in pixels."""
        made = {**self.spec, "width": width, "config": config(dark), "datasets": dict(self.data)}
        made["title"] = {"text": self.title, "subtitle": self.summary}
        made["padding"] = 20
        if height:
            made["height"] = height
        return made


def spec(**parts: Any) -> dict[str, Any]:
    """A Vega-Lite spec as wide as its place."""
    base = {"$schema": SCHEMA, "width": "container", "height": 300}
    return {**base, "autosize": {"type": "fit-x", "contains": "padding"}, **parts}


def axis(title: str, form: str = "", **more: Any) -> dict[str, Any]:
    """An axis with a title and d3's format."""
    return {"title": title, **({"format": form} if form else {}), **more}
