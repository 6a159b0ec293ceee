"""What a file says, without how it is spelled: two edits that mean the same have one digest.

Python is compared by its syntax tree: comments and layout don't matter, docstrings do, nor do the
names of local variables inside functions. Other text is compared without trailing spaces, blank
lines and runs of spaces (indentation stays: it means something in YAML). Anything else, by bytes.
"""

from __future__ import annotations

import ast
import functools
import hashlib

from autoresearch.engine.statements import KEPT, cut, parsed

# A function that looks its variables up by name would notice a renaming.
_LOOKS_UP_NAMES = {"locals", "vars", "dir", "eval", "exec"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def digest(path: str, data: bytes) -> str:
    """SHA-256 (hex) over the meaning of a file."""
    if path.endswith((".py", ".pyi")):
        said = _python(data)
        if said is not None:
            return _sha("py", said.encode("utf-8", "surrogatepass"))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _sha("bytes", data)
    if "\0" in text:
        return _sha("bytes", data)
    return _sha("text", "\n".join(filter(None, map(_line, text.splitlines()))).encode())


def _sha(kind: str, data: bytes) -> str:
    return hashlib.sha256(kind.encode() + b"\0" + data).hexdigest()


def _line(line: str) -> str:
    body = line.strip()
    return line[: len(line) - len(line.lstrip())] + " ".join(body.split()) if body else ""


def _python(data: bytes) -> str | None:
    """The syntax tree as text, local variables renamed; None if it isn't Python."""
    before, after = ast.dump(ast.Module([ast.Pass()], [])).split(ast.dump(ast.Pass()))
    said, count = [], 0
    for piece in cut(data) or (data,):
        found = _renamed(piece, count)
        if found is None:
            return None
        text, count = found
        if text:
            said.append(text)
    return before + ", ".join(said) + after


@functools.lru_cache(KEPT)
def _renamed(piece: bytes, count: int) -> tuple[str, int] | None:
    """Statements as text, given the functions before them; and how many there are after them."""
    tree = parsed(piece)
    if tree is None:
        return None
    renamer = _Renamer(count)
    try:
        renamer.visit(tree)
        return ", ".join(map(ast.dump, tree.body)), renamer.count
    except RecursionError:
        return None


class _Bound(ast.NodeVisitor):
    """Names that one function binds: `free` ones may be renamed, `fixed` ones may not."""

    def __init__(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.names: dict[str, None] = {}  # in order of first binding
        self.fixed: set[str] = {a.arg for a in _arguments(function.args)}
        self.by_name = False
        for statement in function.body:
            self.visit(statement)

    def free(self) -> list[str]:
        """Names that nobody outside the function can see."""
        return [] if self.by_name else [n for n in self.names if n not in self.fixed]

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in _LOOKS_UP_NAMES:
            self.by_name = True
        if isinstance(node.ctx, (ast.Store, ast.Del)):
            self.names.setdefault(node.id)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.names.setdefault(node.name)
        super().generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.fixed |= set(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.fixed |= set(node.names)

    def visit_alias(self, node: ast.alias) -> None:
        self.fixed.add(node.asname or node.name.split(".")[0])

    def generic_visit(self, node: ast.AST) -> None:
        # Names in patterns (match statements, 3.10) and type parameters stand in plain fields.
        for name in ("name", "rest"):
            value = getattr(node, name, None)
            if isinstance(value, str):
                self.fixed.add(value)
        if isinstance(node, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            self._enter_scope(node)
        elif isinstance(node, _COMPREHENSIONS):
            self._enter_comprehension(node)
        else:
            super().generic_visit(node)

    def _enter_scope(self, node: ast.AST) -> None:
        """Another scope binds its own names; but one that looks names up sees ours."""
        inner = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        self.by_name = self.by_name or bool(inner & _LOOKS_UP_NAMES)
        for default in _outer_expressions(node):
            self.visit(default)

    def _enter_comprehension(self, node: ast.AST) -> None:
        """Its loop variables are its own; a walrus in it binds in the function."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr) and isinstance(inner.target, ast.Name):
                self.names.setdefault(inner.target.id)
            elif isinstance(inner, ast.Name) and inner.id in _LOOKS_UP_NAMES:
                self.by_name = True


class _Renamer(ast.NodeTransformer):
    """Gives each function's local variables the names `<function>.<number>`, scope by scope."""

    def __init__(self, count: int = 0) -> None:
        self._scopes: list[dict[str, str | None]] = []  # innermost last; None: not renamed
        self.count = count  # of functions so far

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, _FUNCTIONS):
            return self._function(node)
        if isinstance(node, ast.Lambda):
            for default in _outer_expressions(node):
                self.visit(default)
            self._inside(dict.fromkeys((a.arg for a in _arguments(node.args)), None), [node.body])
            return node
        if isinstance(node, ast.ClassDef):
            return self._class(node)
        if isinstance(node, _COMPREHENSIONS):
            return self._comprehension(node)
        if isinstance(node, ast.Name):
            node.id = self._renamed(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            node.name = self._renamed(node.name)
        elif isinstance(node, ast.Nonlocal):
            node.names = [self._renamed(name) for name in node.names]
        return self.generic_visit(node)

    def _renamed(self, name: str) -> str:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name] or name
        return name

    def _inside(self, scope: dict[str, str | None], nodes: list[ast.AST]) -> None:
        self._scopes.append(scope)
        for node in nodes:
            self.visit(node)
        self._scopes.pop()

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        for outer in _outer_expressions(node):
            self.visit(outer)
        bound = _Bound(node)
        number = self.count
        self.count += 1
        scope: dict[str, str | None] = {
            name: f"<{number}.{at}>" for at, name in enumerate(bound.free())
        }
        # `nonlocal x` is fixed here yet belongs to an outer function, whose name for it counts.
        outside = {n for s in node.body for n in _declared(s, ast.Nonlocal)}
        known = [n for n in (*bound.names, *bound.fixed) if n not in scope and n not in outside]
        scope.update(dict.fromkeys(known, None))
        self._inside(scope, list(node.body))
        return node

    def _class(self, node: ast.ClassDef) -> ast.AST:
        """Its names are attributes; a method sees past them to the functions around the class."""
        for outer in _outer_expressions(node):
            self.visit(outer)
        own = {name for statement in node.body for name in _stored(statement)}
        for statement in node.body:
            if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
                self.visit(statement)
            else:
                self._inside(dict.fromkeys(own, None), [statement])
        return node

    def _comprehension(self, node: ast.AST) -> ast.AST:
        walrus = {
            inner.target.id
            for inner in ast.walk(node)
            if isinstance(inner, ast.NamedExpr) and isinstance(inner.target, ast.Name)
        }
        own = {
            name.id
            for generator in node.generators  # type: ignore[attr-defined]
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        self.visit(node.generators[0].iter)  # type: ignore[attr-defined]  # evaluated outside
        self._scopes.append(dict.fromkeys(own - walrus, None))
        self.generic_visit(node)
        self._scopes.pop()
        return node


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return found + [extra for extra in (arguments.vararg, arguments.kwarg) if extra]


def _outer_expressions(node: ast.AST) -> list[ast.AST]:
    """What stands in a definition but is evaluated outside it: defaults, decorators, bases."""
    found: list[ast.AST] = []
    arguments = getattr(node, "args", None)
    if isinstance(arguments, ast.arguments):
        found += [d for d in (*arguments.defaults, *arguments.kw_defaults) if d is not None]
        found += [a.annotation for a in _arguments(arguments) if a.annotation]
    found += getattr(node, "decorator_list", [])
    if getattr(node, "returns", None) is not None:
        found.append(node.returns)  # type: ignore[attr-defined]
    if isinstance(node, ast.ClassDef):
        found += [*node.bases, *node.keywords]
    return found


def _stored(statement: ast.AST) -> set[str]:
    """Names that a statement of a class body binds, without those of functions in it."""
    if isinstance(statement, ast.Name):
        return {statement.id} if isinstance(statement.ctx, ast.Store) else set()
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
        return set()
    return {n for child in ast.iter_child_nodes(statement) for n in _stored(child)}


def _declared(statement: ast.AST, kind: type) -> set[str]:
    """Names in `global` or `nonlocal` of this scope."""
    if isinstance(statement, kind):
        return set(statement.names)  # type: ignore[attr-defined]
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
        return set()
    return {n for child in ast.iter_child_nodes(statement) for n in _declared(child, kind)}
