"""The built-in packs: real logs, the rules' own examples, names that are no messages; precedence; bad files."""

from __future__ import annotations

import shlex
import time
import tomllib
from pathlib import Path

import pytest

from snapbreaker.errors import UsageError
from snapbreaker.issue import IssueType
from snapbreaker.monitor import packs
from snapbreaker.monitor.judge import Judge, check_log
from snapbreaker.monitor.packs import BUILT_IN, builtin_packs, load_pack, parse_pack
from snapbreaker.monitor.rule import Rule
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.monitor.runaway import ambiguous

CORPUS = Path(__file__).parent.parent / "corpus"
LOGS = tomllib.loads((CORPUS / "index.toml").read_text())["log"]
BUILTIN = [rule for pack in builtin_packs().values() for rule in pack.rules]
APT = RuleSet.for_command(["apt-get", "install"])
DEFAULT = RuleSet.for_command([])
EVERYTHING = RuleSet.for_command([], profiles=[name for name in BUILT_IN if name != packs.DEFAULT])


def trips(line: str, rules: RuleSet = DEFAULT) -> IssueType | None:
    issues = Judge(rules).feed("s", line.encode() + b"\n")
    return issues[0].type if issues else None


@pytest.mark.parametrize("log", LOGS, ids=[log["file"] for log in LOGS])
def test_real_logs(log: dict[str, object]) -> None:
    rules = RuleSet.for_command(shlex.split(str(log["command"])))
    with (CORPUS / str(log["file"])).open("rb") as stream:
        issue = check_log(rules, stream, source="log")
    found = (issue.type.value, issue.line_number) if issue else (None, None)
    assert found == (log.get("type"), log.get("line")), issue


@pytest.mark.parametrize("log", LOGS, ids=[log["file"] for log in LOGS])
def test_no_pack_hides_what_another_finds(log: dict[str, object]) -> None:
    """A deploy that runs every tool is judged by all packs."""
    with (CORPUS / str(log["file"])).open("rb") as stream:
        issue = check_log(EVERYTHING, stream, source="log")
    assert (issue is None) == ("line" not in log), issue
    if issue:
        assert abs(issue.line_number - int(str(log["line"]))) <= 1, issue


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_lines_of_many_tools(kind: str) -> None:
    """COMMAND|LINE, written from memory: of tools that have a pack, and of more that have none."""
    rows = (CORPUS / "lines" / f"{kind}.txt").read_text().splitlines()
    packs_of: dict[str, RuleSet] = {}
    wrong = []
    for command, _, line in (row.partition("|") for row in rows):
        if command not in packs_of:
            packs_of[command] = RuleSet.for_command(shlex.split(command))
        judge = Judge(packs_of[command])
        if bool(judge.feed("s", line.encode()) + judge.close("s")) != (kind == "bad"):
            wrong.append(f"{command}: {line}")
    assert not wrong


@pytest.mark.parametrize("rule", [r for r in BUILTIN if r.examples], ids=lambda rule: rule.full_name)
def test_examples_trip_their_rule_through_the_prefilter(rule: Rule) -> None:
    rules = RuleSet([builtin_packs()[name] for name in dict.fromkeys([packs.DEFAULT, rule.pack])])
    for example in rule.examples:
        assert rule.pattern.search(example), example
        needles = rules.prefilter.needles(example.encode())
        assert not rule.needles or rule.needles & needles, example
        assert rules.judge(example, needles) is not None, example


def test_every_builtin_pack_is_one_and_is_right() -> None:
    folder = Path(packs.__file__).parents[1] / "rules"
    assert [path.stem for path in sorted(folder.glob("*.toml"))] == list(BUILT_IN)
    for name, pack in builtin_packs().items():
        for rule in pack.rules:
            assert rule.type.whole_line or not rule.pattern.search("")
            assert not ambiguous(rule.source, rule.flags), rule.full_name
        assert name == packs.DEFAULT or pack in RuleSet.for_command([min(pack.commands)]).packs


@pytest.mark.parametrize("rule", BUILTIN, ids=lambda rule: rule.full_name)
def test_builtin_rules_are_complete(rule: Rule) -> None:
    assert rule.reason
    if rule.type.trips:
        assert rule.needles, "would be tried on every line"
        assert rule.examples


