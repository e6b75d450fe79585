"""Doctor, part three: can the promise be kept? Rules, playbooks, people, letterhead, audiences, templates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from breachwatch.app.finding import Finding, ok, problem, warning
from breachwatch.app.playbooks import playbooks_in_use
from breachwatch.app.rule_reach import rules_without_source
from breachwatch.app.rules import rules_in
from breachwatch.config.settings import Settings
from breachwatch.config.shipped import shipped_folder
from breachwatch.detect.ruleset import RuleSet
from breachwatch.errors import BreachWatchError, PlaybookError
from breachwatch.notify.campaign import letterhead_facts
from breachwatch.notify.template import TemplateSet, load_templates
from breachwatch.playbook.schema import Playbook

LETTERHEAD_MUST = ("name", "address", "hotline", "email", "signatory", "privacy_contact")
"""Facts that notices to authorities and customers state whatever the template says."""


def check_rules(settings: Settings) -> Iterator[Finding]:
    """Rules load, and none is refused."""
    folders = [shipped_folder("rules")] if settings.rules.shipped else []
    folders += list(settings.rules.directories)
    if not folders:
        yield problem("rules", "none: nothing would ever match", "set rules.shipped = true or rules.directories")
        return
    try:
        loaded = rules_in(folders, placeholders=settings.rules.placeholders)
    except BreachWatchError as error:
        yield problem("rules", str(error), "correct rules.directories")
        return
    for refused in loaded.refused:
        yield problem("rule refused", str(refused), "`breachwatch rules lint` checks a file")
    yield from _without_source(settings, loaded)
    number = len(loaded.rules) + len(loaded.correlations)
    if number:
        yield ok("rules", f"{number} in force")
    else:
        yield problem("rules", "none in force: nothing would ever match", "see the refusals above")


def _without_source(settings: Settings, loaded: RuleSet) -> Iterator[Finding]:
    """Rules of the operator that nothing watched here can trigger; of the shipped pack that is no fault."""
    own = tuple(str(folder) for folder in settings.rules.directories)
    formats = {log.format for log in settings.watch.logs} | ({"journal"} if settings.watch.journal.enabled else set())
    formats |= {listener.format for listener in settings.watch.syslog}
    lost = rules_without_source(loaded, formats, integrity=settings.watch.integrity.enabled)
    for one in lost:
        if own and one.rule.source.startswith(own):
            where = f"{one.rule.source}: {one.reason}"
            yield warning("rule never runs", where, "watch such a log, or leave the rule out")


def check_playbooks(settings: Settings) -> Iterator[Finding]:
    """Those in use load, and whom they name exists."""
    if not settings.playbooks.use:
        yield problem("playbooks", "none in use: nobody would be paged or told", 'playbooks.use = ["vietnam-pdpl"]')
    people = {person.name for person in settings.team.people}
    for playbook in playbooks_in_use(settings):
        if isinstance(playbook, PlaybookError):
            yield problem("playbook", str(playbook), "`breachwatch playbook lint FILE` checks a file")
            continue
        what = f"playbook {playbook.id}"
        missing = sorted({level.to for level in playbook.escalation} - people - set(settings.team.groups))
        if missing:
            yield problem(what, f"pages {', '.join(missing)}, who is nobody here", "add team.groups of these names")
        for step in playbook.on_confirm:
            yield from _check_addressee(settings, what, step.notice.to, step.notice.audience)
        if not missing:
            yield ok(what, "loads")


def _check_addressee(settings: Settings, what: str, authority: str | None, audience: str | None) -> Iterator[Finding]:
    if authority and authority not in settings.authorities:
        yield problem(
            what, f"writes to the authority {authority}, which has no address here", f"add [authorities.{authority}]"
        )
    if audience and audience not in settings.audiences:
        yield problem(what, f"tells the audience {audience}, which is not defined here", f"add [audiences.{audience}]")


def check_team(settings: Settings) -> Iterator[Finding]:
    """Somebody can be paged, on a channel that exists; nobody stands in for two."""
    people = settings.team.people
    if not people:
        yield problem("team", "nobody: no incident would ever be seen", "add [[team.people]]")
        return
    reachable = 0
    for person in people:
        ways = [
            bool(person.email and settings.smtp.host),
            bool(person.phone and settings.sms.url),
            bool(person.chat and any(room.name == person.chat for room in settings.chat)),
        ]
        reachable += any(ways)
        if not any(ways):
            yield warning(
                f"team member {person.name}", "no channel reaches them", "give an email, phone or chat that is set up"
            )
    if not reachable:
        yield problem("team", "nobody can be reached", "set up smtp, sms or chat, and contacts in team.people")
    for group, members in settings.team.groups.items():
        if not members:
            yield problem(f"team group {group}", "is empty", "name members in team.groups")


def check_approvers(settings: Settings) -> Iterator[Finding]:
    """Whoever confirms, enough other people may approve."""
    for playbook in playbooks_in_use(settings):
        if isinstance(playbook, PlaybookError):
            continue
        for step in playbook.on_confirm:
            yield _approval(settings, playbook.key(step.id), set(step.approve.roles), step.approve.need)


def _approval(settings: Settings, step: str, roles: set[str], need: int) -> Finding:
    people = {person.os_user or person.name: set(person.roles) for person in settings.team.people}
    approvers = {who for who, held in people.items() if held & roles}
    what = f"approval of {step}"
    wanted = " or ".join(sorted(roles))
    possible = [who for who in people if len(approvers - {who}) >= need]
    if not possible:
        return problem(
            what,
            f"no second approver: needs {need} with role {wanted} besides the person who asks",
            "give the role to another person in team.people",
        )
    if len(possible) < len(people):
        return warning(
            what,
            f"fails when an approver asks: only {len(approvers)} with role {wanted}",
            "give the role to one more person in team.people",
        )
    return ok(what, f"{len(approvers)} people may approve, {need} needed")


def check_letterhead(settings: Settings) -> Iterator[Finding]:
    """Facts that notices state about the company."""
    stated = settings.letterhead.model_dump()
    missing = [name for name in LETTERHEAD_MUST if not stated[name].strip()]
    if missing:
        yield problem(
            "letterhead",
            f"missing: {', '.join(missing)}: an authority refuses such a notice, a customer cannot check it",
            "fill in [letterhead]",
        )
    else:
        yield ok("letterhead", "complete")
    if not stated["verify_url"].strip():
        yield warning("letterhead", "no verify_url: customers cannot check that a message is real", "publish a page")


def check_templates(settings: Settings) -> Iterator[Finding]:
    """Templates compile; those that playbooks name exist and find the letterhead facts they need."""
    try:
        templates = load_templates(settings.templates.directories)
    except BreachWatchError as error:
        yield problem("templates", str(error), "correct the template, or take it out of templates.directories")
        return
    known = set(letterhead_facts(settings.letterhead.model_dump()))
    used = [
        (playbook.key(step.id), language, name)
        for playbook in playbooks_in_use(settings)
        if isinstance(playbook, Playbook)
        for step in playbook.on_confirm
        for language, name in step.notice.templates.items()
    ]
    faults = [fault for item in used for fault in _template_faults(templates, known, *item)]
    yield from faults
    if not faults:
        yield ok("templates", f"{len(templates.names())} compile, {len(used)} in use")


def _template_faults(templates: TemplateSet, known: set[str], step: str, language: str, name: str) -> Iterator[Finding]:
    what = f"template {name}.{language} of {step}"
    if not templates.has(name, language, "txt"):
        yield problem(what, "does not exist", f"add {name}.{language}.txt.j2 to a folder of templates.directories")
        return
    company = {fact for fact in templates.required(name, language) if fact.startswith(("org.", "contact."))}
    if absent := sorted(company - known):
        yield problem(what, f"needs facts that are missing: {', '.join(absent)}", "fill in [letterhead]")


def check_audiences(settings: Settings) -> Iterator[Finding]:
    """Files can be read; databases have an address and a query. Who is in them is not looked at."""
    for name, audience in settings.audiences.items():
        what = f"audience {name}"
        if audience.csv is not None:
            if not os.access(audience.csv, os.R_OK) or not Path(audience.csv).is_file():
                yield problem(what, f"{audience.csv} cannot be read", f"correct audiences.{name}.csv")
            else:
                yield ok(what, "readable file")
        elif not audience.url.get_secret_value():
            yield problem(what, "no database address", f"write it to a file and name it in audiences.{name}.url_file")
        else:
            yield ok(what, "a database is named (it is read when a notice is prepared)")
