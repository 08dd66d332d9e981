"""A profile is read strictly, and each mistake has its file, its line and the nearest name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.judge.profile import Gate, Profile, load
from bench.judge.toml_lines import TomlError
from bench.model import Metric
from tests.judge.make import bounded

METRICS = {
    metric.name: metric
    for metric in (
        Metric(name="starvation_ratio", help="h", labels=("path", "component"), better="lower"),
        Metric(name="storage_read_bytes_per_second", help="h", labels=("path", "pattern"), better="higher"),
        Metric(name="storage_headroom_ratio", help="h", labels=("path",), better="higher", over_one=True),
    )
}
GOOD = """\
name = "batch-inference"
description = "one sentence"

[[gate]]
metric = "starvation_ratio"
labels = { component = "storage" }
max = 0.10
source = "MLPerf"
remedy = "more readers"

[[gate]]
metric = "storage_read_bytes_per_second"
min = 2147483648
required = false
accept_stand_in = true
source = "Together AI"
"""


UNDECLARED = "p.toml:5: no probe declares the metric"
SHARE = "`max` must be between 0 and 1: starvation_ratio is a share, and 10 % is 0.1"
NO_LABEL = "p.toml:6: starvation_ratio has no label"


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(TomlError) as caught:
        load(text, "p.toml", METRICS)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return caught.value.mistakes


def test_a_profile_may_need_an_input() -> None:
    text = GOOD.replace("[[gate]]", 'needs = "checks"\n\n[[gate]]', 1)
    profile = load(text, "p.toml", METRICS)
    assert [profile.has_its_input(options) for options in ([], ["expectation"], ["checks"])] == [False, False, True]
    assert load(GOOD, "p.toml", METRICS).has_its_input([])
    assert mistakes(text.replace('"checks"', '"check"'))[0].startswith("p.toml:4: `needs` must be 'service', 'data'")


def test_a_good_profile() -> None:
    profile = load(GOOD, "p.toml", METRICS)
    first, second = profile.gates
    assert (profile.name, profile.description) == ("batch-inference", "one sentence")
    assert (first.metric, first.labels, first.max, first.min) == (
        "starvation_ratio",
        {"component": "storage"},
        0.1,
        None,
    )
    assert (first.required, first.accept_stand_in, first.remedy) == (True, False, "more readers")
    assert (second.min, second.required, second.accept_stand_in, second.remedy) == (2147483648.0, False, True, "")
    assert load(GOOD.replace("\n", "\r\n"), "p.toml", METRICS) == profile


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('name = "batch-inference"', "nam = 1", "p.toml:1: `name` is missing"),
        ('name = "batch-inference"', 'name = "Batch!"', "p.toml:1: `name` must be lower case with digits and -"),
        ("description", "descripton", "p.toml:2: unknown key `descripton`; did you mean `description`?"),
        ("max = 0.10", "maxx = 0.10", "p.toml:7: unknown key `maxx`; did you mean `max`?"),
        ("max = 0.10", 'max = "0.10"', "p.toml:7: `max` must be a number"),
        ("max = 0.10", "max = true", "p.toml:7: `max` must be a number"),
        ("max = 0.10", "max = nan", "p.toml:7: `max` must be a finite number"),
        ("max = 0.10", "max = -inf", "p.toml:7: `max` must be a finite number"),
        ("max = 0.10", "max = 1e999", "p.toml:7: `max` must be a finite number"),
        ("max = 0.10", "max = 1979-05-27", "p.toml:7: `max` must be a number"),
        ("max = 0.10", "", "p.toml:4: the gate needs one limit, `min` or `max`"),
        ("max = 0.10", "max = 0.10\nmin = 0", "p.toml:4: the gate needs one limit, `min` or `max`, not both"),
        ('source = "MLPerf"', "", "p.toml:4: `source` is missing"),
        ('source = "MLPerf"', 'source = " "', "p.toml:8: `source` must not be empty"),
        ('source = "MLPerf"', "source = 3", "p.toml:8: `source` must be a string in quotes"),
        ("required = false", "required = 0", "p.toml:14: `required` must be true or false"),
        ('"starvation_ratio"', '"starvation_x"', f"{UNDECLARED} `starvation_x`; did you mean `starvation_ratio`?"),
        ('"starvation_ratio"', '"qqq"', f"{UNDECLARED} `qqq`; `bench probes` lists those that are"),
        ('"starvation_ratio"', '"Starvation"', f"{UNDECLARED} `Starvation`; did you mean `starvation_ratio`?"),
        ("{ component", "{ componnent", f"{NO_LABEL} `componnent`; did you mean `component`?"),
        ("{ component", "{ zzz", f"{NO_LABEL} `zzz`; it has path, component"),
        ("{ component", "{ Component", f"{NO_LABEL} `Component`; did you mean `component`?"),
        ('= "storage"', "= 1", "p.toml:6: `component` must be a string in quotes"),
        ('{ component = "storage" }', '"storage"', 'p.toml:6: `labels` must be a table, { key = "value" } say'),
        ("max = 0.10", "max = = 1", "p.toml:7: not TOML: Invalid value at column 7"),
        ("max = 0.10", "max = 1\nmax = 2", "p.toml:8: not TOML: Cannot overwrite a value at column 8"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_line(old: str, new: str, line: str) -> None:
    assert line in mistakes(GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("max = 0.10", "max = 10", f"p.toml:7: {SHARE}"),
        ("max = 0.10", "max = -0.1", f"p.toml:7: {SHARE}"),
        ("max = 0.10", "min = 0.10", "p.toml:7: starvation_ratio: lower is better, so it needs a `max`, not a `min`"),
        ("min = 2147483648", "max = 1",
         "p.toml:13: storage_read_bytes_per_second: higher is better, so it needs a `min`, not a `max`"),
        ("max = 0.10", 'max = 0.10\nper = "accelerator"',
         "p.toml:8: the gate asks more of a node with more accelerators, so `per` needs a `min` above 0"),
        ("min = 2147483648", 'min = 0\nper = "accelerator"',
         "p.toml:14: the gate asks more of a node with more accelerators, so `per` needs a `min` above 0"),
        ("max = 0.10", 'max = 0.10\nper = "card"', "p.toml:8: `per` must be 'accelerator'"),
        ("max = 0.10", 'max = 0.10\nwhen = "infiniband"',
         "p.toml:8: `when` must be 'rdma', 'no_rdma', 'endpoint' or 'no_endpoint'"),
        ("max = 0.10", 'max = 0.10\npre = "accelerator"', "p.toml:8: unknown key `pre`; did you mean `per`?"),
    ],
)  # fmt: skip
def test_a_limit_that_no_slip_can_turn_round(old: str, new: str, line: str) -> None:
    """All of these loaded: a starvation of 1000 % passed, and the smallest starvation failed."""
    assert mistakes(GOOD.replace(old, new, 1)) == (line,)


def test_a_ratio_that_is_no_share_may_be_asked_for_more_than_one() -> None:
    text = GOOD.replace('"storage_read_bytes_per_second"\nmin = 2147483648',
                        '"storage_headroom_ratio"\nmin = 1.11\nper = "accelerator"')  # fmt: skip
    assert load(text, "p.toml", METRICS).gates[1].per == "accelerator"


def test_the_same_gate_for_nodes_with_and_without_rdma_is_no_repetition() -> None:
    gate = GOOD[GOOD.index("[[gate]]") : GOOD.index("[[gate]]", 60)]
    ways = gate.replace("max =", 'when = "rdma"\nmax =') + gate.replace("max =", 'when = "no_rdma"\nmax =')
    assert len(load(GOOD + ways, "p.toml", METRICS).gates) == 4


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = (
        GOOD.replace("max = 0.10", "mox = 0.10")
        .replace("required = false", 'required = "no"')
        .replace("name =", "nome =", 1)
    )
    found = mistakes(text)
    numbers = [int(line.split(":")[1]) for line in found]
    assert numbers == sorted(numbers)
    assert set(numbers) >= {1, 7, 14}


def test_one_line_for_one_mistake() -> None:
    assert len(mistakes(GOOD.replace("{ component", "{ Component"))) == 1
    assert len(mistakes(GOOD.replace('"starvation_ratio"', '"Starvation Ratio"'))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"', "p.toml:1: there is no [[gate]]"),
        ('name = "x"\ngate = []', "p.toml:1: there is no [[gate]]"),
        ('name = "x"\n[gate]\nmetric = "starvation_ratio"', "p.toml:2: `gate` must be written as [[gate]] tables"),
        ('name = "x"\ngate = [1]', "p.toml:2: a gate must be a table under [[gate]]"),
        ('name = "x"\n[[gates]]\na = 1', "p.toml:2: unknown key `gates`; did you mean `gate`?"),
        ("a = [", "p.toml:1: not TOML"),
        ("a = '''\n\n", "p.toml:1: not TOML"),
        ("[" * 5000, "p.toml:1: not TOML"),
        ("a = " + "[" * 5000, "p.toml:1: nested too deeply"),
        ("a = 1" + "0" * 5000, "p.toml:1: not TOML"),
    ],
)
def test_what_is_no_profile_at_all(text: str, message: str) -> None:
    assert any(line.startswith(message) for line in mistakes(text))


def test_the_last_line_of_a_text_that_breaks_off() -> None:
    assert mistakes(GOOD + '\nlabels = """\nx\n')[0].startswith("p.toml:1")
    assert int(mistakes(GOOD + '\nlabels = """\nx\n')[0].split(":")[1]) >= 18