@pytest.mark.parametrize(
    "line",
    [
        "Setting up liberror-perl (0.17029-2) ...",
        "Unpacking libgpg-error0:amd64 (1.46-1) ...",
        "Get:4 http://mirror.example.org/debian bookworm/main amd64 python3-deprecated all 1.2.13-1 [11.0 kB]",
        "  liberror-perl localized-error-pages python3-deprecated libtest-warn-perl fail2ban",
        "creating /usr/share/errors/404.html",
        "tail -f /var/log/nginx/error.log",
        "rotating error.log and warnings.txt",
        "dnf install --skip-broken --on-error=abort",
        "/dev/sda1 on / type ext4 (rw,relatime,errors=remount-ro)",
        "gcc -Wall -Werror -Wno-error=unused -c errors.c -o errors.o",
        "0 errors, 0 warnings",
        "Found 0 errors and 0 warnings in 12 files",
        "no errors or warnings",
        "Build succeeded without errors.",
        "web1 : ok=2  changed=1  unreachable=0  failed=0  skipped=0  rescued=0  ignored=0",
        "Tests run: 42, Failures: 0, Errors: 0, Skipped: 0",
        "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured",
        '{"level":"info","msg":"done","errors":[],"error":null,"failed":false}',
        "test errors::parse_error ... ok",
        "tests/test_errors.py::test_fails_gracefully PASSED [ 50%]",
        "ok 5 - dies with an error on bad input",
        "  ✓ shows an error when the form is empty (12 ms)",
        "copying src/exceptions.py -> build/lib/exceptions.py",
        "Checking for errors",
        "installing error pages",
        "INFO  [alembic.runtime.migration] Running upgrade a -> b, add errors table",
        "   Compiling failure_derive v0.1.8",
        "checking whether gcc supports -Wno-error... yes",
        "enabled error handling",
        "x86_64-unknown-linux-gnu",
        "0 upgraded, 1 newly installed, 0 to remove and 3 not upgraded.",
        "-rw-r--r-- 1 root root 0 Jan  1 00:00 error",
        "config.ini not found, creating it",
        "https://example.org/errors/fatal?warning=1",
        "Restart=on-failure",
        "systemctl reset-failed",
        "100% [=====================>] 12.3M",
    ],
)
def test_names_counts_and_options_are_no_messages(line: str) -> None:
    assert trips(line) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ERROR: migration 42 failed", IssueType.ERROR),
        ("error", IssueType.ERROR),
        ("[error] 12#12: bind() failed", IssueType.ERROR),
        ("10 errors, 0 warnings", IssueType.ERROR),
        ("1 error generated.", IssueType.ERROR),
        ("0 passed, 3 failed", IssueType.ERROR),
        ("Tests run: 3, Failures: 0, Errors: 1", IssueType.ERROR),
        ("db1 : ok=2 changed=0 unreachable=1 failed=0", IssueType.ERROR),
        ("/src/a/main.c:12:3: error: expected ';'", IssueType.ERROR),
        ("liberror-perl: error: cannot unpack", IssueType.ERROR),
        ("ERROR: 0 rows imported", IssueType.ERROR),
        ("subprocess returned an error code (1)", IssueType.ERROR),
        ("django.db.utils.OperationalError: could not connect", IssueType.ERROR),
        ("  File '/x.py': IndexError: list index out of range", IssueType.ERROR),
        ("psql: FATAL:  database does not exist", IssueType.ERROR),
        ("bash: line 1:  4242 Segmentation fault      ./x", IssueType.ERROR),
        ("Killed", IssueType.ERROR),
        ("sh: 1: foo: not found", IssueType.ERROR),
        ("! [rejected]        main -> main (fetch first)", IssueType.ERROR),
        ("timeout: the monitored command dumped core", IssueType.ERROR),
        ("iptables: No chain/target/match by that name.", IssueType.ERROR),
        ("UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.", IssueType.ERROR),
        ("nginx: [emerg] unknown directive", IssueType.ERROR),
        ("npm error code ENOENT", IssueType.ERROR),
        ("--- FAIL: TestX (0.00s)", IssueType.ERROR),
        ("(error) NOAUTH Authentication required.", IssueType.ERROR),
        ("HTTP/1.1 503 Service Unavailable", IssueType.ERROR),
        ("Job for nginx.service failed.", IssueType.ERROR),
        ("WARNING: disk is nearly full", IssueType.WARNING),
        ("foo.c:3:1: warning: unused variable", IssueType.WARNING),
        ("npm warn deprecated inflight@1.0.6: This module leaks", IssueType.WARNING),
        ("pkg is deprecated", IssueType.WARNING),
        ("warning: file not found, error follows", IssueType.WARNING),
        ("Skipping migration 3", IssueType.SKIP),
        ("migration 4 ... SKIPPED", IssueType.SKIP),
        ("plugin foo not found", IssueType.SKIP),
    ],
)
def test_messages_trip(line: str, expected: IssueType) -> None:
    assert trips(line) is expected


