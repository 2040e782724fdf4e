from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from edgecv.causes import thumbnail
from edgecv.report import render_html, render_markdown, render_table, table, verdict
from edgecv.report.cells import figure
from edgecv.report.labels import Box, place
from edgecv.report.plots import thin
from edgecv.results import Results, Row, StepEntry
from tests.sample_results import sample, sample_causes, sample_measurements

COMMAND = "edgecv run models/efficientnet_lite0.toml"


def page(results: Results, measurements: dict[str, Any] | None = None) -> str:
    return render_html(results, measurements or {}, command=COMMAND, max_drop_pp=2.0)


def edited(results: Results, **changes: Any) -> Results:
    return results.model_copy(update=changes)


def edited_rows(results: Results, **changes: Any) -> Results:
    return edited(results, rows=tuple(row.model_copy(update=changes) for row in results.rows))


def only(results: Results, *names: str, target: str = "linux-litert") -> Results:
    return edited(results, rows=tuple(row for row in results.rows if row.target == target and row.variant in names))


def with_latency(row: Row, **changes: Any) -> Row:
    assert row.latency_ms
    return row.model_copy(update={"latency_ms": row.latency_ms.model_copy(update=changes)})


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_reads_well_at_each_width(width: int, snapshot: SnapshotAssertion) -> None:
    assert render_table(sample(), width=width, color=False) == snapshot


def test_the_markdown_table_is_what_the_readme_shows(snapshot: SnapshotAssertion) -> None:
    assert render_markdown(sample()) == snapshot


@pytest.mark.parametrize("width", [30, 60, 76, 80, 100, 120, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, render_table(sample(), width=width, color=False).splitlines())) <= width


@pytest.mark.parametrize("width", [30, 60, 80, 120, None])
def test_every_row_and_its_status_stand_in_the_table_at_every_width(width: int | None) -> None:
    lines = render_table(sample(), width=width, color=False).splitlines()
    shown = [line.split()[0] for line in lines if re.search(r"^  \S.*(pass|fail|can't tell|refused)$", line)]
    assert shown == [row.variant for row in sample().rows]


def test_the_reason_of_a_failed_row_is_below_the_table() -> None:
    text = render_table(sample(), width=None, color=False)
    assert "slim-int8 on linux-openvino: refused: the runtime was killed by signal 11 (SIGSEGV)" in text


def test_colour_is_off_unless_asked_for() -> None:
    assert "\x1b" not in render_table(sample(), width=140, color=False)


def test_colour_marks_the_status() -> None:
    assert "\x1b[32mpass" in render_table(sample(), width=140, color=True)


def test_no_color_in_the_environment_turns_colour_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in render_table(sample(), width=140, color=True)


