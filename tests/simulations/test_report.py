"""The page and the summary of a simulated session: what they say, and that they say it in the same bytes."""

import dataclasses
import importlib.util
import math
import os
import re
import subprocess
import sys
from fractions import Fraction
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.attacks.poisoning import Influence
from simulations.estimates.theory import Bounds
from simulations.report.adversaries import adversaries
from simulations.report.canvas import PlotsMissingError, check_plots
from simulations.report.costs import Downtime, downtimes
from simulations.report.course import PhaseAxis, course_plots
from simulations.report.curve import Curve, CurveError, SimulatedPoint, TheoryPoint
from simulations.report.facts import (
    bytes_words,
    costs_of,
    fates_by_phase,
    faults_words,
    kinds_of,
    models_words,
    note_groups,
    record_text,
    refusals_of,
    regions_of,
    seconds_words,
    sentence_of,
)
from simulations.report.odds import influence_plot, influences, interval_words, success_plot
from simulations.report.page import to_html
from simulations.report.style import STYLE
from simulations.report.text import to_text
from simulations.scenarios.named import named
from simulations.scenarios.outcome import CallTraffic, ClientFate, Note, Outcome, PhaseTime
from simulations.scenarios.run import play
from simulations.world.plan import Plan, Protocol

PHASES = (
    PhaseTime("advertise-keys", 0.0, 600.0),
    PhaseTime("share-keys", 600.0, 1.5),
    PhaseTime("masked-input", 601.5, 598.5),
    PhaseTime("consistency-check", 1200.0, 0.4),
    PhaseTime("unmask", 1200.4, 100.0),
)

CLIENTS = (
    ClientFate(0, 1.0, "counted", 1301.0, "", "region 2"),
    ClientFate(1, 2.0, "counted", 1250.0, "unmask", "region 2"),
    ClientFate(2, 2.5, "dropped", 3.0, "advertise-keys", "region 10"),
    ClientFate(3, 2.5, "dropped", 700.0, "masked-input", "region 2"),
    ClientFate(4, 2.5, "refused: BAD_SIGNATURE", 601.0, "", "region 2"),
    ClientFate(5, 2.5, "refused: BAD_SIGNATURE", 601.1, "", "region 2"),
    ClientFate(6, 2.5, "left out", 1400.0, "", "region 2"),
    ClientFate(7, None, "never came", None, "", "region 2"),
    ClientFate(8, 9.0, "counted", 1300.9, "", "region 2"),
    ClientFate(9, 9.0, "counted", 1300.9, "", "region 2"),
)

ATTACK = {
    "name": "two-sets",
    "goal": "Two sums that differ in one client.",
    "adversary": "The coordinator with 2 clients.",
    "why": "More than half sign one set.",
    "steps": ["It shows two sets."],
    "refusals": ["client-7: SET_DIFFERS"],
    "ended": "aborted: consistency check",
    "learned": [],
    "succeeded": False,
    "as_it_should": True,
}
WON = {**ATTACK, "succeeded": True, "as_it_should": False}
BEYOND = {**ATTACK, "name": "beyond", "succeeded": True}


def outcome(**changes):
    value = Outcome(
        scenario={
            "name": "made-up",
            "about": "Everything at once.",
            "plan": {"protocol": "pairwise", "clients": 10, "dimension": 64, "minimum": 4, "corrupt": 1, "seed": 7},
            "dropouts": [{"model": "Independent", "rate": 0.15}],
            "lines": {"model": "Mixed", "latency_s": 0.06, "bytes_per_s": 1048576.0},
            "faults": [],
        },
        ended="finished",
        reason="",
        seconds=1300.4,
        counted=4,
        sum_is_right=True,
        record={"verdict": "passed", "failed": []},
        violations=(),
        learned=(),
        phases=PHASES,
        traffic=(
            CallTraffic("client", "AdvertiseKeys", "advertise-keys", 9, 900, 90),
            CallTraffic("client", "deliver", "masked-input", 6, 600_000, 0),
            CallTraffic("client", "outcome", "finished", 4, 0, 4000),
            CallTraffic("client", "watch", "", 30, 0, 300),
            CallTraffic("coordinator", "add-checkpoint", "", 3, 700, 70),
        ),
        clients=CLIENTS,
        notes=(Note(20.0, "coordinator", "dies", "advertise-keys"), Note(50.0, "coordinator", "starts", "")),
    )
    return dataclasses.replace(value, **changes)


