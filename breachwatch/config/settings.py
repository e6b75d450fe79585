"""Settings: one TOML file, BREACHWATCH_* environment, secrets from files; frozen after loading.

Precedence, highest first: environment, secret files, TOML file, defaults. A wrong key, type or path is one clear
message with file and line.
"""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from breachwatch.config.lines import TomlLines, problems
from breachwatch.errors import ConfigError

DEFAULT_CONFIG = Path("/etc/breachwatch/breachwatch.toml")
"""Read when it exists and nothing else is named."""

DEFAULT_SECRETS = Path("/etc/breachwatch/secrets")
"""One file per secret: smtp__password, sms__token, elasticsearch__api_key."""


def _known_zone(name: str) -> str:
    if name != "UTC" and name not in available_timezones():
        raise ValueError(f"unknown time zone {name!r}; for example Asia/Ho_Chi_Minh")
    return name


def _existing_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"no such folder: {path}")
    return path


Zone = Annotated[str, AfterValidator(_known_zone)]
Folder = Annotated[Path, AfterValidator(_existing_folder)]
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

    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=253)


class LogSection(Section):
    """One log: path or glob, format, time zone of lines that name none."""

    path: str = Field(min_length=1)
    format: str = "auto"
    tz: Zone = "UTC"


class JournalSection(Section):
    """The systemd journal."""

    enabled: bool = False
    units: tuple[str, ...] = ()


class IntegritySection(Section):
    """File integrity. No paths: the built-in critical paths that exist on this host."""

    enabled: bool = False
    paths: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    sweep_interval_s: float = Field(default=300.0, ge=1)


class WatchSection(Section):
    """What the agent watches."""

    logs: tuple[LogSection, ...] = ()
    journal: JournalSection = JournalSection()
    integrity: IntegritySection = IntegritySection()
    max_line_bytes: int = Field(default=65_536, ge=1_024, le=16_777_216)


class RulesSection(Section):
    """Detection rules: the shipped pack and the operator's own folders."""

    directories: tuple[Folder, ...] = ()
    shipped: bool = True


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
    ca_file: Path | None = None
    sender: str = ""
    reply_to: str = ""
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    connections: int = Field(default=4, ge=1, le=64)


class SmsSection(Section):
    """An SMS gateway that takes JSON over HTTP."""

    url: str = ""
    token: SecretStr = SecretStr("")
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

    url: str = ""
    api_key: SecretStr = SecretStr("")
    ca_file: Path | None = None
    fingerprint: str = ""
    index_prefix: str = Field(default="bw", pattern=r"^[a-z][a-z0-9_-]{0,30}$")
    spool_cap_bytes: int = Field(default=1 << 30, ge=1 << 20)


class AuditSection(Section):
    """The audit trail's name: the origin line of its checkpoints."""

    origin: str = Field(default="", pattern=r"^[^\s+]*$")


class LogLevelSection(Section):
    """The daemon's own log."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="BREACHWATCH_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
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
    log: LogLevelSection = LogLevelSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # no .env files: one place for secrets
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # replaced by a nested one below
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over secret files over the TOML file (which comes in as init arguments)."""
        folders = [str(folder) for folder in secret_folders()]
        if not folders:
            return env_settings, init_settings
        return env_settings, NestedSecrets(settings_cls, secrets_dir=folders), init_settings


class NestedSecrets(SecretsSettingsSource):
    """Secret files named like the environment, without prefix and in any case: `smtp__password`."""

    def __call__(self) -> dict[str, Any]:
        """The tree that the secret files make."""
        tree: dict[str, Any] = {}
        directories = self.secrets_dir if isinstance(self.secrets_dir, list) else [self.secrets_dir]
        for folder in directories:
            for file in sorted(Path(str(folder)).iterdir()):
                section, separator, key = file.name.lower().removeprefix("breachwatch_").partition("__")
                if separator and file.is_file():
                    tree.setdefault(section, {})[key] = file.read_text(encoding="utf-8").strip()
        return tree


def secret_folders() -> list[Path]:
    """Where secret files may lie: systemd credentials, BREACHWATCH_SECRETS_DIR, the default folder."""
    named = [os.environ.get("BREACHWATCH_SECRETS_DIR", ""), os.environ.get("CREDENTIALS_DIRECTORY", "")]
    folders = [Path(name) for name in named if name] or [DEFAULT_SECRETS]
    return [folder for folder in folders if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)]


def load_settings(path: Path | None = None, *, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read everything once. Raises: ConfigError with one line per problem, each with file and line."""
    chosen = path or Path(os.environ.get("BREACHWATCH_CONFIG", "") or DEFAULT_CONFIG)
    text = _read(chosen, must_exist=path is not None or "BREACHWATCH_CONFIG" in os.environ)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", source=str(chosen)) from error
    try:
        settings = Settings(**{**tree, **(overrides or {})})
    except ValidationError as error:
        found = problems(error, Settings, TomlLines(text), str(chosen))
        raise ConfigError("\n".join(found), hint="docs/configuration.md lists every setting") from None
    return _with_secret_files(settings)


def _read(path: Path, *, must_exist: bool) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if not must_exist:
            return ""
        raise ConfigError(
            "no such configuration file", source=str(path), hint="`breachwatch init` writes one"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration: {error}", source=str(path)) from error


def _with_secret_files(settings: Settings) -> Settings:
    """Fill `url` from `url_file` where one is named, and expand `~`."""
    chat = tuple(room.model_copy(update={"url": _secret(room.url, room.url_file)}) for room in settings.chat)
    audiences = {
        name: audience.model_copy(update={"url": _secret(audience.url, audience.url_file)})
        for name, audience in settings.audiences.items()
    }
    state = settings.state.model_copy(update={"directory": settings.state.directory.expanduser()})
    origin = settings.audit.origin or f"breachwatch.invalid/{settings.host.name}"
    audit = settings.audit.model_copy(update={"origin": origin})
    return settings.model_copy(update={"chat": chat, "audiences": audiences, "state": state, "audit": audit})


def _secret(value: SecretStr, file: Path | None) -> SecretStr:
    if file is None:
        return value
    try:
        return SecretStr(file.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise ConfigError(f"cannot read the secret: {error.strerror}", source=str(file)) from error
