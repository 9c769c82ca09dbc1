"""Which definitions of our packages a function can reach, read from their source by name."""

from __future__ import annotations

import ast
import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_WHOLE = "*"  # in place of a name: all of a module
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def reached(
    module: str, path: Path, name: str, packages: Sequence[str]
) -> dict[tuple[str, str], str]:
    """The source of all that a function can reach by name, without what changes no number.

    Names are followed from the function to what they mean: to other definitions of its module, and
    through imports, those of a package's `__init__` too, to those of other modules. A class is
    taken whole; a function that others register with (`functools.singledispatch`) is taken with
    all that is registered. A module that is passed on as an object, or asked for a name that it
    does not define, is taken whole.

    Args:
        module: The function's module.
        path: That module's file.
        name: The function.
        packages: Names in other packages than these are not followed.

    Returns:
        By module and name, syntax trees as text, without docstrings and annotations. A constant's
        are all the statements that assign it.
    """
    found: dict[tuple[str, str], str] = {}
    waiting = [(module, name)]
    files = {module: path}
    registered = None
    while waiting:
        of, dotted = waiting.pop()
        wanted, _, rest = dotted.partition(".")  # attributes count where a name is an import
        if (of, wanted) in found:
            continue
        file = files.get(of) or _file_of(of)
        if file is None:
            continue
        source = _read(file, file.stat().st_mtime_ns)
        if wanted == _WHOLE:
            found[of, wanted] = source.text
            waiting += _resolved(source.everything, source, of, packages)
        elif wanted in source.definitions:
            found[of, wanted] = "\n".join(text for text, _ in source.definitions[wanted])
            for _, used in source.definitions[wanted]:
                waiting += _resolved(used, source, of, packages)
        elif wanted in source.imports:
            waiting += _imported(source.imports[wanted], packages, rest.split(".") if rest else ())
        elif _file_of(f"{of}.{wanted}") is None:  # neither defined, imported nor a module below
            waiting.append((of, _WHOLE))
        if "singledispatch" in found.get((of, wanted), ""):
            registered = registered if registered is not None else _registered(tuple(packages))
            waiting += registered.get((of, wanted), ())
    return found


@dataclass(frozen=True)
class _Source:
    """A module as it is needed here.

    Attributes:
        text: Its syntax tree.
        definitions: What the statements at its top level define: text and what they use, dotted.
        imports: Names that it imports, anywhere in it: a module, and a name in it or none.
        everything: All that it uses.
    """

    text: str
    definitions: dict[str, list[tuple[str, frozenset[str]]]]
    imports: dict[str, tuple[str, str | None]]
    everything: frozenset[str]
    registrations: list[tuple[str, str]] = field(default_factory=list)


def _resolved(
    used: frozenset[str], source: _Source, module: str, packages: Sequence[str]
) -> Iterator[tuple[str, str]]:
    for dotted in used:
        first, *rest = dotted.split(".")
        if first in source.definitions:
            yield module, first
        elif first in source.imports:
            yield from _imported(source.imports[first], packages, rest)


def _imported(
    imported: tuple[str, str | None], packages: Sequence[str], rest: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """What `from module import name`, followed by attributes, means."""
    module, name = imported
    if module.split(".")[0] not in packages:
        return
    parts = [*([name] if name else []), *rest]
    while parts and _file_of(f"{module}.{parts[0]}") and not _defines(module, parts[0]):
        module, parts = f"{module}.{parts[0]}", parts[1:]
    yield module, ".".join(parts) or _WHOLE


def _defines(module: str, name: str) -> bool:
    """Whether a package itself has a name, be it that of a module below."""
    file = _file_of(module)
    if file is None:
        return False
    source = _read(file, file.stat().st_mtime_ns)
    return name in source.definitions or source.imports.get(name, (module, name)) != (module, name)


def _registered(packages: tuple[str, ...]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """By generic function, the definitions that are registered with it, in all of the packages."""
    found = defaultdict(list)
    for package in packages:
        root = _file_of(package)
        for path in sorted(root.parent.rglob("*.py")) if root else ():
            parts = [package, *path.relative_to(root.parent).with_suffix("").parts]  # pyright: ignore
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            source = _read(path, path.stat().st_mtime_ns)
            for generic, name in source.registrations:
                for target in _resolved(frozenset([generic]), source, module, packages):
                    found[_origin(target, packages)].append((module, name))
    return found


def _origin(target: tuple[str, str], packages: Sequence[str]) -> tuple[str, str]:
    """Where a name is defined that packages may have imported from each other."""
    module, name = target
    file = _file_of(module)
    if file is None:
        return target
    source = _read(file, file.stat().st_mtime_ns)
    if name in source.definitions or name not in source.imports:
        return target
    return next((_origin(t, packages) for t in _imported(source.imports[name], packages)), target)


@cache
def _file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # something in a module that is no package
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


@cache
def _read(path: Path, changed: int) -> _Source:
    del changed  # only a key: a file that is edited is read again
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = dict(_imports(tree))
    tree = _Bare().visit(tree)
    definitions = defaultdict(list)
    registrations = []
    for place, statement in enumerate(_statements(tree)):
        text, used = ast.dump(statement), frozenset(_used(statement))
        names = list(_defined(statement))
        if isinstance(statement, _Definition):
            for decorator in statement.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if isinstance(called, ast.Attribute) and called.attr == "register":
                    names = [f"{statement.name} registered {place}"]  # most are called _
                    registrations.append((ast.unparse(called.value), names[0]))
        for name in names:
            definitions[name].append((text, used))
    return _Source(
        ast.dump(tree), dict(definitions), imports, frozenset(_used(tree)), registrations
    )


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Those at the top level, and those within conditions there."""
    waiting = list(tree.body)
    while waiting:
        statement = waiting.pop(0)
        if isinstance(statement, ast.If | ast.Try | ast.With):
            waiting = [
                n for n in ast.iter_child_nodes(statement) if isinstance(n, ast.stmt)
            ] + waiting
        else:
            yield statement


def _defined(statement: ast.stmt) -> Iterator[str]:
    """What a statement at the top level defines or, as `register(name)`, may change."""
    if isinstance(statement, _Definition):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and (
            isinstance(node.ctx, ast.Store)
            or isinstance(statement, ast.Expr)
            or (isinstance(statement, ast.Assign) and _within(node, statement.targets))
        ):
            yield node.id


def _within(node: ast.AST, trees: Sequence[ast.AST]) -> bool:
    return any(node is other for tree in trees for other in ast.walk(tree))


def _used(tree: ast.AST) -> Iterator[str]:
    """Names, with the attributes that follow them."""
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted, at = [node.attr], node.value
            while isinstance(at, ast.Attribute):
                inner.add(id(at))
                dotted.append(at.attr)
                at = at.value
            if isinstance(at, ast.Name):
                inner.add(id(at))
                if id(node) not in inner:
                    yield ".".join([at.id, *reversed(dotted)])
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in inner:
            yield node.id


def _imports(tree: ast.AST) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, (alias.name, None)
                else:
                    yield alias.name.split(".")[0], (alias.name.split(".")[0], None)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, (node.module, alias.name)


class _Bare(ast.NodeTransformer):
    """Takes docstrings and annotations out, which change no number."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Module | _Definition):
            node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        return super().generic_visit(node)
