from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.transcript.note import SignatureType, VerifierKey
from secagg.transcript.policy import MAX_POLICY_LENGTH, GroupRule, LogPolicy, LogRule, PolicyError, WitnessRule
from tests.unit.transcript.note_strategies import policies


def log(number: int, name: str = "log") -> str:
    return VerifierKey(name, SignatureType.ED25519, bytes([number] * 32)).to_text()


def witness(number: int, name: str = "witness") -> str:
    return VerifierKey(name, SignatureType.COSIGNATURE_V1, bytes([number] * 32)).to_text()


def public_keys(*numbers: int) -> list[bytes]:
    return [bytes([number] * 32) for number in numbers]


# The example of c2sp.org/tlog-policy, with keys.
TWO_LEVELS = f"""
log {log(9)}

witness X1 {witness(1)}
witness X2 {witness(2)}
witness X3 {witness(3)}
group X-witnesses 2 X1 X2 X3

witness Y1 {witness(4)}
witness Y2 {witness(5)}
witness Y3 {witness(6)}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def refused(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        LogPolicy.parse(text)
    assert caught.value.reason
    return caught.value


@given(policies())
def test_a_policy_is_read_back_as_it_was_written(written):
    assert LogPolicy.parse(written.to_text()) == written


@given(policies(), st.data())
def test_what_is_read_of_a_damaged_policy_is_read_back_as_well(policy, data):
    text = policy.to_text()
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(st.sampled_from(" \t\n#0any")) + text[at + data.draw(st.integers(0, 2)) :]
    try:
        read = LogPolicy.parse(text)
    except PolicyError:
        return
    assert LogPolicy.parse(read.to_text()) == read


def test_two_levels_of_groups_ask_for_two_of_one_and_one_of_the_other():
    policy = LogPolicy.parse(TWO_LEVELS)
    for size in range(7):
        for present in itertools.combinations(range(1, 7), size):
            expected = len(set(present) & {1, 2, 3}) >= 2 and bool(set(present) & {4, 5, 6})
            assert policy.is_met_by(public_keys(*present)) == expected
    assert policy.witness_keys == tuple(VerifierKey.parse(witness(number)) for number in range(1, 7))
    assert policy.logs == (LogRule(VerifierKey.parse(log(9))),)
    assert [(group.name, group.threshold) for group in policy.groups] == [
        ("X-witnesses", 2), ("Y-witnesses", 1), ("X-and-Y", 2),
    ]  # fmt: skip


def test_a_key_counts_once_however_often_it_is_given_and_a_strange_key_never():
    policy = LogPolicy.parse(TWO_LEVELS)
    assert not policy.is_met_by(public_keys(1, 1, 1, 4, 4))
    assert not policy.is_met_by(public_keys(1, 4, 9, 10, 11, 12))
    assert policy.is_met_by(public_keys(1, 2, 4, 10))
    assert not policy.is_met_by([])


@given(policies(), st.data())
def test_more_witnesses_never_make_a_quorum_fail(policy, data):
    keys = [key.public_key for key in policy.witness_keys]
    some = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    more = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    assert policy.is_met_by([*some, *more]) >= policy.is_met_by(some)
    assert policy.is_met_by([]) == (policy.quorum == "none")


def test_without_witnesses_nothing_is_asked_and_no_log_is_known():
    policy = LogPolicy.without_witnesses()
    assert (policy.logs, policy.witnesses, policy.witness_keys, policy.quorum) == ((), (), (), "none")
    assert policy.is_met_by([])
    assert policy.is_met_by(public_keys(1))
    assert policy == LogPolicy.parse("quorum none\n")


def test_a_single_witness_can_be_the_quorum():
    policy = LogPolicy.parse(f"witness a {witness(1)}\nwitness b {witness(2)}\nquorum b\n")
    assert [policy.is_met_by(public_keys(*numbers)) for numbers in ((), (1,), (2,), (1, 2))] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(("word", "least"), [("any", 1), ("all", 3), ("1", 1), ("2", 2), ("3", 3)])
def test_a_threshold_is_a_word_or_a_number(word, least):
    lines = "".join(f"witness w{number} {witness(number)}\n" for number in range(3))
    policy = LogPolicy.parse(f"{lines}group g {word} w0 w1 w2\nquorum g\n")
    assert policy.groups == (GroupRule("g", least, ("w0", "w1", "w2")),)
    assert [policy.is_met_by(public_keys(*range(count))) for count in range(4)] == [
        count >= least for count in range(4)
    ]


def test_spaces_tabs_comments_and_empty_lines_are_of_no_concern():
    policy = LogPolicy.parse(
        f"# a comment\n\t # another\n\n \t\n\tlog\t {log(1)} \t https://log.example/ \t\n"
        f" witness\ta  {witness(2)}\thttps://w.example\n#quorum none\nquorum \t a\t\n"
    )
    assert policy == LogPolicy(
        (LogRule(VerifierKey.parse(log(1)), "https://log.example/"),),
        (WitnessRule("a", VerifierKey.parse(witness(2)), "https://w.example"),),
        (),
        "a",
    )


def test_only_space_and_tab_divide_and_other_unicode_is_opaque():
    # Not a control character of ASCII: allowed in names and comments, and it divides nothing.
    for char in "\u00a0\u2028\u2029\u0085\u3000é":
        policy = LogPolicy.parse(f"# {char}x\nwitness a{char}b {witness(1)} {char}\nquorum a{char}b\n")
        assert policy.witnesses[0].name == f"a{char}b"
        assert policy.witnesses[0].url == char
    names = ("K", "\u212a")  # a letter and the Kelvin sign: two names
    lines = "".join(f"witness {name} {witness(number)}\n" for number, name in enumerate(names))
    assert LogPolicy.parse(f"{lines}quorum K\n").is_met_by(public_keys(0))
    assert not LogPolicy.parse(f"{lines}quorum K\n").is_met_by(public_keys(1))


def test_groups_and_quorum_may_stand_before_lines_that_they_do_not_need():
    policy = LogPolicy.parse(f"witness a {witness(1)}\nquorum a\nwitness b {witness(2)}\nlog {log(3)}\n")
    assert policy.quorum == "a"
    assert len(policy.witnesses) == 2


A, B, C = (f"witness {name} {witness(number)}\n" for number, name in enumerate("abc", start=1))
REJECTED = {
    "no quorum": ("", 0),
    "nothing but witnesses": (A, 0),
    "two quorums": ("quorum none\nquorum none\n", 2),
    "another quorum later": (f"{A}quorum a\nquorum none\n", 3),
    "a quorum that is not defined": ("quorum a\n", 1),
    "a quorum defined later": (f"quorum a\n{A}", 1),
    "a quorum without a name": ("quorum\n", 1),
    "a quorum of two names": (f"{A}{B}quorum a b\n", 3),
    "the name of a key as the quorum": (f"{A}quorum witness\n", 2),
    "a log as the quorum": (f"log {log(1)}\nquorum log\n", 2),
    "a log twice": (f"log {log(1)}\nlog {log(1)}\nquorum none\n", 2),
    "a log's key under two origins": (f"log {log(1)}\nlog {log(1, 'other')}\nquorum none\n", 2),
    "a witness's key under two names": (f"{A}witness b {witness(1)}\nquorum none\n", 2),
    "a witness's key under two key names": (f"{A}witness b {witness(1, 'other')}\nquorum none\n", 2),
    "a log that is its own witness": (f"log {log(1)}\n{A}quorum a\n", 2),
    "a witness that is its own log": (f"{A}log {log(1)}\nquorum a\n", 2),
    "a log with the key of a witness": (f"log {witness(1)}\nquorum none\n", 1),
    "a witness with the key of a log": (f"witness a {log(1)}\nquorum none\n", 1),
    "a malformed key": ("log abc\nquorum none\n", 1),
    "a key id of another key": (f"log {log(1).replace('log+', 'lag+')}\nquorum none\n", 1),
    "a log without a key": ("log\nquorum none\n", 1),
    "a log with two addresses": (f"log {log(1)} a b\nquorum none\n", 1),
    "a witness without a key": ("witness a\nquorum none\n", 1),
    "a witness with two addresses": (f"witness a {witness(1)} b c\nquorum none\n", 1),
    "a witness named none": (f"witness none {witness(1)}\nquorum none\n", 1),
    "a name twice": (f"{A}witness a {witness(2)}\nquorum a\n", 2),
    "a group named as a witness": (f"{A}group a any a\nquorum a\n", 2),
    "a group named none": (f"{A}group none any a\nquorum none\n", 2),
    "a group without members": ("group g any\nquorum none\n", 1),
    "a group of none": ("group g any none\nquorum g\n", 1),
    "all of no members": ("group g all\nquorum none\n", 1),
    "a group without a threshold": ("group g\nquorum none\n", 1),
    "a group with itself": (f"{A}group g any a g\nquorum g\n", 2),
    "a member that is not defined": (f"{A}group g any a b\nquorum g\n", 2),
    "a member defined later": (f"{A}group g any a b\n{B}quorum g\n", 2),
    "a member twice in a group": (f"{A}{B}group g 2 a a\nquorum g\n", 3),
    "a member in two groups": (f"{A}{B}group g any a\ngroup h 2 a g\nquorum h\n", 4),
    "a group in two groups": (f"{A}{B}{C}group g any a\ngroup h all g b\ngroup i all g c\nquorum i\n", 6),
    "a threshold of 0": (f"{A}group g 0 a\nquorum g\n", 2),
    "a threshold above the members": (f"{A}{B}group g 3 a b\nquorum g\n", 3),
    "a threshold with a leading zero": (f"{A}group g 01 a\nquorum g\n", 2),
    "a threshold with a sign": (f"{A}group g +1 a\nquorum g\n", 2),
    "a threshold in other digits": (f"{A}group g \u0661 a\nquorum g\n", 2),
    "a threshold in capitals": (f"{A}group g ANY a\nquorum g\n", 2),
    "a line that is none": ("quorum none\nwitnesses\n", 2),
    "capitals": ("Quorum none\n", 1),
    "a comment behind a line": ("quorum none # comment\n", 1),
    "no final newline": ("quorum none", 0),
    "a carriage return": ("quorum none\r\n", 1),
    "a carriage return in a comment": ("# a\r\nquorum none\n", 1),
    "a form feed": ("quorum\x0cnone\n", 1),
    "a vertical tab": ("quorum\x0bnone\n", 1),
    "a zero byte": ("# \x00\nquorum none\n", 1),
    "a delete character": ("quorum none\x7f\n", 1),
    "a lone surrogate": ("# \ud800\nquorum none\n", 1),
    "a byte order mark": ("\ufeffquorum none\n", 1),
    "no end of comments": ("# \n" * (MAX_POLICY_LENGTH // 3) + "quorum none\n", 0),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_breaks_a_rule_is_refused_with_its_line(name):
    text, line = REJECTED[name]
    error = refused(text)
    assert error.line == line
    assert str(error) == (f"line {line}: {error.reason}" if line else error.reason)


KEY_1, KEY_2 = (VerifierKey.parse(witness(number)) for number in (1, 2))
A_RULE, B_RULE = WitnessRule("a", KEY_1), WitnessRule("b", KEY_2)


@pytest.mark.parametrize(
    "construct",
    [
        lambda: LogRule(KEY_1),
        lambda: LogRule(log(1)),
        lambda: LogRule(VerifierKey.parse(log(1)), "a b"),
        lambda: LogRule(VerifierKey.parse(log(1)), "a\nquorum"),
        lambda: LogRule(VerifierKey.parse(log(1)), None),
        lambda: WitnessRule("a", VerifierKey.parse(log(1))),
        lambda: WitnessRule("", KEY_1),
        lambda: WitnessRule("a b", KEY_1),
        lambda: WitnessRule("a\tb", KEY_1),
        lambda: WitnessRule("none", KEY_1),
        lambda: GroupRule("g", 1, ()),
        lambda: GroupRule("g", 0, ("a",)),
        lambda: GroupRule("g", 2, ("a",)),
        lambda: GroupRule("g", True, ("a",)),
        lambda: GroupRule("g", 1, ("a b",)),
        lambda: GroupRule("g", 1, ("none",)),
        lambda: GroupRule("none", 1, ("a",)),
        lambda: LogPolicy((), (A_RULE, WitnessRule("b", KEY_1)), (), "none"),
        lambda: LogPolicy((), (A_RULE, WitnessRule("a", KEY_2)), (), "none"),
        lambda: LogPolicy((LogRule(VerifierKey.parse(log(1))),), (A_RULE,), (), "a"),
        lambda: LogPolicy((), (A_RULE,), (GroupRule("g", 1, ("b",)),), "g"),
        lambda: LogPolicy((), (A_RULE,), (GroupRule("g", 1, ("h",)), GroupRule("h", 1, ("a",))), "g"),
        lambda: LogPolicy((), (A_RULE,), (), "b"),
        lambda: LogPolicy((), (A_RULE,), (), ""),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_cannot_be_constructed(construct):
    with pytest.raises(PolicyError):
        construct()


def test_a_line_that_starts_with_a_hash_is_a_comment_but_a_name_may_start_with_one():
    policy = LogPolicy.parse(f"witness #a {witness(1)}\nquorum #a\n")
    assert policy.is_met_by(public_keys(1))
    assert LogPolicy.parse(policy.to_text()) == policy


def test_many_rules_are_no_burden():
    lines = "".join(f"witness w{number} {witness(number)}\n" for number in range(200))
    nested = "group g0 any w0\n" + "".join(f"group g{n} all g{n - 1} w{n}\n" for n in range(1, 200))
    policy = LogPolicy.parse(f"{lines}{nested}quorum g199\n")
    assert policy.is_met_by(public_keys(*range(200)))
    assert not policy.is_met_by(public_keys(*range(1, 200)))
