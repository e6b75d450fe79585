"""Rows on made-up logs: auth.log, access log and JSON beside ripgrep and rsigma; fail2ban, SEC and Zircolite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.detect.ours import Bench
from benchmarks.detect.peers import RSIGMA_MODES, fail2ban, literals, ripgrep, rsigma, sec, zircolite
from benchmarks.detect.race import Result, Runner, alike, best, race
from benchmarks.detect.table import Table
from breachwatch.detect.plan import Scope

ANY_SOURCE = ("--logsource", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Peers that are here; "" or None: not."""

    rg: str
    rsigma: str
    fail2ban: str
    sec: str
    zircolite: Path | None
    zircolite_python: str


def auth(bench: Bench, table: Table, programs: Programs) -> None:
    """Keyword rules on auth.log beside ripgrep."""
    for share in (0.001, 0.05):
        _beside_rg(f"auth.log, 22 keyword rules, {share:.1%}", bench, table, programs, "auth", share, 1.5)


def web(bench: Bench, table: Table, programs: Programs) -> None:
    """Web rules on an access log beside ripgrep."""
    for share, must in ((0.001, 3.0), (0.05, 1.0)):
        _beside_rg(f"nginx access, web rules, {share:.1%}", bench, table, programs, "web", share, must)


def _beside_rg(task: str, bench: Bench, table: Table, programs: Programs, kind: str, share: float, must: float) -> None:
    file = bench.data(kind, share)
    is_auth = kind == "auth"
    folder = bench.keyword_rules() if is_auth else bench.sigmahq / "web"
    log_format = "syslog" if is_auth else "nginx"
    source = ANY_SOURCE if is_auth else ()
    runners = [
        bench.scan(folder, log_format, "--count", *source, name="breachwatch scan --count"),
        bench.scan(folder, log_format, *source),
    ]
    said = _rg(runners, bench, programs, folder, log_format, file, any_logsource=is_auth)
    table.on(file)
    ours, told, *peers = race(runners, file, bench.scratch, bench.runs)
    table.ours(task, ours)
    table.ours(task, told, f"each match as JSON; {alike(ours, told)}")
    for peer, note in zip(peers, said, strict=True):
        table.peer(task, peer, ours, must, note)
        table.peer(task, peer, told, None, "the same run, beside matches as JSON")
    if not peers:
        table.left_out(task, "rg is not installed")


def _rg(
    runners: list[Runner], bench: Bench, programs: Programs, folder: Path, log_format: str, file: Path,
    *, any_logsource: bool,
) -> list[str]:  # fmt: skip
    """Adds ripgrep to the runners, with each of two choices of literals; what it is asked for, in words."""
    if not programs.rg:
        return []
    said = []
    rules, scope = bench.loaded(folder), Scope(any_logsource=any_logsource)
    with file.open("rb") as opened:
        lines = opened.read(1 << 20)
    for name, sample in (("fitted", lines[: lines.rfind(b"\n") + 1]), ("unfitted", b"")):
        wanted = literals(rules, log_format, scope, sample)
        kept = bench.scratch / f"literals-{file.stem}-{name}"
        kept.write_bytes(b"\n".join(wanted))
        runners.append(ripgrep(programs.rg, kept, f"rg, literals {name}"))
        mean = sum(map(len, wanted)) / max(1, len(wanted))
        said.append(f"{len(wanted)} literals, {min(map(len, wanted), default=0)} bytes and more, mean {mean:.0f}")
    return said


def json_events(bench: Bench, table: Table, programs: Programs) -> None:
    """All Linux rules on JSON beside ripgrep, and beside rsigma with and without its routing by log source."""
    folder = bench.sigmahq / "linux"
    for share in (0.001, 0.05):
        task = f"JSON, 210 Linux rules, {share:.1%}"
        file = bench.data("json", share)
        runners = [
            bench.scan(folder, "json", name="breachwatch scan"),
            bench.scan(folder, "json", *ANY_SOURCE, name="breachwatch scan --logsource any"),
            bench.scan(folder, "json", "--count", name="breachwatch scan --count"),
            bench.scan(folder, "json", "--count", *ANY_SOURCE, name="breachwatch scan --count --logsource any"),
        ]
        said = _rg(runners, bench, programs, folder, "json", file, any_logsource=True)
        first_peer = len(runners)
        if programs.rsigma:
            runners += [rsigma(programs.rsigma, folder, mode) for mode in RSIGMA_MODES]
        table.on(file)
        results = race(runners, file, bench.scratch, bench.runs)
        routed, anything, *counted = results[:4]
        for one in results[:4]:
            table.ours(task, one, alike(one, anything if "any" in one.name else routed))
        for peer, note in zip(results[4:first_peer], said, strict=True):
            for ours, must in ((counted[0], 0.5), (counted[1], 0.5), (routed, None), (anything, None)):
                table.peer(task, peer, ours, must, f"{note}; beside {ours.name}")
        if not said:
            table.left_out(task, "rg is not installed")
        beside_rsigma(task, table, routed, anything, results[first_peer:], must=5.0)


