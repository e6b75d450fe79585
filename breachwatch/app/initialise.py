"""`breachwatch init`: a commented configuration for the host it stands on. Never overwrites anything."""

from __future__ import annotations

import glob
import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import available_timezones

from breachwatch.app.initial_text import FOOT, HEAD
from breachwatch.config.sections import StateSection
from breachwatch.config.settings import load_settings
from breachwatch.errors import ConfigError
from breachwatch.watch.critical import DEFAULT_PATHS

LOG_PLACES = (
    ("/var/log/auth.log", "syslog", "Debian, Ubuntu: log-ins, sudo, su"),
    ("/var/log/secure", "syslog", "RHEL, Alma, Rocky: log-ins, sudo, su"),
    ("/var/log/syslog", "syslog", "everything else on Debian and Ubuntu"),
    ("/var/log/messages", "syslog", "everything else on RHEL"),
    ("/var/log/nginx/*access.log", "nginx", "nginx: requests"),
    ("/var/log/nginx/*error.log", "auto", "nginx: errors"),
    ("/var/log/apache2/*access.log", "apache", "Apache on Debian and Ubuntu: requests"),
    ("/var/log/apache2/*error.log", "auto", "Apache on Debian and Ubuntu: errors"),
    ("/var/log/httpd/*access_log", "apache", "Apache on RHEL: requests"),
    ("/var/log/httpd/*error_log", "auto", "Apache on RHEL: errors"),
)
"""Path or glob, format, whose it is. Source: the packages of the named distributions."""

JOURNAL_FOLDERS = ("/var/log/journal", "/run/log/journal")
CONFIG_MODE = 0o640
PRIVATE_MODE = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What was found on this host."""

    name: str
    zone: str
    logs: tuple[tuple[str, str, str], ...]
    journal: bool
    integrity: tuple[str, ...]


def look_around(root: Path = Path("/")) -> Host:
    """What there is to watch below `root`."""
    found = tuple(place for place in LOG_PLACES if glob.glob(os.fspath(root / place[0].lstrip("/"))))  # noqa: PTH207
    return Host(
        name=socket.gethostname() or "localhost",
        zone=_zone(root),
        logs=found,
        journal=any((root / folder.lstrip("/")).is_dir() for folder in JOURNAL_FOLDERS),
        integrity=tuple(path for path in DEFAULT_PATHS if (root / path.lstrip("/")).is_dir()),
    )


def _zone(root: Path) -> str:
    """The zone whose local time the logs are written in: where /etc/localtime points, else what /etc/timezone says."""
    candidates = []
    with suppress(OSError):
        candidates.append(str((root / "etc/localtime").readlink()).partition("zoneinfo/")[2])
    with suppress(OSError, UnicodeDecodeError):
        candidates.append((root / "etc/timezone").read_text(encoding="ascii").strip())
    known = available_timezones()
    found = next((name for name in candidates if name in known), "UTC")
    return "UTC" if found == "Etc/UTC" else found


def configuration_text(host: Host, *, state: Path) -> str:
    """The TOML text; facts that only the operator knows are left as comments to fill in."""
    parts = [HEAD.format(state=_quoted(os.fspath(state)), name=_quoted(host.name))]
    parts.extend(_log_text(*log, zone=host.zone) for log in host.logs)
    if not host.logs:
        parts.append(
            '# No log was found where logs usually lie. Name yours:\n# [[watch.logs]]\n# path = "/var/log/…"\n'
        )
    parts.append(
        "[watch.journal]\n"
        "# Off where log files say the same: a line that comes twice counts twice.\n"
        f"enabled = {_bool(host.journal and not host.logs)}\n"
    )
    listed = "".join(f"  {_quoted(path)},\n" for path in host.integrity)
    parts.append(
        "[watch.integrity]\n"
        f"enabled = {_bool(bool(host.integrity))}\n"
        f"paths = [\n{listed}]\n"
        '# exclude = ["/var/www/*/cache"]\n'
        "# sweep_interval_s = 300\n"
    )
    return "\n".join([*parts, FOOT])


def _log_text(path: str, log_format: str, whose: str, *, zone: str) -> str:
    return f"# {whose}\n[[watch.logs]]\npath = {_quoted(path)}\nformat = {_quoted(log_format)}\ntz = {_quoted(zone)}\n"


def _quoted(text: str) -> str:
    """A TOML basic string. JSON escapes are a subset of TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _bool(value: bool) -> str:
    return "true" if value else "false"


def write_configuration(target: Path, *, root: Path = Path("/")) -> list[str]:
    """Write the file, the state directory and the secrets folder; returns what was done, a line each.

    Raises: ConfigError where the file exists or cannot be written, or would not load.
    """
    host = look_around(root)
    done = [_write_new(target, configuration_text(host, state=StateSection().directory.expanduser()))]
    try:
        settings = load_settings(target)
    except ConfigError:
        target.unlink()
        raise
    folders = ((settings.state.directory, "state directory"), (target.parent / "secrets", "secrets folder"))
    done.extend(_private_folder(folder, what) for folder, what in folders)
    done.append(f"watched: {len(host.logs)} logs, {len(host.integrity)} folders")
    done.append(f"next: fill in what is marked in {target}, then `breachwatch --config {target} doctor`")
    return done


def _write_new(target: Path, text: str) -> str:
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, CONFIG_MODE)
    except FileExistsError as error:
        raise ConfigError(
            "exists already and is left as it is",
            source=str(target),
            hint="move it away, or name another file with --config",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", source=str(target), hint="run as root, or name a file with --config"
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), CONFIG_MODE)
    except OSError as error:
        target.unlink()
        raise ConfigError(f"cannot be written: {error.strerror}", source=str(target)) from error
    return f"wrote {target}"


def _private_folder(folder: Path, what: str) -> str:
    if folder.is_dir():
        return f"{what} {folder} is there already"
    try:
        folder.mkdir(mode=PRIVATE_MODE, parents=True)
    except OSError as error:
        return f"{what} {folder} could not be created: {error.strerror}"
    return f"created {what} {folder}"
