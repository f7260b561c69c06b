"""The routes: a method and a path lead to an endpoint."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from ..errors import MethodNotAllowed, NotFound
from .plan import Planner, made

__all__ = ["Endpoint", "Route", "Router"]

Endpoint = Callable[[Request], Awaitable[Response]]


class Route(NamedTuple):
    """One path, where `{name}` stands for one segment, and what answers it."""

    path: str
    endpoint: Endpoint
    method: str = "GET"
    planner: Planner | None = None
    """What plans the answer, where that is all that the endpoint does before it waits for a generation."""

    @classmethod
    def planned(cls, path: str, planner: Planner) -> Route:
        """A path to which requests for one generation are posted."""
        return cls(path, made(planner), "POST", planner)


class Router:
    """Finds the endpoint of a request: by its path alone where that has no parameters."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        for route in routes:
            if "{" in route.path:
                pattern = re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path))
                self._patterns.append((pattern, route))
            else:
                self._fixed[route.path] = route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route, and the parameters in the path.

        Raises:
            NotFound: there is no such path.
            MethodNotAllowed: there is, for other methods.
        """
        route, parameters = self._match(path)
        allowed = (route.method, "HEAD") if route.method == "GET" else (route.method,)
        if method not in allowed:
            raise MethodNotAllowed(f"{path}: expected {', '.join(allowed)}, got {method}", ", ".join(allowed))
        return route, parameters

    def _match(self, path: str) -> tuple[Route, dict[str, str]]:
        if path in self._fixed:
            return self._fixed[path], {}
        for pattern, route in self._patterns:
            if found := pattern.fullmatch(path):
                return route, found.groupdict()
        raise NotFound(f"no route {path}; /openapi.json lists them, /docs shows them")