def beside_rsigma(
    task: str, table: Table, routed: Result, anything: Result, modes: Sequence[Result], *, must: float | None
) -> None:
    """Rows of rsigma: those that route beside our routed scan, the others beside `any`; the best of each is judged."""
    if not modes:
        table.left_out(task, "rsigma is not installed")
        return
    named = dict(zip(RSIGMA_MODES, modes, strict=True))
    for pair, ours in ((("--logsource-routing", "both"), routed), (("plain", "--cross-rule-ac"), anything)):
        fastest = best(named[mode] for mode in pair)
        for mode in pair:
            result = named[mode]
            table.peer(task, result, ours, must if result is fastest else None, alike(ours, result))


def fail2ban_row(bench: Bench, table: Table, programs: Programs) -> None:
    """The shipped rules about failed SSH logins beside fail2ban's sshd filter: lines counted, and windows."""
    for share in (0.001, 0.05):
        task = f"auth.log, failed logins, {share:.1%}"
        if not programs.fail2ban:
            table.left_out(task, "fail2ban-regex is not installed")
            continue
        file = bench.data("auth", share)
        runners = [
            bench.scan(bench.failed_logins(windows=False), "syslog", "--count", name="breachwatch scan --count, lines"),
            bench.scan(bench.failed_logins(windows=True), "syslog", name="breachwatch scan, windows too"),
            fail2ban(programs.fail2ban),
        ]
        table.on(file)
        counted, windows, peer = race(runners, file, bench.scratch, bench.runs)
        table.ours(task, counted)
        table.ours(task, windows, "brute force and spraying by address")
        table.peer(task, peer, counted, 50.0, "lines that match, counted")
        table.peer(task, peer, windows, None, "the same run, beside windows, of which it has none")


def sec_row(bench: Bench, table: Table, programs: Programs) -> None:
    """Keyword rules beside SEC with an expression for each."""
    for share in (0.001, 0.05):
        task = f"auth.log, 22 keyword rules, {share:.1%}"
        if not programs.sec:
            table.left_out(task, "sec is not installed")
            continue
        folder = bench.keyword_rules()
        peer = sec(programs.sec, bench.rules(folder), bench.scratch)
        runners = [bench.scan(folder, "syslog", *ANY_SOURCE), peer]
        _pair(task, bench, table, runners, bench.data("auth", share), 100.0, "expressions in which case counts")


def zircolite_row(bench: Bench, table: Table, programs: Programs) -> None:
    """All Linux rules on JSON beside Zircolite."""
    for share in (0.001, 0.05):
        task = f"JSON, 210 Linux rules, {share:.1%}"
        if programs.zircolite is None or not programs.zircolite.exists():
            table.left_out(task, "Zircolite is not here (--zircolite FOLDER --zircolite-python PYTHON)")
            continue
        folder = bench.sigmahq / "linux"
        peer = zircolite(programs.zircolite, programs.zircolite_python, folder, bench.scratch)
        runners = [bench.scan(folder, "json", *ANY_SOURCE), peer]
        _pair(task, bench, table, runners, bench.data("json", share), 30.0, "of its 182 rules that can be SQL")


def audit_row(bench: Bench, table: Table, programs: Programs) -> None:
    """All Linux rules on the log of the audit daemon, whose events have several lines, beside Zircolite."""
    folder = bench.sigmahq / "linux"
    for share in (0.001, 0.05):
        task = f"audit.log, 210 Linux rules, {share:.1%}"
        file = bench.data("audit", share)
        runners = [bench.scan(folder, "auditd")]
        if programs.zircolite is not None and programs.zircolite.exists():
            python = programs.zircolite_python
            runners.append(zircolite(programs.zircolite, python, folder, bench.scratch, option="--auditd"))
        table.on(file)
        ours, *peers = race(runners, file, bench.scratch, bench.runs)
        table.ours(task, ours)
        for peer in peers:
            table.peer(task, peer, ours, None, "rules as SQL, on its own names of the fields")


def _pair(task: str, bench: Bench, table: Table, runners: Sequence[Runner], file: Path, must: float, note: str) -> None:
    table.on(file)
    ours, peer = race(runners, file, bench.scratch, bench.runs)
    table.ours(task, ours)
    table.peer(task, peer, ours, must, note)