def curve(**changes):
    points = (
        SimulatedPoint(0.0, 20, 20, Bounds(0.839, 1.0)),
        SimulatedPoint(0.3, 13, 20, Bounds(0.433, 0.819)),
    )
    theory = (TheoryPoint(0.0, Bounds(1.0, 1.0)), TheoryPoint(0.3, Bounds(0.6, 0.71)))
    return dataclasses.replace(Curve(Plan(Protocol.PAIRWISE, 100), points, theory, 0.15), **changes)


def everything():
    tries = (Note(100.0 + step, "coordinator", "institution_unreachable", "TransportError") for step in range(30))
    return outcome(
        notes=(*outcome().notes, *tries),
        attacks=(ATTACK, {**ATTACK, "name": "fork"}),
        influence=({"kind": "scaled", "clients": 1, "of": 8, "distance": 0.5, "bound": 0.6, "without_clipping": 80.0},),
    )


@pytest.fixture(scope="module")
def page():
    return to_html(everything(), curve())


class Page(HTMLParser):
    """Every element with its attributes, and whether all that is opened is closed."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.open = []
        self.text = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


# The same bytes.


@pytest.mark.long
def test_another_process_with_other_hashes_and_other_settings_of_the_user_writes_the_same_page(page, tmp_path):
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 30\naxes.facecolor: red\nsvg.fonttype: none\naxes.linewidth: 9\n"
    )
    code = "import sys; from tests.simulations.test_report import *; sys.stdout.write(to_html(everything(), curve()))"
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "MATPLOTLIBRC": str(tmp_path), "TZ": "Asia/Tokyo"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == page


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were():
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 17}):
        before = dict(mpl.rcParams)
        success_plot(curve())
        assert dict(mpl.rcParams) == before


def test_a_session_that_is_played_twice_is_reported_in_the_same_bytes():
    pages = []
    for _ in range(2):
        played = play(named("dropouts", Plan(Protocol.PAIRWISE, clients=6, dimension=8, seed=3), 0.3))
        pages.append((to_html(played), to_text(played)))
    assert pages[0] == pages[1]


# A page that stands alone.


def test_nothing_is_loaded_and_nothing_runs(page):
    parsed = Page(page)
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "foreignobject", "image", "a"}
    policies = [each["content"] for tag, each in parsed.elements if each.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    for _, attributes in parsed.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert all(value.startswith("#") for name, value in attributes.items() if name in {"href", "xlink:href", "src"})
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_all_that_is_opened_is_closed_and_the_page_is_ascii(page):
    assert Page(page).open == []
    assert page.isascii()


def test_no_two_elements_share_a_name_and_every_reference_is_answered(page):
    elements = Page(page).elements
    names = [each["id"] for _, each in elements if "id" in each]
    assert len(names) == len(set(names))
    asked = {each["xlink:href"][1:] for _, each in elements if "xlink:href" in each}
    asked |= set(re.findall(r"url\(#([^)]+)\)", page))
    asked |= {name for _, each in elements for name in each.get("aria-labelledby", "").split()}
    assert asked
    assert asked <= set(names)


def test_every_plot_has_a_title_and_says_its_numbers_in_words(page):
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 7
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title id=[^>]+>\w.+?</title><desc id=[^>]+>.*\d.*\.</desc>", drawing)


def test_colours_of_plots_are_those_of_the_page_by_day_by_night_and_on_paper(page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search(r"#[0-9a-fA-F]{6}\b", drawings)
    used = set(re.findall(r"var\(--([\w-]+)\)", drawings + STYLE))
    assert "plot-blue" in used
    day, night, paper = (set(re.findall(r"--([\w-]+):", part)) for part in re.split("@media (?:print|.prefers)", STYLE))
    assert used <= day
    assert night == day
    assert paper == day


def test_no_date_and_no_name_of_a_program_is_in_a_plot(page):
    assert "metadata" not in page
    assert "dc:date" not in page
    assert "Matplotlib" not in page


def test_what_comes_from_a_file_stays_text():
    evil = "<script>alert(1)</script>\x1b[31m$x^2$"
    scenario = {**outcome().scenario, "name": evil, "about": evil}
    fates = (dataclasses.replace(CLIENTS[2], region=evil), *CLIENTS[3:])
    bad = outcome(
        scenario=scenario,
        clients=fates,
        learned=(evil,),
        violations=(evil,),
        notes=(Note(1.0, evil, evil, evil),),
        attacks=({**ATTACK, **dict.fromkeys(("name", "goal", "why", "ended"), evil), "steps": [evil]},),
    )
    written = to_html(bad)
    assert "<script" not in written
    assert "\x1b" not in written
    assert Page(written).open == []
    assert "\x1b" not in to_text(bad)


def test_thousands_of_clients_make_a_page_of_less_than_a_megabyte():
    many = tuple(
        ClientFate(number, number / 100, "dropped" if number % 7 == 0 else "counted", 601 + number / 20, "", "")
        for number in range(10_000)
    )
    written = to_html(outcome(clients=many, counted=8571))
    assert len(written) < 1_000_000
    assert "10,000 of 10,000 clients came; 8,571 counted; 1,429 dropped" in written
    assert "Each client" not in written
    assert "Regions" not in written
    assert "Success against dropout rate" not in written


# What it says.


@pytest.mark.parametrize(
    ("changes", "verdict", "headline", "detail"),
    [
        ({}, "kept", "Finished with the right sum", "4 clients of 10 in the sum."),
        (
            {"ended": "aborted", "reason": "too few answers", "sum_is_right": None, "counted": 0},
            "stopped",
            "Aborted, and nothing was published",
            "Because: too few answers.",
        ),
        (
            {"ended": "unfinished", "sum_is_right": None, "counted": 0},
            "stopped",
            "Not over when the simulation stopped",
            "Nothing was published.",
        ),
        (
            {"sum_is_right": False},
            "broken",
            "A promise was broken",
            "The published sum is not the sum of what the counted clients contributed.",
        ),
        ({"violations": ("one set opened",)}, "broken", "A promise was broken", "Invariant broken: one set opened"),
        (
            {"record": {"verdict": "failed", "failed": ["R3"], "findings": ["R3: the sum is another"]}},
            "broken",
            "A promise was broken",
            "The published record fails checks of the verifier: R3.",
        ),
        (
            {"attacks": (WON,), "ended": "aborted", "sum_is_right": None},
            "broken",
            "A promise was broken",
            "The attack two-sets succeeded.",
        ),
    ],
)
def test_the_verdict_is_said_in_words(changes, verdict, headline, detail):
    sentence = sentence_of(outcome(**changes))
    assert (sentence.verdict, sentence.headline) == (verdict, headline)
    assert detail in sentence.details
    assert headline in to_text(outcome(**changes))
    assert detail in to_text(outcome(**changes))


def test_a_session_aborted_after_a_sum_was_published_is_not_told_as_one_that_published_nothing():
    late = outcome(ended="aborted", reason="record", sum_is_right=True)
    assert "nothing was published" not in to_text(late)
    assert "aborted" in sentence_of(late).headline


def test_the_page_says_who_was_lost_where():
    assert kinds_of(outcome()) == {
        "counted": 3,
        "dropped later": 1,
        "dropped": 2,
        "refused": 2,
        "left out": 1,
        "never came": 1,
    }
    assert fates_by_phase(outcome()) == {
        "advertise-keys": {"dropped": 1},
        "share-keys": {"refused": 2},
        "masked-input": {"dropped": 1},
        "consistency-check": {},
        "unmask": {"dropped later": 1},
        "after the end": {"left out": 1},
    }
    assert refusals_of(outcome()) == {"BAD_SIGNATURE": 2}
    assert list(regions_of(outcome())) == ["region 2", "region 10"]


def test_few_clients_are_drawn_one_by_one_and_regions_by_themselves():
    plots = {plot.name: plot.description for plot in course_plots(outcome())}
    assert set(plots) == {"course", "lanes", "regions"}
    assert "2 dropped at 3.00 s in advertise keys" in plots["lanes"]
    assert "7 never came" in plots["lanes"]
    assert "region 10: 1 dropped" in plots["regions"]


@pytest.mark.parametrize("changes", [{"clients": ()}, {"phases": (), "seconds": 0.0}])
def test_a_session_in_which_nothing_happened_has_a_page_too(changes):
    empty = outcome(**changes, traffic=(), notes=(), scenario={})
    assert Page(to_html(empty)).open == []
    assert to_text(empty)


@given(st.lists(st.floats(0, 2000), min_size=2, max_size=20))
def test_later_is_never_left_of_earlier_and_a_phase_begins_at_its_place(times):
    axis = PhaseAxis(outcome())
    places = [axis.place(at_s) for at_s in sorted(times)]
    assert places == sorted(places)
    assert [axis.place(phase.began_s) for phase in PHASES] == list(range(len(PHASES)))
    assert axis.place(PHASES[0].seconds / 4) == pytest.approx(0.5)
    assert axis.width == len(PHASES) + 1


def test_bytes_belong_to_phases_and_to_clients_or_institutions():
    costs = {cost.phase: cost for cost in costs_of(outcome())}
    assert list(costs)[-2:] == ["after the end", "throughout"]
    assert (costs["advertise-keys"].up, costs["advertise-keys"].down) == (900, 90)
    assert costs["masked-input"].seconds == 598.5
    assert (costs["throughout"].down, costs["throughout"].institutions, costs["throughout"].calls) == (300, 770, 30)
    assert costs["after the end"].seconds is None


def test_a_table_has_the_bytes_of_a_client_and_of_all(page):
    rows = re.findall(r'<tr><th scope="row">masked input</th>(.*?)</tr>', page)
    assert any("65.1 KiB" in row and "586 KiB" in row and "9 min 58 s" in row for row in rows)


def test_machines_that_died_are_down_until_they_start_again():
    notes = (
        Note(5.0, "member-1", "dies", ""),
        Note(6.0, "member-2", "dies", ""),
        Note(9.0, "member-1", "starts", ""),
        Note(12.0, "member-1", "dies", ""),
    )
    assert downtimes(notes, "member-1") == [Downtime(5.0, 9.0), Downtime(12.0, None)]
    assert downtimes(notes, "member-3") == []


def test_what_was_repeated_is_told_once_and_every_death_by_itself():
    notes = (
        Note(1.0, "coordinator", "dies", "masked-input"),
        *(Note(2.0 + step, "coordinator", "institution_unreachable", "TransportError") for step in range(30)),
        Note(40.0, "coordinator", "dies", "masked-input"),
    )
    groups = note_groups(notes)
    assert [(group.first_s, group.times) for group in groups] == [(1.0, 1), (2.0, 30), (40.0, 1)]


def test_the_page_tells_what_was_repeated_once(page):
    assert "institution unreachable: TransportError, 30 times until 2 min 9 s" in page
    assert page.count("TransportError") == 1


def test_attacks_are_told_with_who_refused_what(page):
    words = " ".join(Page(page).text)
    for told in ("two-sets", "fork", ATTACK["goal"], ATTACK["adversary"], ATTACK["why"], "client-7: SET_DIFFERS"):
        assert told in words
    assert '<span class="status good">failed</span>' in page
    assert "status bad" not in page


def test_an_attack_that_succeeded_is_marked_and_what_was_learned_is_said():
    won = {**WON, "learned": ["the vector of client 3"]}
    written = "".join(adversaries(outcome(attacks=(won,), learned=("the sum of two clients",))))
    assert '<span class="status bad">succeeded</span>' in written
    assert "the vector of client 3" in written
    assert "the sum of two clients" in written
    assert "Nothing beyond what was published" not in written


def test_an_attack_beyond_its_assumption_succeeds_and_breaks_no_promise():
    beyond = outcome(attacks=(ATTACK, BEYOND))
    assert sentence_of(beyond).verdict == "kept"
    assert "2 attacks replayed beside it: 1 failed, 1 beyond their assumption succeeded, as they have to." in (
        sentence_of(beyond).details
    )
    assert '<span class="status open">succeeded, as it has to' in "".join(adversaries(beyond))
    assert "SUCCEEDED" not in to_text(beyond)


def test_an_attack_beyond_its_assumption_that_fails_is_a_mistake():
    lost = outcome(attacks=({**ATTACK, "as_it_should": False},))
    assert sentence_of(lost).verdict == "broken"
    assert "The attack two-sets failed, though it goes beyond its assumption." in sentence_of(lost).details
    assert "FAILED, THOUGH" in to_text(lost)


def test_influence_is_read_as_poisoning_measures_it():
    scaled = Influence("pairwise", "scaled", 1, 8, 0.5, 0.001, 0.6, 80.0)
    rows = influences(
        [
            dataclasses.asdict(scaled),
            dataclasses.asdict(dataclasses.replace(scaled, kind="sign-flipped", distance=0.602)),
            dataclasses.asdict(dataclasses.replace(scaled, kind="sign-flipped", distance=0.6005)),
            dataclasses.asdict(dataclasses.replace(scaled, kind="nan", distance=None, without_clipping=math.inf)),
            {**dataclasses.asdict(scaled), "kind": "infinite", "distance": None, "without_clipping": None},
            dataclasses.asdict(dataclasses.replace(scaled, kind="skips-clipping", distance=9.0, bound=None)),
        ]
    )
    assert [row.label for row in rows] == [
        "scaled, 1 of 8",
        "sign flipped, 1 of 8",
        "sign flipped, 1 of 8",
        "nan, 1 of 8",
        "infinite, 1 of 8",
        "skips clipping, 1 of 8",
    ]
    assert [row.is_within for row in rows] == [True, False, True, True, True, True]
    told = influence_plot(rows).description
    assert "sign flipped, 1 of 8: moved the mean by 0.602, at most 0.6: MORE THAN THE BOUND" in told
    for kind in ("nan", "infinite"):
        assert f"{kind}, 1 of 8: refused before it is encoded, without clipping no number at all" in told
    assert "skips clipping, 1 of 8: moved the mean by 9, nothing bounds it but the width of the fields" in told


def test_rows_of_influence_that_say_little_are_shown_too():
    (row,) = influences([{"kind": "broken", "distance": 0.0}])
    assert (row.label, row.is_within) == ("broken", True)
    assert influence_plot([row]).svg


def test_the_curve_is_drawn_where_there_is_one(page):
    assert "Success against dropout rate" in page
    assert "13 of 20" in page
    assert "0.600 to 0.710" in page
    assert "at 30 % 13 of 20, theory 0.600 to 0.710" in success_plot(curve()).description
    assert "theory" not in success_plot(curve(theory=(), marked=None)).description


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SimulatedPoint(1.5, 1, 2, Bounds(0, 1)), "rate"),
        (lambda: SimulatedPoint(0.5, 0, 0, Bounds(0, 1)), "runs"),
        (lambda: SimulatedPoint(0.5, 3, 2, Bounds(0, 1)), "successes"),
        (lambda: SimulatedPoint(0.5, 2, 2, Bounds(0.1, 0.9)), "interval"),
        (lambda: TheoryPoint(-0.1, Bounds(0, 1)), "rate"),
        (lambda: curve(points=()), "points"),
        (lambda: curve(points=curve().points[::-1]), "points"),
        (lambda: curve(theory=curve().theory * 2), "theory"),
        (lambda: curve(marked=2.0), "marked"),
    ],
)
def test_numbers_that_make_no_curve_are_refused(make, field):
    with pytest.raises(CurveError) as caught:
        make()
    assert caught.value.field == field


def swept(dropout, protocol=Protocol.PAIRWISE, corruption=0):
    cell = SimpleNamespace(protocol=protocol, dropout=Fraction(dropout), corruption=Fraction(corruption))
    theory = SimpleNamespace(success=Bounds(0.5, 0.6))
    return SimpleNamespace(cell=cell, successes=1, runs=2, interval=Bounds(0.1, 0.9), theory=theory)


def test_points_of_a_sweep_make_a_curve_in_order():
    made = Curve.of_sweep(Plan(Protocol.PAIRWISE, 10), [swept("0.4"), swept("0.1")], 0.2)
    assert [point.rate for point in made.points] == [0.1, 0.4]
    assert made.theory_at(0.4) == Bounds(0.5, 0.6)
    assert made.theory_at(0.2) is None
    assert made.marked == 0.2


@pytest.mark.parametrize("other", [swept("0.4", Protocol.ONE_SHOT), swept("0.4", corruption="0.1")])
def test_points_of_different_sessions_make_no_curve(other):
    with pytest.raises(CurveError) as caught:
        Curve.of_sweep(Plan(Protocol.PAIRWISE, 10), [swept("0.1"), other])
    assert caught.value.field == "points"


# The terminal.


def test_the_summary_has_a_line_for_each_phase_and_its_columns_stand_below_each_other():
    lines = to_text(outcome()).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("phase"))
    rows = lines[start : start + 8]
    assert [row[:17].strip() for row in rows[1:]] == [
        "advertise keys",
        "share keys",
        "masked input",
        "consistency check",
        "unmask",
        "after the end",
        "throughout",
    ]
    end = rows[0].index("refused") + len("refused")
    assert rows[2][:end].endswith(" 2")
    assert all(line == line.rstrip() for line in lines)
    assert "died      coordinator" in lines
    assert "record    passed" in lines


def test_the_summary_stays_short_and_never_leaves_out_an_attack_that_succeeded():
    attacks = tuple({**(WON if number == 39 else ATTACK), "name": f"attack-{number}"} for number in range(40))
    rows = tuple({"kind": f"kind {number}", "distance": 1.0 + number, "bound": 39.5} for number in range(40))
    summary = to_text(outcome(attacks=attacks, influence=rows, violations=("broken",) * 40, learned=("x" * 500,)))
    lines = summary.splitlines()
    assert len(lines) <= 56
    assert max(map(len, lines)) <= 140
    assert re.search(r"attack-39 +SUCCEEDED", summary)
    assert "and 25 more" in summary
    assert "kind 39  moved the mean by 40, at most 39.5: MORE THAN THE BOUND" in summary


# Words.


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.356, "0.36 s"),
        (12.34, "12.3 s"),
        (119.9, "119.9 s"),
        (120, "2 min"),
        (2412, "40 min 12 s"),
        (7199.6, "2 h"),
        (7260, "2 h 1 min"),
        (172_800 + 3600, "2 d 1 h"),
    ],
)
def test_times_are_said_in_units_of_their_size(seconds, words):
    assert seconds_words(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (5 << 20, "5 MiB"), (3 << 50, "3.07e+03 TiB")]
)
def test_bytes_are_said_in_units_of_their_size(count, words):
    assert bytes_words(count) == words


def test_models_and_faults_are_said_with_their_numbers():
    assert models_words([{"model": "Mixed", "latency_s": 0.06, "bytes_per_s": 1048576.0, "jitter": 0.0}]) == (
        "Mixed (latency 0.06 s, bandwidth 1 MiB/s)"
    )
    assert models_words([{"model": "ByPhase", "rates": {"unmask": 0.5}}]) == "ByPhase (rates unmask 0.5)"
    crash = {"fault": "Crash", "node": "member-1", "at_s": 60.0, "down_s": None, "write": 3, "when": "after"}
    cut = {"fault": "Cut", "nodes": ["witness-0"], "share": 0.25, "at_s": 3.0, "seconds": 120.0}
    assert faults_words([crash, cut]) == (
        "member-1 dies after its write 3 is durable, counted from 60 s, for good; "
        "witness-0 and 25 % of the clients cut off at 3 s for 120 s"
    )


def test_probabilities_that_are_not_quite_one_are_not_said_to_be_one():
    assert interval_words(Bounds(1.0, 1.0)) == "1.000"
    assert interval_words(Bounds(1 - 1e-9, 1.0)) == "above 0.999 to 1.000"
    assert interval_words(Bounds(0.0, 1e-9)) == "0.000 to below 0.001"


def test_what_the_verifier_found_is_said():
    failed = {"verdict": "failed", "failed": ["R3"], "findings": ["R3: the sum is another"]}
    assert "R3: the sum is another" in to_text(outcome(record=failed))


def test_a_record_that_nobody_checked_is_not_said_to_be_good():
    assert record_text(outcome(record={})) == "not checked"
    assert record_text(outcome(record={"verdict": "failed", "failed": ["R3", "R4"]})) == "failed: R3, R4"


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
    )
    with pytest.raises(PlotsMissingError, match=re.escape('needs matplotlib: pip install "secagg-lora[plots]"')):
        check_plots()
    with pytest.raises(PlotsMissingError):
        to_html(outcome())
    assert to_text(outcome())
