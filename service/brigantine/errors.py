"""Every way in which Brigantine says no.

    BrigantineError                  500  internal_error
    |-- BadRequest                   400  bad_request          the request cannot be read at all
    |   `-- BadParams                422  invalid_params       one entry for each bad field
    |-- NotFound                     404  not_found            no such route
    |   |-- ModelNotFound            404  model_not_found
    |   `-- PluginNotFound           404  plugin_not_found
    |-- MethodNotAllowed             405  method_not_allowed
    |-- NotAcceptable                406  not_acceptable
    |-- BodyTooSlow                  408  body_too_slow
    |-- BodyTooLarge                 413  body_too_large
    |-- QueueFull                    429  queue_full           carries Retry-After
    |-- GenerationFailed             500  generation_failed    a plugin raised, or broke its contract
    |-- NotReady                     503  not_ready            carries Retry-After
    |   |-- ModelFailing             503  model_failing        it failed too often and rests
    |   `-- ModelRejected            503  model_rejected       until someone mends it: no Retry-After
    |-- DeadlineExceeded             504  deadline_exceeded
    |-- ModelInvalid                 500  model_invalid        a model folder that must not be served
    |-- PluginInvalid                500  plugin_invalid       a plugin that breaks the contract
    `-- SettingsInvalid              500  settings_invalid     a start that must not happen

Each class carries its HTTP status and a stable code; the message names the thing, what was expected,
what came and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

__all__ = [
    "BadParams",
    "BadRequest",
    "BodyTooLarge",
    "BodyTooSlow",
    "BrigantineError",
    "DeadlineExceeded",
    "FieldError",
    "GenerationFailed",
    "MethodNotAllowed",
    "ModelFailing",
    "ModelInvalid",
    "ModelNotFound",
    "ModelRejected",
    "NotAcceptable",
    "NotFound",
    "NotReady",
    "PluginInvalid",
    "PluginNotFound",
    "QueueFull",
    "SettingsInvalid",
]


class BrigantineError(Exception):
    """The root of the tree. `str(error)` is the message that a client may read."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retry_after_s: float | None = None
    param: str | None = None


class BadRequest(BrigantineError):
    """The request cannot be read: broken JSON, a body that is no object, a wrong header."""

    status = 400
    code = "bad_request"


class FieldError(NamedTuple):
    """One bad field: its name, what it should have been, and what came."""

    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, got {self.got}"


class BadParams(BadRequest):
    """The body is an object, but some of its fields are wrong. Every one of them is named."""

    status = 422
    code = "invalid_params"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)
        self.param = errors[0].field

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errors,)

    def renamed(self, names: Mapping[str, str]) -> BadParams:
        """The same under the names that the fields have in the request."""
        return BadParams([error._replace(field=names.get(error.field, error.field)) for error in self.errors])


class NotFound(BrigantineError):
    """No such route."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No model of this name is served."""

    code = "model_not_found"
    param = "model"


class PluginNotFound(NotFound):
    """No plugin of this name is registered."""

    code = "plugin_not_found"


class MethodNotAllowed(BrigantineError):
    """The route exists, but not for this method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class NotAcceptable(BrigantineError):
    """None of the media types in `Accept` can be made."""

    status = 406
    code = "not_acceptable"


class BodyTooSlow(BrigantineError):
    """The request body did not arrive within `BRIGANTINE_TIMEOUT_S`."""

    status = 408
    code = "body_too_slow"


class BodyTooLarge(BrigantineError):
    """The request body is larger than `BRIGANTINE_MAX_BODY_BYTES`."""

    status = 413
    code = "body_too_large"


class QueueFull(BrigantineError):
    """More work waits than the queue may hold; come back after `retry_after_s` seconds."""

    status = 429
    code = "queue_full"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GenerationFailed(BrigantineError):
    """The plugin raised, or returned what its contract does not allow."""

    code = "generation_failed"


class NotReady(BrigantineError):
    """The service is starting or stopping, or this model is not being served."""

    status = 503
    code = "not_ready"
    retry_after_s = 1.0


class ModelRejected(NotReady):
    """The model was found at the start and refused; the message says why."""

    code = "model_rejected"
    retry_after_s = None


class ModelFailing(NotReady):
    """The model failed again and again, and rests; come back after `retry_after_s` seconds."""

    code = "model_failing"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.retry_after_s)


class DeadlineExceeded(BrigantineError):
    """The answer did not come in time; the work has been dropped."""

    status = 504
    code = "deadline_exceeded"


class ModelInvalid(BrigantineError):
    """A model folder that is incomplete, altered, or not what its manifest says."""

    code = "model_invalid"


class PluginInvalid(BrigantineError):
    """A plugin that breaks the contract of `brigantine.Plugin`."""

    code = "plugin_invalid"


class SettingsInvalid(BrigantineError):
    """A `BRIGANTINE_*` setting that is unknown or has a wrong value."""

    code = "settings_invalid"
