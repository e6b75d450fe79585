"""Chat rooms and odd services through apprise: Telegram, Slack, Teams (`workflows://`), webhooks and a hundred more.

For staff, not for the masses (facts/notify.md section 2). Room addresses hold tokens: they are never shown.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from breachwatch.errors import AmbiguousDeliveryError, ChannelDownError, PermanentDeliveryError, TransientDeliveryError
from breachwatch.model import Accepted, OutgoingMessage


class ChatChannel:
    """`ports.ChannelSender` for named rooms; `rooms` maps the names that people have to apprise addresses.

    Time limits are those per address (`?cto=` and `?rto=`, 4 s each).
    """

    def __init__(self, rooms: Mapping[str, str]) -> None:
        self._rooms = MappingProxyType(dict(rooms))
        self._services: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"ChatChannel({sorted(self._rooms)})"

    def send(self, message: OutgoingMessage) -> Accepted:
        """Post one text to a room. Raises: the four kinds of DeliveryError."""
        if message.to not in self._rooms:
            raise PermanentDeliveryError("no chat room of this name", code="no-room", hint="add it under [[chat]]")
        service = self._service(message.to)
        result = service.notify(
            title=message.subject,
            body=message.payload.decode("utf-8"),
            body_format="text",
            interpret_escapes=False,
        )
        return _judge(result.status.name)

    def close(self) -> None:
        """Nothing is kept open between messages."""

    def _service(self, room: str) -> Any:
        """The apprise object of a room, made once: making one costs more than a message. Raises: ChannelDownError."""
        service = self._services.get(room)
        if service is None:
            import apprise  # slow to load: only whoever uses chat pays for it

            # its log lines repeat addresses with their tokens
            logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
            asset = apprise.AppriseAsset(app_id="BreachWatch", app_desc="BreachWatch", secure_logging=True)
            # with a limit of its own it sends in threads that nobody can end and that hold up the end of the process
            asset._service_timeout = 0  # noqa: SLF001
            service = apprise.Apprise(asset=asset)
            if not service.add(self._rooms[room]):
                raise ChannelDownError(
                    "the chat room's address is none that is known",
                    code="not configured",
                    hint=f"check [[chat]] {room}",
                )
            for server in service:
                server.request_rate_per_sec = 0  # the default waits 5.5 s between two messages
            self._services[room] = service
        return service


def _judge(status: str) -> Accepted:
    """What apprise's status means. Raises: DeliveryError. Its details are log text, which may hold tokens."""
    if status == "SUCCESS":
        return Accepted(code="chat ok")
    if status == "TIMEOUT":
        raise AmbiguousDeliveryError("the chat service did not answer in time", code="timeout")
    if status == "NOMATCH":
        raise ChannelDownError("the chat room's address names no service", code="not configured")
    raise TransientDeliveryError("the chat service refused or could not be reached", code=f"chat {status.lower()}")
