"""The peers as runners: ripgrep, rsigma, fail2ban-regex, SEC, Zircolite."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.detect.race import Runner
from breachwatch.detect.plan import Plan, Scope
from breachwatch.detect.rule import And, Condition, Keyword, Not, Or, Rule
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.selector import Selector
from breachwatch.detect.values import ANY, ONE, Regex, Text
from breachwatch.parse.rawform import FORMS

RSIGMA_MODES: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "--logsource-routing": ("--logsource-routing",),
    "--cross-rule-ac": ("--cross-rule-ac",),
    "both": ("--logsource-routing", "--cross-rule-ac"),
}
SSHD_FILTER = Path("/etc/fail2ban/filter.d/sshd.conf")


def ripgrep(program: str, literals: Path, name: str) -> Runner:
    """Counts the lines that hold one of the literals."""
    options = ("-c", "-i", "-F", "-j1", "--mmap", "-f", str(literals))
    return Runner(name=name, command=lambda file: (program, *options, str(file)), found=_number)


def literals(rules: RuleSet, log_format: str, scope: Scope, sample: bytes = b"") -> list[bytes]:
    """What our engine looks for in lines of this format: once it has seen some (the sample), or before.

    Without what makes a line dirty: that is no literal of a rule, and rg's `-i` takes the long s for every s.
    """
    form = FORMS[log_format]
    plan = Selector(rules).plan(form, scope, sample) if sample else Plan(rules.rules, form, scope)
    chosen = {pattern for witness in plan.witnesses.values() for pattern in witness or ()}
    return sorted(pattern.data for pattern in chosen if not pattern.is_regex)


def rsigma(program: str, rules: Path, mode: str) -> Runner:
    """`rsigma engine eval` in one of its modes."""
    options = ("engine", "eval", "-r", str(rules), "-q", "--no-stats", *RSIGMA_MODES[mode])
    return Runner(
        name=f"rsigma {mode}", command=lambda file: (program, *options, "-e", f"@{file}"), found=_rsigma_alerts
    )


def fail2ban(program: str) -> Runner:
    """The whole sshd filter; names are not looked up, for that would wait for the network."""
    return Runner(
        name="fail2ban-regex, sshd filter",
        command=lambda file: (program, "--usedns=no", str(file), str(SSHD_FILTER)),
        found=_fail2ban_lines,
    )


def sec(program: str, rules: Sequence[Rule], scratch: Path) -> Runner:
    """A SEC rule for each of the keyword rules, each one expression.

    Case counts in them, as people write them for SEC: without case Perl would take ten times as long.
    """
    config = scratch / "sec.conf"
    config.write_text("\n".join(map(_sec_rule, rules)))
    options = (f"--conf={config}", "--notail", "--nointevents", "--debug=3")
    return Runner(
        name=f"SEC, {len(rules)} rules", command=lambda file: (program, *options, f"--input={file}"), found=_sec_matches
    )


def zircolite(folder: Path, python: str, rules: Path, scratch: Path, *, option: str = "-j") -> Runner:
    """Zircolite over JSON lines (`option`: or others) with Sigma files; converting these belongs to its start."""
    out, log = scratch / "zircolite.json", scratch / "zircolite.log"
    options = (option, "--no-parallel", "-q", "-r", str(rules), "-o", str(out), "-l", str(log))

    def command(file: Path) -> Sequence[str]:
        out.unlink(missing_ok=True)
        suffix = ".json" if option == "-j" else ".log"
        named = file if file.suffix == suffix else scratch / f"{file.name}{suffix}"
        if not named.exists():
            named.symlink_to(file)
        return (python, str(folder / "zircolite.py"), *options, "-e", str(named))

    return Runner(
        name="Zircolite", command=command, found=lambda _: _zircolite_alerts(out), folder=folder, begin="line"
    )


def _number(output: Path) -> tuple[int, Mapping[str, int]]:
    printed = output.read_text().strip()
    return int(printed) if printed.isdecimal() else 0, {}


def _rsigma_alerts(output: Path) -> tuple[int, Mapping[str, int]]:
    by_rule: Counter[str] = Counter()
    with output.open("rb") as printed:
        for line in printed:
            if line.startswith(b"{"):
                by_rule[json.loads(line).get("rule_id") or "?"] += 1
    return by_rule.total(), by_rule


def _fail2ban_lines(output: Path) -> tuple[int, Mapping[str, int]]:
    """From `Lines: 9 lines, 0 ignored, 4 matched, 5 missed`."""
    said = re.search(r"^Lines: .*?(\d+) matched", output.read_text(errors="replace"), re.MULTILINE)
    return int(said[1]) if said else 0, {}


def _sec_rule(rule: Rule) -> str:
    return (
        f"type=Single\ncontinue=TakeNext\nptype=RegExp\npattern={sec_pattern(rule.condition)}\n"
        f"desc={rule.ref.id}\naction=write - match {rule.ref.id}\n"
    )


def sec_pattern(condition: Condition) -> str:
    """A Perl expression that matches the lines for which a condition of keywords holds."""
    if isinstance(condition, Keyword):
        return _of_keyword(condition)
    if isinstance(condition, Or) and all(isinstance(part, Keyword) for part in condition.parts):
        return "|".join(map(_of_keyword, condition.parts))  # Perl makes a trie of it
    return f"^{_ahead(condition)}"


def _ahead(condition: Condition) -> str:
    if isinstance(condition, And):
        return "".join(map(_ahead, condition.parts))
    if isinstance(condition, Or) and not all(isinstance(part, Keyword) for part in condition.parts):
        return f"(?:{'|'.join(map(_ahead, condition.parts))})"
    if isinstance(condition, Or):
        return f"(?=.*?(?:{'|'.join(map(_of_keyword, condition.parts))}))"
    if isinstance(condition, Not):
        return f"(?!{_ahead(condition.part)})"
    return f"(?=.*?{_of_keyword(condition)})"


def _of_keyword(leaf: Condition) -> str:
    assert isinstance(leaf, Keyword)
    if isinstance(leaf.value, Regex):
        return f"(?:{leaf.value.pattern})"
    assert isinstance(leaf.value, Text)
    pieces = ["." if piece is ONE else ".*" if piece == ANY else _quoted(piece) for piece in leaf.value.pieces]
    while pieces and pieces[0] == ".*":  # a keyword may stand anywhere; a star in front would only slow the search
        del pieces[0]
    while pieces and pieces[-1] == ".*":
        del pieces[-1]
    return "".join(pieces)


def _quoted(text: str) -> str:
    """Literal text in a pattern of a SEC file, where a blank at the end of a line would be lost."""
    return re.sub(r"[^A-Za-z0-9_]", lambda found: f"\\x{{{ord(found[0]):x}}}", text)


def _sec_matches(output: Path) -> tuple[int, Mapping[str, int]]:
    by_rule = Counter(line.split()[1] for line in output.read_text().splitlines() if line.startswith("match "))
    return by_rule.total(), by_rule


def _zircolite_alerts(out: Path) -> tuple[int, Mapping[str, int]]:
    if not out.exists():
        return 0, {}
    by_rule = {rule["id"]: int(rule["count"]) for rule in json.loads(out.read_bytes() or b"[]")}
    return sum(by_rule.values()), by_rule
