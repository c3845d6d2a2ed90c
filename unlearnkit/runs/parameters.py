"""The parameters cell: flat annotated scalars, read without executing it, and checked strictly."""

from __future__ import annotations

import ast
import math
import re
from functools import cache
from typing import Any

from unlearnkit.errors import UnlearnkitError

Scalar = bool | int | float | str | None
SCALARS = ("bool", "int", "float", "str")
ALLOWED = (*SCALARS, *(f"Optional[{name}]" for name in SCALARS))
RESERVED = ("notebook", "values", "needs")  # attributes of a Config


def declared(source: str) -> dict[str, tuple[str, Scalar]]:
    """Name → (type, default) of a parameters cell, which holds annotated scalars and nothing else.

    Raises:
        UnlearnkitError: anything else is in the cell, or a type other than those of `ALLOWED`.
    """
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise UnlearnkitError(f"the parameters cell is not Python: {error.msg} in line {error.lineno}.") from error
    found: dict[str, tuple[str, Scalar]] = {}
    for line in lines:
        if isinstance(line, ast.ImportFrom) and line.module == "typing" and not found:
            continue
        wrong = f"the parameters cell has `{ast.unparse(line)[:80]}`; "
        if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value):
            raise UnlearnkitError(wrong + "expected one `name: type = value` a line.")
        name, kind = line.target.id, spelled(ast.unparse(line.annotation))
        text = source.splitlines()[line.lineno - 1 : line.end_lineno]
        if len(text) > 1 or text[0].count("=") > 1 or "|" in ast.unparse(line.annotation):
            raise UnlearnkitError(
                f"papermill can't read parameter '{name}'; write it on one line as `{name}: type = value  # comment`, "
                "with Optional[...] for what may be None and no second '='."
            )
        if kind not in ALLOWED:
            raise UnlearnkitError(wrong + f"expected a type of {', '.join(ALLOWED)}.")
        if name in found or name in RESERVED or name.startswith("_"):
            raise UnlearnkitError(wrong + f"the name '{name}' is taken; choose another one.")
        try:
            found[name] = kind, ast.literal_eval(line.value)
        except (ValueError, TypeError) as error:
            raise UnlearnkitError(wrong + "expected a plain value, not an expression.") from error
    return found


def check(name: str, kind: str, value: Any, where: str) -> Scalar:
    """The value, an integer made a float where one is declared; strict: no text for a number, no bool for an int.

    Raises:
        UnlearnkitError: the value is of another type, or not finite.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        finite = ", finite" if isinstance(value, float) and not math.isfinite(value) else ""
        raise UnlearnkitError(
            f"parameter '{name}' of {where} is {value!r} ({type(value).__name__}); expected {kind}{finite}."
        ) from error


def spelled(annotation: Any) -> str:
    """`Optional[int]` for typing's and the `|` spelling alike."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = text.replace("typing.", "").replace(" ", "")
    union = re.fullmatch(r"(\w+)\|None|None\|(\w+)", text)
    return f"Optional[{union[1] or union[2]}]" if union else text


@cache
def _adapter(kind: str) -> Any:
    from typing import Annotated

    from pydantic import AllowInfNan, ConfigDict, TypeAdapter

    base: Any = {"bool": bool, "int": int, "float": float, "str": str}[kind.removeprefix("Optional[").rstrip("]")]
    if base is float:
        base = Annotated[float, AllowInfNan(False)]
    return TypeAdapter(base | None if kind.startswith("Optional[") else base, config=ConfigDict(strict=True))