TAIL = " - pkgAcquire::Run (13: Permission denied)"
APT_ONLY = [
    "debconf: delaying package configuration, since apt-utils is not installed",
    "invoke-rc.d: policy-rc.d denied execution of start.",
    "invoke-rc.d: WARNING: No init system and policy-rc.d missing! Defaulting to block.",
    f"N: Download is performed unsandboxed as root as file '/x' couldn't be accessed by user '_apt'.{TAIL}",
    "update-alternatives: warning: skip creation of /a because associated file /b (of link group a) doesn't exist",
    "dpkg: warning: while removing foo, directory '/var/lib/foo' not empty so not removed",
]


@pytest.mark.parametrize("line", APT_ONLY)
def test_apt_knows_its_harmless_lines(line: str) -> None:
    assert trips(line, APT) is None
    assert trips(line + " ERROR: but this", APT) is not None, "an allow rule covers the whole line or nothing"


@pytest.mark.parametrize("name", ["nginx-light", "default-jre-headless", "redis-server", "snmpd", "remove"])
def test_strict_mode_knows_the_steps_of_apt(name: str) -> None:
    with (CORPUS / f"apt/good-{name}.log").open("rb") as stream:
        assert check_log(APT, stream, source="log", strict=True) is None


# ---- precedence ----


def _file(tmp_path: Path, name: str, *rules: tuple[str, str, str]) -> Path:
    path = tmp_path / name
    path.write_text(
        "".join(
            f"[[rule]]\nname = '{n}'\ntype = '{kind}'\npattern = '{pattern}'\nreason = 'because'\n"
            for n, kind, pattern in rules
        )
    )
    return path


def test_allow_of_the_user_wins_over_all_packs(tmp_path: Path) -> None:
    mine = _file(tmp_path, "mine.toml", ("ok", "allow", "E: known trouble"))
    rules = RuleSet.for_command(["apt"], [mine])
    assert trips("E: known trouble", rules) is None
    assert trips("E: known trouble and more", rules) is IssueType.ERROR


def test_issue_of_the_user_wins_over_allow_of_a_pack(tmp_path: Path) -> None:
    mine = _file(tmp_path, "mine.toml", ("no", "SKIP", "policy-rc.d denied"))
    rules = RuleSet.for_command(["apt"], [mine])
    assert trips("invoke-rc.d: policy-rc.d denied execution of start.", rules) is IssueType.SKIP


def test_a_later_file_wins(tmp_path: Path) -> None:
    one = _file(tmp_path, "one.toml", ("a", "allow", "ERROR x"))
    two = _file(tmp_path, "two.toml", ("b", "TIMEOUT", "ERROR x"))
    assert trips("ERROR x", RuleSet.for_command([], [one, two])) is IssueType.TIMEOUT
    assert trips("ERROR x", RuleSet.for_command([], [two, one])) is None


def test_a_mask_blanks_for_its_own_and_earlier_packs(tmp_path: Path) -> None:
    mine = _file(tmp_path, "mine.toml", ("name", "mask", "ERROR-BOARD"), ("later", "ERROR", "board"))
    rules = RuleSet.for_command([], [mine])
    assert trips("the ERROR BOARD", rules) is IssueType.ERROR
    assert trips("ERROR-BOARD: 3 messages", rules) is None
    assert trips("ERROR-BOARD: 3 errors", rules) is IssueType.ERROR


