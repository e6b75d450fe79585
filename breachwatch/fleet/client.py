"""The telemetry server as we use it: put a template, create documents, and say exactly what became of each."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from elastic_transport import ConnectionTimeout, SerializationError, TlsError, TransportError
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from breachwatch.errors import ConfigError, FleetError, RequestRefusedError
from breachwatch.fleet.documents import Document

TIMEOUT_S = 30.0
"""For one request: a server that is busy may take long, one that hangs must not hold us for ever."""

STORED = frozenset({200, 201, 409})
"""409: this id is there already, so an earlier send of the same signal was stored though we never heard of it."""

UNTAKEN = frozenset({400, 413})
"""Statuses of a whole request that one document in it may have caused."""

DOCUMENT_FAULTS = frozenset(
    {
        "document_parsing_exception",
        "illegal_argument_exception",
        "mapper_parsing_exception",
        "strict_dynamic_mapping_exception",
    }
)
"""What the server says with 400 when the document itself is the reason. Others with 400 (too many shards, say) are the
server's own trouble, and setting documents aside for it would lose them."""

UNAUTHORISED = frozenset({401, 403})
"""The key is unknown, expired, or may not create documents here."""

SECRETS_HINT = "check the key: file elasticsearch__api_key"
VERSION_HINT = "Elasticsearch 8 needs the client library elasticsearch<9"

TRANSPORT_FAILURES: tuple[tuple[type[TransportError], str, str | None], ...] = (
    (TlsError, "its certificate is not trusted or TLS failed", "check elasticsearch.ca_file or fingerprint"),
    (ConnectionTimeout, "did not answer in time", None),
    (SerializationError, "the answer is not what Elasticsearch sends", None),
)
"""What we say of failures that no answer explains; the first that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server is and how it is trusted, as plain values."""

    url: str
    api_key: str = ""
    ca_file: Path | None = None
    fingerprint: str = ""
    """SHA-256 of the server's certificate; if set, it alone decides."""
    timeout_s: float = TIMEOUT_S


class TelemetryServer:
    """One connection to Elasticsearch 8 or 9. No retries in here: the caller owns the schedule."""

    def __init__(self, settings: ServerSettings) -> None:
        self._url = settings.url
        try:
            self._client = Elasticsearch(_with_port(settings.url), **_options(settings))
        except (ValueError, OSError, ssl.SSLError) as error:
            raise ConfigError(
                "the connection to Elasticsearch cannot be set up", source="elasticsearch",
                hint="check elasticsearch.url, ca_file and fingerprint",
            ) from error  # fmt: skip

    def put_template(self, name: str, body: Mapping[str, Any]) -> bool:
        """Install or replace an index template; False if this key may not. Raises: FleetError."""
        try:
            self._client.indices.put_index_template(name=name, **body)
        except ApiError as error:
            if error.status_code == 403:  # noqa: PLR2004  # an agent's key creates documents and nothing else
                return False
            raise self._failure(error) from error
        except TransportError as error:
            raise self._failure(error) from error
        return True

    def create(self, documents: Sequence[Document]) -> dict[str, str]:
        """Store each document unless its id is there; returns those refused for good: id to reason.

        On return every document is stored durably or refused. Raises: FleetError (some may be stored; send all again),
        RequestRefusedError (the request as a whole was refused).
        """
        lines: list[bytes] = []
        for item in documents:
            # neither needs escaping: settings check the prefix, `document_id` the id
            lines += [b'{"create":{"_index":"%b","_id":"%b"}}' % (item.index.encode(), item.id.encode()), item.source]
        try:
            answer = self._client.bulk(
                operations=lines,  # type: ignore[arg-type]  # ready lines, which the serializer takes as they are
                filter_path="items.*._id,items.*.status,items.*.error.type",
            )
        except (ApiError, TransportError) as error:
            raise self._failure(error) from error
        return dict(self._refused(documents, answer.body))

    def _refused(self, documents: Sequence[Document], body: Any) -> Iterator[tuple[str, str]]:
        items = body.get("items") if isinstance(body, Mapping) else None
        if not isinstance(items, list) or len(items) != len(documents):
            raise FleetError("the answer does not say what became of each document", source=self._url)
        for sent, item in zip(documents, items, strict=True):
            verdict = item.get("create") if isinstance(item, Mapping) else None
            if not isinstance(verdict, Mapping) or verdict.get("_id") != sent.id:
                raise FleetError("the answer speaks of other documents than were sent", source=self._url)
            status = verdict.get("status")
            kind = str((verdict.get("error") or {}).get("type", ""))[:100]
            if status in STORED:
                continue
            if status not in UNTAKEN or kind not in DOCUMENT_FAULTS:
                hint = SECRETS_HINT if status in UNAUTHORISED else None
                raise FleetError(f"a document was answered with {status} {kind}", source=self._url, hint=hint)
            yield sent.id, f"{status} {kind}"

    def _failure(self, error: ApiError | TransportError) -> FleetError:
        """Ours, with what failed and never the server's words, which may repeat a document."""
        if isinstance(error, UnsupportedProductError):
            return FleetError("what answers is not Elasticsearch", source=self._url, hint="check elasticsearch.url")
        if isinstance(error, ApiError):
            return self._answered(error.status_code, _error_type(error.body))
        for kind_of, said, hint in TRANSPORT_FAILURES:
            if isinstance(error, kind_of):
                return FleetError(said, source=self._url, hint=hint)
        return FleetError("cannot be reached", source=self._url)

    def _answered(self, status: int, kind: str) -> FleetError:
        if kind == "media_type_header_exception":
            return FleetError("the server is older than the client library", source=self._url, hint=VERSION_HINT)
        said = f"answered {status} {kind}".rstrip()
        if status in UNTAKEN:
            return RequestRefusedError(said, source=self._url)
        return FleetError(said, source=self._url, hint=SECRETS_HINT if status in UNAUTHORISED else None)

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()


def _options(settings: ServerSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "request_timeout": settings.timeout_s,
        "max_retries": 0,
        "retry_on_timeout": False,
        "connections_per_node": 1,
    }
    if settings.api_key:
        options["api_key"] = settings.api_key
    if settings.ca_file is not None and not settings.fingerprint:
        ssl.create_default_context(cafile=settings.ca_file)  # the library reads it late; a wrong file is said now
        options["ca_certs"] = str(settings.ca_file)
    if settings.fingerprint:
        options["ssl_assert_fingerprint"] = settings.fingerprint
    return options


def _with_port(url: str) -> str:
    """The client library insists on a port; the usual one of the scheme is what everybody else means."""
    parts = urlsplit(url)
    if parts.port is not None:
        return url
    return parts._replace(netloc=f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}").geturl()


def _error_type(body: Any) -> str:
    error = body.get("error") if isinstance(body, Mapping) else None
    return str(error.get("type", ""))[:100] if isinstance(error, Mapping) else ""
