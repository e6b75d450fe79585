"""The playbooks and regimes in force, read from disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import breachwatch.law
from breachwatch.config.settings import Settings
from breachwatch.config.shipped import shipped_folder
from breachwatch.errors import IncidentError, PlaybookError
from breachwatch.incident.clocks import instants
from breachwatch.law import Regime, duties, load_regimes
from breachwatch.model import Duty, Incident
from breachwatch.notify.template import TemplateSet
from breachwatch.playbook.schema import Known, Playbook, load_playbook


def playbook_files(settings: Settings) -> dict[str, Path]:
    """Name to file of every playbook there is; the operator's folders come first, then the shipped ones."""
    folders = list(settings.playbooks.directories)
    if settings.playbooks.shipped:
        folders.append(shipped_folder("playbooks"))
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.y*ml")):
            if file.suffix in {".yaml", ".yml"}:
                files.setdefault(file.stem, file)
    return files


def playbooks_in_use(settings: Settings, known: Known | None = None) -> Iterator[Playbook | PlaybookError]:
    """Each playbook of `playbooks.use`, or why it cannot be used."""
    files = playbook_files(settings)
    for name in settings.playbooks.use:
        if name not in files:
            listed = ", ".join(sorted(files))
            yield PlaybookError(f"no playbook named {name}", source="playbooks.use", hint=f"known: {listed}")
            continue
        try:
            yield read_playbook(files[name], known)
        except PlaybookError as error:
            yield error


def read_playbook(file: Path, known: Known | None = None) -> Playbook:
    """One file. Raises: PlaybookError with file and line."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlaybookError(f"cannot be read: {type(error).__name__}", source=str(file)) from error
    return load_playbook(text, str(file), known=known)


def load_playbooks(settings: Settings, known: Known) -> tuple[Playbook, ...]:
    """All in use; one that is broken or names somebody unknown is refused. Raises: PlaybookError."""
    loaded: list[Playbook] = []
    for item in playbooks_in_use(settings, known):
        if isinstance(item, PlaybookError):
            raise item
        if any(other.id == item.id for other in loaded):
            raise PlaybookError(f"two playbooks in use are called {item.id}", hint="give each its own `playbook:` name")
        loaded.append(item)
    return tuple(loaded)


def known_names(settings: Settings, templates: TemplateSet, book: DutyBook) -> Known:
    """What playbooks may refer to in this installation."""
    people = settings.team.people
    return Known(
        teams={*(person.name for person in people), *settings.team.groups},
        authorities=set(settings.authorities),
        audiences=set(settings.audiences),
        templates=set(templates.names()),
        clocks={(regime.id, stage.id) for regime in book.regimes for stage in regime.stages},
    )


@dataclass(frozen=True, slots=True)
class DutyBook:
    """What the law wants done about an incident, from the shipped regimes."""

    regimes: Sequence[Regime]

    def duties_of(self, incident: Incident, facts: Mapping[str, str]) -> list[Duty]:
        """Every stage of every regime. A stated time that cannot be read counts as not stated: it starts no clock."""
        try:
            known = instants(incident, facts)
        except IncidentError:
            known = instants(incident)
        return [duty for regime in self.regimes for duty in duties(regime, known)]


def load_duty_book() -> DutyBook:
    """The shipped regimes. Raises: LawError."""
    folder = Path(breachwatch.law.__file__).parent / "regimes"
    files = sorted(folder.glob("*.yaml"))
    return DutyBook(tuple(row for file in files for row in load_regimes(file.read_text(encoding="utf-8"), str(file))))