def test_rules_are_listed_with_the_winning_first(tmp_path: Path) -> None:
    mine = _file(tmp_path, "mine.toml", ("ok", "allow", "x"))
    names = [rule.full_name for rule in RuleSet.for_command(["apt"], [mine]).rules]
    assert names[0] == "mine/ok"
    assert names.index("apt/fetch-failed") < names.index("default/failed")


# ---- bad files ----

GOOD = "[[rule]]\nname = 'fine'\ntype = 'ERROR'\npattern = 'x'\n\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]\n", "f.toml:1: not TOML"),
        ("[rules]\n", "f.toml: unknown key 'rules'"),
        ("[pack]\nowner = 'me'\n", "f.toml: unknown key 'owner'"),
        ("rule = 3\n", "f.toml: 'rule' must be a list"),
        (
            GOOD + "[[rule]]\nname='n'\ntype='ERROR'\npattern='a'\ncolour='red'\n",
            "f.toml:6: rule 'n': unknown key 'colour'",
        ),
        (GOOD + "[[rule]]\ntype='ERROR'\npattern='a'\n", "f.toml:6: rule 2: 'name' is missing"),
        ("[[rule]]\nname='n'\ntype='BAD'\npattern='a'\n", "rule 'n': unknown type 'BAD'"),
        ("[[rule]]\nname='n'\ntype='ERROR'\npattern='(a'\n", "rule 'n': bad pattern: missing \\)"),
        ("[[rule]]\nname='n'\ntype='ERROR'\npattern='(a+)+'\n", "rule 'n': bad pattern: a repeat in a repeat"),
        ("[[rule]]\nname='n'\ntype='ERROR'\npattern='a*'\n", "matches an empty line"),
        ("[[rule]]\nname='n'\ntype='allow'\npattern='a'\n", "an allow rule needs a reason"),
        ("[[rule]]\nname='n'\ntype='mask'\npattern='a'\nreason=' '\n", "a mask rule needs a reason"),
        ("[[rule]]\nname='n'\ntype='ERROR'\npattern='a'\nflags=['loud']\n", "unknown flag 'loud'"),
        ("[[rule]]\nname='n'\ntype='ERROR'\npattern='a'\nwords=['--']\n", "finds nothing"),
        ("[[rule]]\nname='n'\ntype='ERROR'\npattern='a'\nliterals=['é']\n", "must be ASCII"),
        ("[[rule]]\nname='n'\ntype='ERROR'\npattern='a'\nwords=[1]\n", "must be a list of strings"),
        ("[[rule]]\nname='n'\ntype='ERROR'\npattern='abc'\ncontexts=['gone']\n", "no such context"),
        ("[[sign]]\npattern='^x$'\n", "sign 1: .*give words"),
        ("[[context]]\nname='c'\nbegin='start'\n", "context 1: 'end' is missing"),
        (GOOD + GOOD, "f.toml:6: rule 'fine': the name is used twice"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_pack(path)
    assert str(path) in caught.value.message


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_pack(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_pack(tmp_path / "b.toml")


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UsageError, match="no rule pack 'nope'"):
        RuleSet.for_command([], profiles=["nope"])


@pytest.mark.parametrize("rule", BUILTIN, ids=lambda rule: rule.full_name)
def test_no_builtin_pattern_runs_away(rule: Rule) -> None:
    """Eight KiB, the longest text that is judged, of what makes backtracking worst."""
    for unit in ("a", " ", "error ", "0 x ", "/a", "a.", "--a", "can not ", "E: ", "exit ", "no such "):
        text = unit * (8192 // len(unit))
        started = time.process_time()
        rule.matches(text)
        assert time.process_time() - started < 0.5, unit


def test_needles_are_computed_from_a_pattern_without_any() -> None:
    (rule,) = parse_pack("[[rule]]\nname='n'\ntype='ERROR'\npattern='Boom[!.] (?:now|later)'\n", "x", "x").rules
    assert rule.literals == {b"boom"}
