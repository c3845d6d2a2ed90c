"""Registries are plain dictionaries filled by a decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from unlearnkit.errors import UnlearnkitError, unknown

T = TypeVar("T")


class Registry(dict[str, T]):
    """Name → object; a missing name raises with the known ones and the closest match.

    >>> shapes = Registry("shape")
    >>> @shapes.register("square")
    ... def area(x): return x * x
    >>> shapes["square"](3)
    9
    """

    def __init__(self, kind: str, base: type | None = None) -> None:
        super().__init__()
        self.kind, self.base = kind, base

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files an object under `name`; a cell that is run again replaces it.

        Raises:
            UnlearnkitError: the name can't be used, or is that of a built-in one; no class derived from `base`.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise UnlearnkitError(
                f"{self.kind} name '{name}' can't be used; allowed are letters, digits and underscores."
            )

        def put(thing: T) -> T:
            if self.base and not (isinstance(thing, type) and issubclass(thing, self.base)):
                raise UnlearnkitError(
                    f"{self.kind} '{name}' is {thing!r}; register a class derived from {self.base.__name__}."
                )
            before, now = (str(getattr(it, "__module__", "")) for it in (self.get(name), thing))
            if before.startswith("unlearnkit.") and before != now:
                raise UnlearnkitError(f"{self.kind} '{name}' is built in; register yours under another name.")
            self[name] = thing
            return thing

        return put

    def __missing__(self, name: str) -> T:
        raise unknown(self.kind, name, self)
