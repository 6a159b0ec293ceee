"""Write the tables of README.md from the files that `autoresearch bench --output` wrote.

    autoresearch bench all --output benchmarks/results/MACHINE.json
    python benchmarks/tables.py

One section per file, in the place between two marks. Files of other benchmarks are left alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from autoresearch.bench import results

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- made by tables.py: begin -->", "<!-- made by tables.py: end -->"


def tables(folder: Path) -> str:
    """A section per results file of `bench` in the folder, by name."""
    sections = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("format") == results.FORMAT:
            sections.append(f"### {path.stem}\n\n{results.markdown(document)}")
    return "\n".join(sections)


def with_tables(text: str, made: str) -> str:
    """The text with what is between the marks replaced. Raises ValueError without marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN} and {END} are missing")
    return f"{before}{begin}\n\n{made}\n{end}{after}"


def main() -> None:
    """Rewrite README.md, or say that it is as it should be."""
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    made = with_tables(text, tables(HERE / "results"))
    if made == text:
        print(f"{readme} is up to date", file=sys.stderr)
    else:
        readme.write_text(made, encoding="utf-8")
        print(f"{readme} written", file=sys.stderr)


if __name__ == "__main__":
    main()
