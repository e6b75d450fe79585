"""One tree of errors: each says what failed, where, and what to do; never a secret or a contact."""

from __future__ import annotations


class BreachWatchError(Exception):
    """What failed; `source` says where (file:line, rule id, field), `hint` what to do next."""

    def __init__(self, message: str, *, source: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        todo = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{todo}"


class ConfigError(BreachWatchError):
    """The configuration cannot be used: wrong key, type, path or permission. Exit code 2."""


class UsageError(BreachWatchError):
    """The command was called wrongly. Exit code 2."""


class WatchError(BreachWatchError):
    """A source could not be read."""


class ParseError(BreachWatchError):
    """A parser was asked for something it does not know (never raised for a hostile line)."""


class RuleError(BreachWatchError):
    """A detection rule is refused: file, line and reason."""


class PlaybookError(BreachWatchError):
    """A playbook is refused: file, line and reason."""


class LawError(BreachWatchError):
    """A regime row is refused or cannot be applied."""


class IncidentError(BreachWatchError):
    """An incident change is not allowed in its present state."""


class ApprovalError(BreachWatchError):
    """An approval is missing, void, or by the wrong person."""


class AudienceError(BreachWatchError):
    """The list of people to tell cannot be read."""


class TemplateError(BreachWatchError):
    """A notice template is refused or cannot be rendered."""


class DeliveryError(BreachWatchError):
    """A notice was not handed over. Retryable or not is the subclass."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        retry_after_s: float | None = None,
        source: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, source=source, hint=hint)
        self.code = code
        """Reply code as recorded (`550 5.1.1`, `http 503`); never the remote text, which may repeat a contact."""
        self.retry_after_s = retry_after_s


class TransientDeliveryError(DeliveryError):
    """Not handed over now; trying again later may work (4xx, refused, timed out before acceptance)."""


class ChannelDownError(TransientDeliveryError):
    """The channel as a whole does not work now (refused, TLS or log-in failed): nobody's attempt, everybody waits."""


class AmbiguousDeliveryError(TransientDeliveryError):
    """The connection ended after the content was sent: it may or may not have been accepted."""


class PermanentDeliveryError(DeliveryError):
    """Will not be handed over on this channel, however often it is tried (5xx, bad address)."""


class AuditError(BreachWatchError):
    """The audit trail could not be written."""


class VerificationError(BreachWatchError):
    """A proof, checkpoint or trail does not hold."""


class StoreError(BreachWatchError):
    """State could not be read or written: full disk, wrong owner, damaged or foreign database."""


class LockedError(StoreError):
    """Another process owns this state directory."""


class FleetError(BreachWatchError):
    """The telemetry store could not be reached or refused what was sent."""


class RequestRefusedError(FleetError):
    """The telemetry store did not take a request as a whole; one document in it may be the reason."""