def test_a_limit_too_large_for_a_float() -> None:
    assert mistakes(GOOD.replace("0.10", "1" + "0" * 400))[0].startswith("p.toml:7: `max`")


def test_a_profile_that_can_decide_nothing_is_refused() -> None:
    text = GOOD.replace("max = 0.10", "max = 0.10\nrequired = false")
    assert mistakes(text) == ("p.toml:1: no gate is required, so the profile can never decide anything",)


def test_a_gate_that_is_there_twice() -> None:
    gate = GOOD[GOOD.index("[[gate]]") : GOOD.index("[[gate]]", 60)]
    assert mistakes(GOOD + gate)[0] == "p.toml:17: the gate on `starvation_ratio` is there twice"
    warning = gate.replace("0.10", "0.05\nrequired = false")
    assert len(load(GOOD + warning, "p.toml", METRICS).gates) == 3
    other = gate.replace('"storage"', '"total"')
    assert len(load(GOOD + other, "p.toml", METRICS).gates) == 3


def test_a_gate_may_ask_for_a_certain_stand_in() -> None:
    text = GOOD.replace("{ component", '{ stand_in = "emulated", component')
    assert load(text, "p.toml", METRICS).gates[0].labels["stand_in"] == "emulated"


def test_names_from_the_file_cannot_forge_lines_or_move_the_cursor() -> None:
    found = mistakes(GOOD.replace("max = 0.10", '"a\\nb\\u001b[2J\\u202e" = 1'))
    assert all(line.isprintable() and line.startswith("p.toml:") for line in found)