def test_variables_of_the_terminal_do_not_change_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    before = render_table(sample(), width=100, color=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert render_table(sample(), width=100, color=False) == before


def test_the_table_is_a_rich_table_for_any_console() -> None:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(table(sample()))
        assert "int8-dynamic" in console.export_text()


def test_an_emulated_row_carries_the_word() -> None:
    text = render_table(edited_rows(sample(), emulated=True, timing="emulated"), width=None, color=False)
    assert text.count("(emulated)") == len(sample().rows)


def test_a_percentile_without_enough_samples_says_how_many_more() -> None:
    results = only(sample(), "int8")
    few = edited(results, rows=(with_latency(results.rows[0], p90=None, samples=40),))
    assert "int8 on linux-litert: p90 takes 24 more samples (64 in all)." in render_table(few, width=None, color=False)


def test_a_float32_file_that_ran_in_bf16_is_named() -> None:
    results = edited_rows(only(sample(), "float32"), executed_precision="bf16")
    assert "float32 on linux-litert: a float32 file that ran in bf16." in render_table(results, width=None, color=False)


def test_escape_sequences_in_a_name_do_not_reach_the_terminal() -> None:
    results = edited_rows(sample(), variant="a\x1b[2Jb\nc[red]", status="fail: \x07x\r\ny")
    text = render_table(results, width=None, color=False)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "a [2Jb c[red]" in text


def test_a_pipe_in_a_name_does_not_split_a_markdown_cell() -> None:
    assert r"a\|b&lt;i>" in render_markdown(edited_rows(sample(), variant="a|b<i>"))


def test_a_run_without_rows_has_a_table_and_a_page() -> None:
    empty = edited(sample(), rows=())
    assert render_table(empty, width=80, color=False)
    assert verdict(empty) == "No version was built."
    assert "No version was built." in page(empty)


@given(st.floats(1e-4, 1e9))
def test_a_figure_is_right_to_three_digits_and_has_no_exponent(value: float) -> None:
    text = figure(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.006 if value >= 0.01 else 0.5)


def test_the_verdict_names_the_fastest_version_that_passes() -> None:
    first, second = verdict(sample(), max_drop_pp=2.0).split("\n")
    assert first == (
        "On linux-litert, int8 is the best verified version: 2.1x faster and 3.6x smaller than float32, "
        "accuracy drop 0.3 pp (limit 2.0)."
    )
    assert second == (
        "On linux-openvino, float16 is the best verified version: 2.0x smaller than float32, accuracy drop 0.0 pp "
        "(limit 2.0); can't tell whether it is faster than float32. int8 has a lower p50 (5.31 ms), but does not "
        "pass: can't tell: 1,200 more images."
    )


def test_the_verdict_names_no_version_where_none_passes() -> None:
    failed = edited_rows(only(sample(), "float32", "int8"), status="fail: drop 9.0 pp, limit 2.0")
    assert verdict(failed) == "On linux-litert, no version is verified: fail: drop 9.0 pp, limit 2.0."


def test_the_verdict_gives_each_versions_reason_where_they_differ() -> None:
    rows = only(sample(), "int8-dynamic", "float32").rows
    mixed = edited(sample(), rows=(rows[0].model_copy(update={"status": "can't tell: 9 more images"}), rows[1]))
    assert verdict(mixed) == (
        "On linux-litert, no version is verified: float32 (can't tell: 9 more images), "
        "int8-dynamic (fail: drop 2.2 pp [0.9, 3.6], limit 2.0)."
    )


def test_the_verdict_on_unverified_files_names_the_fastest_and_says_so() -> None:
    results = edited_rows(
        only(sample(), "float32", "int8"), status="can't tell: accuracy was not verified", accuracy=None
    )
    assert verdict(results) == (
        "On linux-litert, no version is verified: can't tell: accuracy was not verified. "
        "The fastest is int8: 2.1x faster and 3.6x smaller than float32."
    )


def test_the_verdict_on_a_quick_run_says_what_it_cannot_tell() -> None:
    results = edited(sample(), rows=tuple(with_latency(row, processes=5) for row in sample().rows if row.latency_ms))
    assert verdict(results).endswith("Measured in 5 processes: too few to tell speeds apart, which takes 6 or more.")


def test_the_verdict_names_a_much_smaller_version_beside_the_baseline() -> None:
    results = only(sample(), "float32", "float16")
    assert verdict(results) == (
        "On linux-litert, float32 is the best verified version: p50 38.2 ms, accuracy drop 0.0 pp. "
        "float16 passes too and is 2.0x smaller."
    )


def test_the_verdict_on_an_emulated_target_carries_the_word() -> None:
    results = edited_rows(only(sample(), "float32", "int8"), emulated=True, timing="emulated")
    assert verdict(results) == (
        "On linux-litert (emulated), int8 is the smallest verified version, accuracy drop 0.3 pp; "
        "latencies are emulated."
    )


def test_a_row_whose_latency_is_not_the_devices_has_no_place_in_the_plot() -> None:
    change = {"emulated": True, "timing": "estimated"}
    rows = [row.model_copy(update=change if row.target == "linux-openvino" else {}) for row in sample().rows]
    text = page(edited(sample(), rows=tuple(rows)))
    assert "Accuracy over latency on linux-litert" in text
    assert "Accuracy over latency on linux-openvino" not in text
    assert "float32 on linux-openvino (estimated)" in text


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_the_same_bytes_each_time() -> None:
    assert page(sample(), sample_measurements()) == page(sample(), sample_measurements())


def test_the_page_has_its_parts_in_order() -> None:
    text = page(sample(), sample_measurements())
    parts = ["2.1x faster", "Accuracy against latency", "Every process", "All figures", "Left in float", "The machine"]
    places = [text.index(part) for part in [*parts, "How to reproduce", COMMAND]]
    assert places == sorted(places)


def test_the_page_loads_nothing() -> None:
    tags = Page(page(sample(), {**sample_measurements(), **sample_causes()})).tags
    assert not {"script", "iframe", "object", "base"} & {tag for tag, _ in tags}
    links = [attrs.get(key) or "" for _, attrs in tags for key in ("src", "href", "srcset", "action") if key in attrs]
    assert {link[:5] for link in links} == {"data:"}


def test_an_image_that_is_not_in_the_page_itself_is_left_out() -> None:
    found = sample_causes()
    good = found["changed"][1]["shown"][0]
    bad = [{**good, "image": one} for one in ("https://example.org/a.jpg", "data:text/html,x", good["image"] * 9)]
    found["changed"] = [{**found["changed"][1], "shown": [*bad, good]}]
    images = [attrs["src"] for tag, attrs in Page(page(sample(), found)).tags if tag == "img"]
    assert images == [good["image"]]


def test_the_causes_stand_between_the_figures_and_what_was_left_in_float() -> None:
    text = page(sample(), {**sample_measurements(), **sample_causes()})
    parts = ["All figures", "Layer by layer", "Accuracy by class", "Changed answers", "Left in float"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert not any(part in page(sample(), sample_measurements()) for part in parts[1:4])


def test_what_each_step_did_stands_on_the_page_once_for_versions_made_alike() -> None:
    text = page(sample(), sample_measurements())
    words = "".join(Page(text).words)
    assert text.count("left alone by slim") == 1
    assert "slim-int8 on linux-openvino: 3 steps" in words
    for part in ("89.3 to 76.3", "446,418", "35.2", "percentile ranges: drop 0.40 pp on validation (kept)"):
        assert part in words
    assert "How each version was made" not in page(edited_rows(sample(), steps=()), sample_measurements())


def test_the_worst_layers_stand_with_their_figures() -> None:
    words = "".join(Page(page(sample(), sample_causes())).words)
    assert "int8 on linux-litert: block0_expand_relu is the first layer apart" in words
    for text in ("block9_expand_relu", "0 to 4.31", "0.0169 (-128)", "1.3", "3 of 240, in float 1"):
        assert text in words


def test_accuracy_by_class_has_a_column_for_each_version() -> None:
    found = sample_causes()
    words = Page(page(sample(), found)).words
    assert "83.3" in words
    assert "82.7" in words
    assert sum("linux-openvino" in word and "\n" in word for word in words) == 3


def test_of_many_classes_those_that_lost_most_are_shown() -> None:
    found = sample_causes()
    count = 100
    hits = [40 - (place == 77) * 30 for place in range(count)]
    version = {"variant": "int8", "target": "linux-litert", "hits": hits}
    found["classes"] = {
        "names": [f"class-{place}" for place in range(count)],
        "photographs": [50] * count,
        "float": [40] * count,
        "versions": [version],
    }
    text = page(sample(), found)
    assert "The 20 classes that lost most are shown, of 100." in text
    assert text.index("class-77<") < text.index("class-0<")
    assert "class-99<" not in text


def test_versions_without_another_answer_are_named_in_one_line() -> None:
    text = page(sample(), sample_causes())
    assert "No answer changed: float32 on linux-litert." in text
    assert "42 photographs, 12 shown" in text


def test_text_from_outside_is_escaped_everywhere() -> None:
    attack = "<script>alert(1)</script>\"'>"
    results = sample(variant=attack, target=attack, status=f"fail: {attack}", executed_precision=attack)
    skipped = tuple(one.model_copy(update={"layer": attack, "reason": attack}) for one in sample().rows[2].skipped)
    host = {attack: attack, "warnings": [attack], "list": [attack], "table": {attack: attack}}
    results = edited(
        edited_rows(results, skipped=skipped),
        recipe=results.recipe.model_copy(update={"name": attack, "sha256": attack}),
        host=host,
        devices={attack: host},
        edgecv=attack,
    )
    rows = [{**row, "variant": attack, "target": attack} for row in sample_measurements()["rows"][:1]]
    made = StepEntry(step=attack, seconds=1.0, accuracy=(0.5, 0.6), params=1, macs=1, left=skipped, note=attack)
    results = edited_rows(results, steps=(made,))
    causes = json.loads(json.dumps(sample_causes()).replace("int8", json.dumps(attack)[1:-1]))
    causes["classes"]["names"] = [attack, attack]
    causes["changed"][1]["shown"] = [{**causes["changed"][1]["shown"][0], "label": attack, "version": attack}]
    text = render_html(results, {"rows": rows, **causes}, command=attack, max_drop_pp=2.0)
    assert "<script" not in text
    assert attack in "".join(Page(text).words)


def test_drawings_are_named_for_screen_readers_and_their_ids_are_unique() -> None:
    tags = Page(page(sample(), sample_measurements())).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    named = [attrs["aria-labelledby"] for tag, attrs in tags if tag == "svg" and "aria-hidden" not in attrs]
    assert len(ids) == len(set(ids))
    assert len(named) == 4
    assert all(one in ids for names in named for one in (names or "").split())


def test_without_raw_samples_the_page_says_that_the_plot_is_left_out() -> None:
    assert "Left out: there are no raw samples" in page(sample())


def test_without_a_latency_the_page_says_that_the_plot_is_left_out() -> None:
    text = page(edited_rows(sample(), latency_ms=None, speedup=None))
    assert "Left out: no version has both an accuracy and a median latency of the device itself." in text


def test_a_version_that_is_not_drawn_is_named() -> None:
    assert "for want of an accuracy or a latency: slim-int8 on linux-openvino (refused)." in page(sample())


def test_a_version_far_below_the_limit_does_not_flatten_the_others() -> None:
    results = sample()
    broken = results.rows[3]
    assert broken.accuracy
    bad = broken.accuracy.model_copy(update={"value": 0.30, "ci95": (0.27, 0.33), "drop_pp": 59.3})
    rows = [row if row is not broken else row.model_copy(update={"accuracy": bad}) for row in results.rows]
    text = page(edited(results, rows=tuple(rows)))
    assert "30.0 %</tspan>" in text
    assert ">40</text>" not in text


def test_ten_targets_of_many_processes_stay_under_the_limit_of_size() -> None:
    rows, raw = [], []
    for number, row in itertools.product(range(10), sample().rows[:4]):
        rows.append(row.model_copy(update={"target": f"target-{number}"}))
        latencies = [1 + (37 * one % 997) / 9 for one in range(900)]
        processes = [{"latencies_ms": latencies} for _ in range(60)]
        raw.append({"variant": row.variant, "target": f"target-{number}", "processes": processes})
    noise = thumbnail(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    causes = sample_causes()
    shown = [{**one, "image": noise} for one in causes["changed"][-1]["shown"]]
    for key, more in (("layers", {}), ("changed", {"shown": shown})):
        causes[key] = [{**causes[key][-1], **more, "variant": row.variant, "target": row.target} for row in rows]
    text = page(edited(sample(), rows=tuple(rows)), {"rows": raw, **causes})
    assert len(text.encode()) < 1_500_000
    assert "The first 24 processes of each version are shown." in text
    assert "Thinned to 62 samples a process" in text


@given(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=500), st.integers(1, 200))
def test_thinning_keeps_the_smallest_and_the_largest(values: list[float], most: int) -> None:
    kept = thin(values, most)
    assert len(kept) == min(most, len(values))
    assert kept[0] == min(values)
    assert most == 1 or kept[-1] == max(values)


def test_labels_of_bubbles_on_one_spot_do_not_cover_each_other() -> None:
    circles = [(200.0 + number, 150.0, 12.0) for number in range(6)]
    room = Box(0, 0, 440, 330)
    spots = place([f"variant-{number} 3.8 MB" for number in range(6)], circles, soft=[], hard=[], room=room)
    assert all(a.box.overlap(b.box) == 0 for a, b in itertools.combinations(spots, 2))
    assert all(spot.box.outside(room) == 0 for spot in spots)
