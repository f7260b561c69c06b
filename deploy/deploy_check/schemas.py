"""Whether a resource has the keys and values that its kind may have, and no others."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from jsonschema.exceptions import best_match

from .report import path_of

__all__ = ["wrong"]

CUSTOM = {"ServiceMonitor": "servicemonitor.json", "Kustomization": "kustomization.json"}
"""What Kubernetes itself does not know."""
VERSIONS = ("1.30", "1.37")
"""The oldest Kubernetes that has all that is used here, and the newest whose schemas are at hand."""


def wrong(document: dict[str, Any]) -> tuple[str, str] | None:
    """The path of the first key that is wrong, and why; None when all are right."""
    return _wrong(json.dumps(document, sort_keys=True, default=str))


@cache  # the schemas are megabytes, and are read for every document
def _wrong(text: str) -> tuple[str, str] | None:
    document = json.loads(text)
    kind = str(document.get("kind"))
    if kind in CUSTOM:
        error = best_match(_validator(CUSTOM[kind]).iter_errors(document))
        return None if error is None else _said(error)
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            return "kind", f"no {document.get('apiVersion')} {kind} in Kubernetes {version}"
        except kubernetes_validate.ValidationError as error:
            where, why = _said(error)
            return where, f"{why} (Kubernetes {version})"
    return None


def _said(error: jsonschema.ValidationError) -> tuple[str, str]:
    return path_of(error.absolute_path), error.message


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((Path(__file__).parent.parent / "schemas" / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)