def test_the_digest_is_of_the_content() -> None:
    digest = load(GOOD, "p.toml", METRICS).digest
    same = GOOD.replace("max = 0.10", "  max   =  1e-1 # ten percent\nrequired = true")
    assert load(same, "q.toml", METRICS).digest == digest
    assert len(digest) == 64
    for old, new in (("0.10", "0.11"), ("MLPerf", "us"), ("batch-", "x-"), ("more", "less"), ("= true", "= false")):
        assert load(GOOD.replace(old, new), "p.toml", METRICS).digest != digest


def test_profiles_made_in_python_are_checked_too() -> None:
    with pytest.raises(ValidationError, match="one limit"):
        Gate(metric="a_ratio", source="s")
    with pytest.raises(ValidationError, match="no gate is required"):
        Profile(name="x", gate=(Gate(metric="a_ratio", source="s", max=1.0, required=False),))
    with pytest.raises(ValidationError, match="there is no"):
        Profile(name="x", gate=())


ODD_LINES = ("[gate]", "max = 3", "labels.x = 1", "x = [", "]", '"""', "a.b = {}", "[[gate.labels]]", "gate = 3")
PIECES = st.lists(st.sampled_from([*GOOD.splitlines(), *ODD_LINES]), max_size=14)


@bounded
@given(st.one_of(PIECES.map("\n".join), st.text(max_size=80)))
def test_any_text_is_a_profile_or_a_list_of_mistakes(text: str) -> None:
    try:
        load(text, "p.toml", METRICS)
    except TomlError as error:
        assert error.mistakes
        for line in error.mistakes:
            name, number, message = line.split(":", 2)
            assert name == "p.toml" and 1 <= int(number) <= text.count("\n") + text.count("\r") + 1 and message.strip()
            assert "\n" not in line
