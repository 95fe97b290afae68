"""The frame: what a check that looked at nothing, could not look, or built on something wrong comes to."""

from __future__ import annotations

import pytest

from verifier.checks import (
    MAX_SHOWN,
    NOWHERE,
    Check,
    CheckFailedError,
    CheckResult,
    Derived,
    Finding,
    Findings,
    InputMissingError,
    InputRefusedError,
    Inputs,
    Level,
    Place,
    Status,
    run_check,
)

HERE = Place("a file", 3, "a field")


def check(run, identifier="LOG-1"):
    return Check(identifier, "title", Level.META, "proves", "against", ("file",), run)


def status_of(*runs):
    result = CheckResult()
    for run in runs:
        result.add(run_check(check(run), None))
    return result.status


def passing(_, findings):
    findings.count()


def failing(_, findings):
    findings.count()
    findings.fail(HERE, "wrong")


def missing(_, findings):
    raise InputMissingError(HERE, "missing")


def excused(_, findings):
    findings.not_applicable("nothing to check")


def idle(_, findings):
    pass


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ((), Status.UNAVAILABLE),
        ((idle,), Status.UNAVAILABLE),
        ((passing, idle), Status.UNAVAILABLE),
        ((passing,), Status.PASS),
        ((passing, excused), Status.PASS),
        ((excused,), Status.NOT_APPLICABLE),
        ((passing, missing), Status.UNAVAILABLE),
        ((excused, missing), Status.UNAVAILABLE),
        ((passing, failing, missing, excused), Status.FAIL),
    ],
)
def test_the_worst_of_all_subjects_is_the_status(runs, expected):
    assert status_of(*runs) is expected


def test_only_the_first_failures_are_kept_and_all_are_counted():
    findings = Findings("a session")
    for number in range(25):
        findings.fail(HERE, str(number))
    result = CheckResult()
    result.add(findings)
    result.add(findings)
    assert result.failed == 50
    assert [finding.reason for finding in result.failures] == [str(number) for number in range(MAX_SHOWN)]
    assert result.failures[0] == Finding(HERE, "0", "a session")
    assert str(result.failures[0]) == "a file, line 3, a field: 0"
    with pytest.raises(CheckFailedError) as raised:
        findings.raise_failures()
    assert raised.value.failed == 25


def test_the_owner_of_a_wrong_value_fails_and_whoever_needs_it_is_unavailable():
    calls = []

    def compute(_):
        calls.append(1)
        raise CheckFailedError.at(HERE, "wrong")

    inputs = Inputs(None)
    value = Derived("LOG-1", compute)
    further = Derived("LOG-2", lambda _: inputs.get(value))
    found = {
        identifier: run_check(check(lambda _, __: inputs.get(further), identifier), None)
        for identifier in ("LOG-1", "LOG-2", "LOG-3")
    }
    assert found["LOG-1"].failures == [Finding(HERE, "wrong")]
    for identifier in ("LOG-2", "LOG-3"):
        assert found[identifier].failed == 0
        assert found[identifier].missing == [Finding(NOWHERE, "not checked, because LOG-1 failed")]
    assert len(calls) == 1


def test_a_value_is_computed_once_for_each_subject():
    calls = []
    value = Derived("LOG-1", lambda subject: calls.append(subject) or subject)
    one, other = Inputs("one"), Inputs("other")
    assert [one.get(value), one.get(value), other.get(value)] == ["one", "one", "other"]
    assert calls == ["one", "other"]


def test_what_is_missing_stays_missing():
    def compute(_):
        raise InputMissingError(HERE, "missing")

    inputs, value = Inputs(None), Derived("LOG-1", compute)
    for _ in range(2):
        with pytest.raises(InputMissingError):
            inputs.get(value)


def test_a_failure_that_was_noted_before_something_was_missing_counts():
    def run(_, findings):
        findings.fail(HERE, "wrong")
        raise InputRefusedError("LOG-9", CheckFailedError.at(HERE, "other"))

    assert status_of(run) is Status.FAIL


@pytest.mark.parametrize("identifier", ["LOG-0", "log-1", "LOG1", "LOG-100"])
def test_an_identifier_has_one_form(identifier):
    with pytest.raises(ValueError, match="not a family and a number"):
        check(passing, identifier)


def test_a_check_says_what_it_is_for():
    with pytest.raises(ValueError, match="must not be empty"):
        Check("LOG-1", "title", Level.META, "", "against", ("file",), passing)
