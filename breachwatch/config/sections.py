"""The tables of the configuration: names, types, bounds and defaults. Unknown keys refused, frozen."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


def _known_zone(name: str) -> str:
    if name != "UTC" and name not in available_timezones():
        raise ValueError(f"unknown time zone {name!r}; for example Asia/Ho_Chi_Minh")
    return name


def _existing_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"no such folder: {path}")
    return path


def _existing_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    return path


def _http_address(url: str) -> str:
    """Refuses what is no address, and names and passwords inside one: addresses end up in logs."""
    parts = urlsplit(url)
    if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("not an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("holds a name or password: put it into a secret file")
    return url


def _known_encoding(name: str) -> str:
    if name == "auto":
        return name
    try:
        line_feed = "A\n".encode(name)
    except (LookupError, UnicodeError) as error:
        raise ValueError(f"unknown encoding {name!r}; for example auto, utf-16-le, latin-1, cp1252") from error
    if line_feed not in (b"A\n", b"A\0\n\0", b"\0A\0\n"):
        raise ValueError(f"{name!r} cannot be read line by line; utf-16 needs -le or -be, or auto")
    return name


def _record_start(pattern: str) -> str:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern.encode(), options)
    except re2.error as error:
        raise ValueError(f"not an expression that RE2 runs: {error}") from error
    return pattern


LogEncoding = Annotated[str, AfterValidator(_known_encoding)]
RecordStart = Annotated[str, Field(max_length=512), AfterValidator(_record_start)]
Zone = Annotated[str, AfterValidator(_known_zone)]
Folder = Annotated[Path, AfterValidator(_existing_folder)]
ExistingFile = Annotated[Path, AfterValidator(_existing_file)]
HttpAddress = Annotated[str, AfterValidator(_http_address)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class Section(BaseModel):
    """A table of the file: unknown keys refused, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StateSection(Section):
    """Where the state lies."""

    directory: Path = Path("/var/lib/breachwatch") if os.geteuid() == 0 else Path("~/.local/state/breachwatch")
    signal_retention_days: int = Field(default=90, ge=1)


class HostSection(Section):
    """How this host is called in events and notices."""

    name: str = Field(default_factory=socket.gethostname, max_length=253, pattern=r"^[^\s+\p{Cc}]+$")
    """No blanks, no plus sign: it is part of the audit trail's name unless audit.origin is set."""


class LogSection(Section):
    """One log: path, glob (`**` for any depth) or folder, and how its lines are read."""

    path: str = Field(min_length=1)
    format: str = "auto"
    tz: Zone = "UTC"
    """Of times that name none."""
    exclude: tuple[str, ...] = ()
    """Globs of names or paths that a glob or folder leaves out."""
    rotated: tuple[Path, ...] = ()
    """Folders that rotation moves files to (logrotate's `olddir`)."""
    encoding: LogEncoding = "auto"
    """`auto` is UTF-8 unless a byte order mark says otherwise."""
    record_start: RecordStart = ""
    """RE2 expression that the first line of a record of several lines begins with."""
    from_start: bool = True
    """On the very first start: read what is already there, or only what comes."""


class JournalSection(Section):
    """The systemd journal."""

    enabled: bool = False
    units: tuple[str, ...] = ()


class SyslogSection(Section):
    """One address where messages of other hosts and devices are taken."""

    protocol: Literal["udp", "tcp", "tls"]
    address: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 514
    format: str = "syslog"
    tz: Zone = "UTC"
    certificate: ExistingFile | None = None
    key: ExistingFile | None = None
    client_ca: ExistingFile | None = None
    max_connections: int = Field(default=256, ge=1, le=4_096)
    receive_buffer_bytes: int = Field(default=8_388_608, ge=65_536, le=1 << 30)


class IntegritySection(Section):
    """File integrity. No paths: the built-in critical paths that exist on this host."""

    enabled: bool = False
    paths: tuple[Path, ...] = ()
    """Files, folders with all below them, and globs (`/home/*/.ssh`)."""
    exclude: tuple[str, ...] = ()
    diff: tuple[str, ...] | None = None
    sweep_interval_s: float = Field(default=300.0, ge=1)
    full_interval_s: float = Field(default=86_400.0, ge=1)
    cpu_share: float = Field(default=0.25, ge=0.01, le=1)
    bytes_per_s: int = Field(default=67_108_864, ge=65_536)
    hash_limit_bytes: int = Field(default=8_589_934_592, ge=1_048_576)
    rolling_hash: Literal["sha256", "blake3"] = "sha256"
    setuid_interval_s: float = Field(default=3_600.0, ge=0)
    processes: bool = True
    own_files: bool = True
    fanotify: bool = False


