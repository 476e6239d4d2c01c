"""Which small wrongs are put into a module, one at a time.

| place                   | becomes                                                              |
|-------------------------|----------------------------------------------------------------------|
| `a < b`, `a == b`, …    | `a <= b`, `a != b`, …                                                |
| `a and b`, `a or b`     | `a` alone; `b` alone                                                 |
| `not a`                 | `a`                                                                  |
| `a + b`, `a += b`, …    | `a - b`, `a -= b`, …                                                 |
| `if a`, `x if a else y` | `if True`, `if False`; in comprehensions `if True`                   |
| `1`, `"text"`, `True`   | `2`, `"textXX"`, `False`                                             |
| `a[b:c]`                | `a[:c]`, `a[b:]`                                                     |
| `f(a, key=b)`           | `f(a)`                                                               |
| `x = a`, `return a`     | `x = None`, `return None`, where `a` is no constant                  |
| `f(a)`, `raise`, `del`  | nothing                                                              |
| `break`, `continue`     | the other one                                                        |
| `lambda: a`             | `lambda: None`                                                       |

Left as they are, because nothing that is promised stands on them: docstrings, annotations, aliases
and variables of types, imports, decorators, protocols, `__slots__`, the options `frozen`, `kw_only`
and `gc` of a Struct, sentences for people (in `raise`, in `Problem`, or of three words and more),
and what a log event tells (that it is logged is tried).
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_RECKONED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.BitXor: ast.BitOr,
}  # fmt: skip
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "bases", "type_params", "ctx", "exc"}
_STRUCT_OPTIONS = {"frozen", "kw_only", "gc"}
_PROSE = re.compile(r"\w+,? [\w`]+,? [\w`]+")
_CONTEXT = 30

Place = tuple[ast.AST, str, int | None]
"""A node, its field, and the index in that field where it is a list."""


@dataclass(frozen=True)
class Mutant:
    """One wrong.

    Attributes:
        module: path below `src/keybearer`.
        lines: first and last line of what is changed.
        header: the first line of its statement.
        within: whether the body of a function alone is changed: then it can be put into a process
            that has imported everything already.
        names: what else in the code speaks of the place: a constant, a class, a function.
    """

    module: str
    id: str
    lines: tuple[int, int]
    header: int
    within: bool
    names: frozenset[str]
    place: Place
    new: ast.AST

    def compiled(self, tree: ast.Module, path: Path) -> CodeType:
        """The module with this wrong in it; `tree` is as before afterwards."""
        old = _get(self.place)
        _put(self.place, self.new)
        try:
            return compile(ast.fix_missing_locations(tree), str(path), "exec")
        finally:
            _put(self.place, old)


@dataclass(frozen=True)
class _Scope:
    qualname: str
    within: bool
    statement: ast.stmt | None
    names: frozenset[str]
    told: bool
    """Whether it is within what people are told: an exception, a row of the table of problems."""


def mutants(module: str, tree: ast.Module) -> list[Mutant]:
    """Every wrong of a module, in the order of its lines."""
    seen: Counter[str] = Counter()
    found = []
    for place, new, scope in _walk(tree, _Scope("", False, None, frozenset(), False)):
        old = _get(place)
        assert scope.statement is not None
        before = _header(scope.statement)
        _put(place, new)
        after = _header(scope.statement)
        _put(place, old)
        if before == after:  # a statement was replaced as a whole
            before, after = _header(old), _header(new)
        said = f"`{scope.qualname or 'module'}`: {_difference(before, after)}"
        seen[said] += 1
        if seen[said] > 1:
            said = f"{said} ({seen[said]})"
        where = old if hasattr(old, "lineno") else place[0]
        lines = (where.lineno, where.end_lineno or where.lineno)  # type: ignore[attr-defined] # every node with a place in the text has them
        found.append(
            Mutant(
                module=module,
                id=f"`{module}` {said}",
                lines=lines,
                header=scope.statement.lineno,
                within=scope.within,
                names=scope.names,
                place=place,
                new=new,
            )
        )
    return found


def _get(place: Place) -> ast.AST:
    node, field, index = place
    value = getattr(node, field)
    found: ast.AST = value if index is None else value[index]
    return found


def _put(place: Place, new: ast.AST) -> None:
    node, field, index = place
    if index is None:
        setattr(node, field, new)
    else:
        getattr(node, field)[index] = new


def _header(node: ast.AST) -> str:
    return ast.unparse(node).split(":\n")[0] if isinstance(node, ast.stmt) else ast.unparse(node)


def _difference(before: str, after: str) -> str:
    """Both, without most of what they share."""
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    start, end = max(0, start - _CONTEXT), max(0, end - _CONTEXT)
    cut = [text[start : len(text) - end].replace("\n", " ") for text in (before, after)]
    return " → ".join(f"`{'…' if start else ''}{text}{'…' if end else ''}`" for text in cut)


# --- where ----------------------------------------------------------------------------------


def _walk(node: ast.AST, scope: _Scope) -> Iterator[tuple[Place, ast.AST, _Scope]]:
    for field, value in ast.iter_fields(node):
        if field in _SKIPPED_FIELDS and not (field == "exc" and isinstance(value, ast.Call)):
            continue
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, ast.AST) or _left_alone(child, node):
                continue
            place: Place = (node, field, index if isinstance(value, list) else None)
            inner = _inner(child, node, field, scope)
            if not (isinstance(node, ast.Raise) and field == "exc"):
                for new in _changed(child, field, inner):
                    if not hasattr(new, "lineno"):  # one of the tree keeps its own
                        ast.copy_location(new, child)
                    yield place, new, inner
            yield from _walk(child, inner)


def _inner(child: ast.AST, parent: ast.AST, field: str, scope: _Scope) -> _Scope:
    qualname, within, names, told = scope.qualname, scope.within, scope.names, scope.told
    if isinstance(parent, (*_FUNCTIONS, ast.ClassDef)) and field in ("body", "args"):
        if scope.statement is parent:
            qualname = f"{qualname}.{parent.name}".lstrip(".")
            names = frozenset({parent.name})
        if isinstance(parent, _FUNCTIONS) and field == "body":
            within = True
    if isinstance(child, ast.stmt):
        if not within and isinstance(child, (ast.Assign, ast.AnnAssign)):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            named = {target.id for target in targets if isinstance(target, ast.Name)}
            names = frozenset(named | names)
        return _Scope(qualname, within, child, names, isinstance(child, ast.Raise))
    match child:
        case ast.Call(func=ast.Name(id="Problem" | "Misuse" | "Unavailable")):
            told = True
    return _Scope(qualname, within, scope.statement, names, told)


def _left_alone(node: ast.AST, parent: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.ClassDef(bases=bases):
            return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in bases)
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if isinstance(parent, ast.Module):
            alias = isinstance(value, ast.Subscript) or (
                isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
            )
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                alias = value.func.id == "TypeVar"
            return alias or name.startswith("__") or name == "log"
        case ast.Assign(targets=[ast.Name(id="__slots__")]):
            return True
        case ast.keyword(arg=str(name)) if isinstance(parent, ast.ClassDef):
            return name in _STRUCT_OPTIONS
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log"))):
            return True
    return False


# --- what -----------------------------------------------------------------------------------


def _changed(node: ast.AST, field: str, scope: _Scope) -> Iterator[ast.AST]:  # noqa: PLR0912 -- the table above
    match node:
        case ast.Constant(value=str(text)) if scope.told and " " in text:
            pass
        case ast.Constant(value=value):
            yield from _other(value)
        case ast.Compare(left=left, ops=[op], comparators=comparators):
            # Of a whole condition, True and False say more than its contrary.
            if field != "test" or isinstance(op, _ORDERED):
                yield ast.Compare(left=left, ops=[_COMPARED[type(op)]()], comparators=comparators)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for index, op in enumerate(ops):
                changed = [*ops[:index], _COMPARED[type(op)](), *ops[index + 1 :]]
                yield ast.Compare(left=left, ops=changed, comparators=comparators)
        case ast.operator() if type(node) in _RECKONED:
            yield _RECKONED[type(node)]()
        case ast.BoolOp(op=op, values=values):
            for index in range(len(values)):
                rest = values[:index] + values[index + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op=op, values=rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand) if field != "test":
            yield operand
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield operand
        case ast.Lambda(args=args):
            yield ast.Lambda(args=args, body=ast.Constant(value=None))
        case ast.Slice(lower=lower, upper=upper, step=step):
            if lower is not None:
                yield ast.Slice(lower=None, upper=upper, step=step)
            if upper is not None:
                yield ast.Slice(lower=lower, upper=None, step=step)
        case ast.Call(func=func, args=args, keywords=keywords):
            for keyword in keywords:
                if keyword.arg is not None:
                    others = [each for each in keywords if each is not keyword]
                    yield ast.Call(func=func, args=args, keywords=others)
        case ast.stmt():
            yield from _other_statement(node)
    if field == "test" and not isinstance(scope.statement, (ast.While, ast.Assert)):
        yield ast.Constant(value=True)
        yield ast.Constant(value=False)
    if field == "ifs":
        yield ast.Constant(value=True)


def _other(value: object) -> Iterator[ast.AST]:
    match value:
        case bool():
            yield ast.Constant(value=not value)
        case int() | float():
            yield ast.Constant(value=value + 1)
        case str() if not _PROSE.search(value):
            yield ast.Constant(value=f"{value}XX")
        case bytes():
            yield ast.Constant(value=value + b"XX")


def _other_statement(node: ast.stmt) -> Iterator[ast.AST]:
    none = ast.Constant(value=None)
    match node:
        case ast.Assign(targets=targets, value=value) if not isinstance(value, ast.Constant):
            if not any(isinstance(target, ast.Tuple) for target in targets):
                yield ast.Assign(targets=targets, value=none)
        case ast.AnnAssign(target=target, annotation=annotation, value=value, simple=simple):
            if value is not None and not isinstance(value, ast.Constant):
                yield ast.AnnAssign(target=target, annotation=annotation, value=none, simple=simple)
        case ast.Return(value=ast.expr() as value):
            if not isinstance(value, ast.Constant):
                yield ast.Return(value=none)
        case ast.Expr() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
