"""PromQL: it parses, and every series and label in it exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql

from .product import STAGES, metrics
from .report import Report, one_of

__all__ = ["check_query"]

_TARGET = frozenset({"instance", "job", "namespace", "pod"})
"""Labels that Prometheus gives to whatever it scrapes."""


def check_query(report: Report, file: Path, where: str, query: str) -> None:
    """One expression."""
    try:
        tree = promql.parse(query)
    except ValueError as error:
        report.fault(file, where, f"PromQL ({error})", query)
        return
    selectors: list[promql.VectorSelector] = []
    grouped: list[str] = []
    for node in _nodes(tree):
        if isinstance(node, promql.VectorSelector):
            selectors.append(node)
        elif isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            grouped += node.modifier.labels
        elif isinstance(node, promql.BinaryExpr) and node.modifier is not None:
            grouped += [*(node.modifier.group_labels or []), *getattr(node.modifier.matching, "labels", [])]
    for selector in selectors:
        _check_selector(report, file, where, selector)
    if any(selector.name not in metrics() for selector in selectors):
        return  # its labels cannot be known
    there = _TARGET.union(*(metrics().get(selector.name or "", ()) for selector in selectors))
    for label in grouped:
        if label not in there:
            report.fault(file, where, f"one of the labels {', '.join(sorted(there))}", label)


def _check_selector(report: Report, file: Path, where: str, selector: promql.VectorSelector) -> None:
    name = selector.name or ""
    if name not in metrics():
        report.fault(file, where, one_of(metrics(), name, "a metric that exists"), name)
        return
    labels = metrics()[name] | _TARGET
    for matcher in selector.matchers.matchers:
        if matcher.name not in labels:
            report.fault(file, where, f"one of {name}'s labels {', '.join(sorted(labels))}", matcher.name)
        elif matcher.name == "stage" and str(matcher.op) == "MatchOp.Equal" and matcher.value not in STAGES:
            report.fault(file, where, f"one of the stages {', '.join(STAGES)}", matcher.value)


def _nodes(node: Any) -> Iterator[Any]:
    """All of a tree's, by the names that promql_parser gives to what is below each."""
    if node is None:
        return
    yield node
    if isinstance(node, promql.Call):
        for argument in node.args:
            yield from _nodes(argument)
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        yield from _nodes(getattr(node, name, None))