class WatchSection(Section):
    """What the agent watches."""

    logs: tuple[LogSection, ...] = ()
    journal: JournalSection = JournalSection()
    syslog: tuple[SyslogSection, ...] = ()
    integrity: IntegritySection = IntegritySection()
    max_line_bytes: int = Field(default=65_536, ge=1_024, le=65_536)
    busy_processes: int = Field(default=1, ge=0, le=64)


class RulesSection(Section):
    """Detection rules: the shipped pack and the operator's own folders."""

    directories: tuple[Folder, ...] = ()
    shipped: bool = True
    placeholders: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Values for `expand` placeholders, by name."""


class PlaybooksSection(Section):
    """Playbooks in use, by name, from the shipped ones and the operator's own folders."""

    directories: tuple[Folder, ...] = ()
    shipped: bool = True
    use: tuple[str, ...] = ()


class TemplatesSection(Section):
    """Folders whose notice templates overlay the shipped ones."""

    directories: tuple[Folder, ...] = ()


class SmtpSection(Section):
    """The mail server that notices leave through."""

    host: str = ""
    port: Port = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    user: str = ""
    password: SecretStr = SecretStr("")
    password_file: Path | None = None
    ca_file: ExistingFile | None = None
    sender: str = ""
    reply_to: str = ""
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    connections: int = Field(default=4, ge=1, le=64)


class SmsSection(Section):
    """An SMS gateway that takes JSON over HTTP."""

    url: HttpAddress = ""
    token: SecretStr = SecretStr("")
    token_file: Path | None = None
    timeout_s: float = Field(default=20.0, gt=0, le=600)
    body: dict[str, str] = Field(default_factory=lambda: {"to": "{to}", "text": "{text}", "request_id": "{request_id}"})
    headers: dict[str, str] = Field(default_factory=dict)


class ChatSection(Section):
    """One chat room, as an apprise URL (a secret: it holds tokens)."""

    name: str = Field(min_length=1)
    url: SecretStr = SecretStr("")
    url_file: Path | None = None


class PersonSection(Section):
    """One member of the team."""

    name: str = Field(min_length=1)
    email: str = ""
    phone: str = ""
    chat: str = ""
    roles: tuple[str, ...] = ()
    os_user: str = ""
    language: Literal["vi", "en"] = "en"


class TeamSection(Section):
    """Who is paged and who approves."""

    people: tuple[PersonSection, ...] = ()
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class LetterheadSection(Section):
    """Who writes the notices: facts that every notice carries."""

    name: str = ""
    address: str = ""
    registration: str = ""
    tax_code: str = ""
    hotline: str = ""
    email: str = ""
    website: str = ""
    privacy_contact: str = ""
    signatory: str = ""
    verify_url: str = ""


class AuthoritySection(Section):
    """An authority and where its notices go."""

    name: str = Field(min_length=1)
    email: str = Field(min_length=3)
    language: Literal["vi", "en"] = "en"


class AudienceSection(Section):
    """Where affected people come from: a CSV file, or a database URL (secret) and a query."""

    csv: Path | None = None
    url: SecretStr = SecretStr("")
    url_file: Path | None = None
    query: str = ""


class ElasticsearchSection(Section):
    """The telemetry store; no URL: none is used."""

    url: HttpAddress = ""
    api_key: SecretStr = SecretStr("")
    api_key_file: Path | None = None
    ca_file: ExistingFile | None = None
    fingerprint: str = ""
    index_prefix: str = Field(default="bw", pattern=r"^[a-z][a-z0-9_-]{0,30}$")
    spool_cap_bytes: int = Field(default=1 << 30, ge=1 << 20)


class AuditSection(Section):
    """The audit trail's name: the origin line of its checkpoints."""

    origin: str = Field(default="", pattern=r"^[^\s+\p{Cc}]*$")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="BREACHWATCH_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    state: StateSection = StateSection()
    host: HostSection = Field(default_factory=HostSection)
    watch: WatchSection = WatchSection()
    rules: RulesSection = RulesSection()
    playbooks: PlaybooksSection = PlaybooksSection()
    templates: TemplatesSection = TemplatesSection()
    smtp: SmtpSection = SmtpSection()
    sms: SmsSection = SmsSection()
    chat: tuple[ChatSection, ...] = ()
    team: TeamSection = TeamSection()
    letterhead: LetterheadSection = LetterheadSection()
    authorities: dict[str, AuthoritySection] = Field(default_factory=dict)
    audiences: dict[str, AudienceSection] = Field(default_factory=dict)
    elasticsearch: ElasticsearchSection = ElasticsearchSection()
    audit: AuditSection = AuditSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # no .env files: one place for secrets
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` hands over, which has asked every source and knows what came from where."""
        return (init_settings,)
