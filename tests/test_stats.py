from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgecv.errors import UsageError
from edgecv.stats import (
    Drop,
    accuracy_drop,
    compare,
    judge_drop,
    percentile,
    process_figure,
    samples_needed,
    spread_warning,
    wilson,
)

settings.load_profile("ci")  # the same examples each time, and no deadline on a busy machine

latencies = st.floats(0.01, 1000.0)
rounds = st.lists(st.tuples(latencies, latencies), min_size=6, max_size=20)


def drop_of(lost: int, gained: int, *, n: int) -> Drop:
    """The drop of two models that both have every image right but `lost` and `gained`."""
    reference, candidate = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    candidate[:lost] = False
    reference[lost : lost + gained] = False
    return accuracy_drop(reference, candidate)


@st.composite
def disagreements(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 500))
    lost = draw(st.integers(0, n))
    return lost, draw(st.integers(0, n - lost)), n


# --- one share


@given(n=st.integers(1, 5000), data=st.data(), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys_interval_and_holds_the_share(n: int, data: Any, confidence: float) -> None:
    from scipy.stats import binomtest

    successes = data.draw(st.integers(0, n))
    ours = wilson(successes, n, confidence=confidence)
    theirs = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours[0] <= successes / n <= ours[1] <= 1


@pytest.mark.parametrize(("n", "half_pp"), [(100, 8.8), (1000, 2.8), (4000, 1.4), (50_000, 0.39)])
def test_wilson_has_the_published_width_at_72_percent(n: int, half_pp: float) -> None:
    low, high = wilson(round(0.72 * n), n)
    assert 50 * (high - low) == pytest.approx(half_pp, rel=0.03)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_counts_that_are_no_share(successes: int, n: int) -> None:
    with pytest.raises(UsageError, match="no share"):
        wilson(successes, n)


# --- the drop of accuracy


def test_a_drop_counts_the_images_that_only_one_model_has_right() -> None:
    drop = drop_of(7, 3, n=200)
    assert (drop.lost, drop.gained, drop.n) == (7, 3, 200)
    assert drop.drop_pp == pytest.approx(2.0)


@given(disagreements())
def test_a_drops_interval_is_the_score_test_inverted(counts: tuple[int, int, int]) -> None:
    """The oracle finds the constrained maximum of the likelihood by search, where the code has Tango's closed form."""
    from scipy.optimize import minimize_scalar
    from scipy.special import xlogy

    lost, gained, n = counts
    for bound in drop_of(lost, gained, n=n).ci95:
        delta = bound / 100
        if abs(delta) > 1 - 1e-9:
            continue

        def unlikelihood(share: float, delta: float = delta) -> float:
            rest = max(0.0, 1 - 2 * share - delta)
            return -float(xlogy(lost, share + delta) + xlogy(gained, share) + xlogy(n - lost - gained, rest))

        least, most = max(0.0, -delta), (1 - delta) / 2
        share = minimize_scalar(unlikelihood, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
        share = min((least, share, most), key=unlikelihood)
        z = (lost - gained - n * delta) / math.sqrt(n * (2 * share + delta - delta**2))
        assert abs(z) == pytest.approx(1.959964, rel=1e-3)


@given(disagreements())
def test_a_drops_interval_holds_the_drop(counts: tuple[int, int, int]) -> None:
    lost, gained, n = counts
    drop = drop_of(lost, gained, n=n)
    assert -100 <= drop.ci95[0] <= drop.drop_pp <= drop.ci95[1] <= 100


@given(disagreements())
def test_swapping_the_models_turns_the_drop_round(counts: tuple[int, int, int]) -> None:
    lost, gained, n = counts
    there, back = drop_of(lost, gained, n=n), drop_of(gained, lost, n=n)
    assert there.drop_pp == -back.drop_pp
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]), abs=1e-9)


@given(disagreements())
def test_ten_times_the_images_narrow_a_drops_interval(counts: tuple[int, int, int]) -> None:
    lost, gained, n = counts
    # Where all images are lost, or all gained, the outer end is at its stop already.
    few, many = drop_of(lost, gained, n=n).ci95, drop_of(10 * lost, 10 * gained, n=10 * n).ci95
    assert many[1] - many[0] < few[1] - few[0]


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_models_that_never_disagree_still_have_a_width(n: int) -> None:
    low, high = drop_of(0, 0, n=n).ci95
    assert high == pytest.approx(-low)
    assert high == pytest.approx(100 * 1.96**2 / (n + 1.96**2), rel=1e-3)


def test_a_candidate_that_loses_every_image_is_bounded_on_one_side() -> None:
    low, high = drop_of(50, 0, n=50).ci95
    assert high == 100.0
    assert 80 < low < 100


def test_one_image_says_next_to_nothing() -> None:
    low, high = drop_of(1, 0, n=1).ci95
    assert high == 100.0
    assert low < -50


@pytest.mark.parametrize(("share_lost", "share_gained", "n"), [(0.04, 0.02, 200), (0.01, 0.01, 400), (0.1, 0.02, 60)])
def test_a_drops_interval_covers_the_truth_95_times_in_100(share_lost: float, share_gained: float, n: int) -> None:
    rng, truth, rounds = np.random.default_rng(1), 100 * (share_lost - share_gained), 2000
    draws = rng.multinomial(n, [share_lost, share_gained, 1 - share_lost - share_gained], size=rounds)
    intervals = {(lost, gained): drop_of(lost, gained, n=n).ci95 for lost, gained, _ in draws.tolist()}
    hits = sum(intervals[b, c][0] <= truth <= intervals[b, c][1] for b, c, _ in draws.tolist())
    assert 0.93 <= hits / rounds <= 0.985


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [([True], [True, False]), ([], []), ([0.9, 0.1], [0.8, 0.2]), ([[True]], [[True]])],
)
def test_a_drop_of_unpaired_answers_is_refused(reference: Any, candidate: Any) -> None:
    with pytest.raises(UsageError, match="can't"):
        accuracy_drop(np.array(reference), np.array(candidate))


# --- judging a drop


def test_a_drop_passes_when_its_upper_end_keeps_the_limit() -> None:
    drop = drop_of(20, 20, n=4000)
    assert drop.ci95[1] < 1.0
    assert judge_drop(drop, 1.0) == "pass"


def test_a_drop_fails_with_its_figures_when_its_lower_end_breaks_the_limit() -> None:
    assert judge_drop(Drop(3.4, (2.1, 4.8), 40, 6, 1000), 2.0) == "fail: drop 3.4 pp [2.1, 4.8], limit 2.0"


def test_a_close_fail_is_printed_with_digits_enough_to_see_it() -> None:
    assert judge_drop(Drop(3.0, (2.02, 4.0), 40, 10, 1000), 2.0) == "fail: drop 3.00 pp [2.02, 4.00], limit 2.0"


def test_a_limit_keeps_its_own_digits() -> None:
    assert judge_drop(Drop(3.0, (2.1, 4.0), 40, 10, 1000), 0.25).endswith("limit 0.25")


def test_a_limit_of_1_point_at_5_percent_discordance_takes_about_2000_images() -> None:
    n = 200
    status = judge_drop(drop_of(5, 5, n=n), 1.0)
    assert status.startswith("can't tell: ")
    more = int(status.split()[2].replace(",", ""))
    assert 1800 <= n + more <= 2200


@given(disagreements(), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_the_images_asked_for_decide_if_they_disagree_as_those_seen(counts: tuple[int, int, int], limit: float) -> None:
    lost, gained, n = counts
    status = judge_drop(drop_of(lost, gained, n=n), limit)
    assume(status.endswith(("images", "image")))
    grown = 1 + int(status.split()[2].replace(",", "")) / n
    # Whole factors only: the counts of images can't be cut.
    factor = math.ceil(grown)
    assume(factor * n < 200_000)
    decided = judge_drop(drop_of(lost * factor, gained * factor, n=n * factor), limit)
    assert decided.startswith("fail" if 100 * (lost - gained) / n > limit else "pass")


@given(disagreements(), st.floats(0.0, 50.0), st.floats(0.0, 50.0))
def test_a_wider_limit_never_turns_a_pass_into_something_worse(
    counts: tuple[int, int, int], limit: float, other: float
) -> None:
    lost, gained, n = counts
    drop, order = drop_of(lost, gained, n=n), ["fail", "can't", "pass"]
    verdicts = [judge_drop(drop, x).split()[0].rstrip(":") for x in sorted((limit, other))]
    assert order.index(verdicts[0]) <= order.index(verdicts[1])


def test_a_drop_that_sits_on_the_limit_is_told_in_words() -> None:
    assert judge_drop(drop_of(3, 1, n=200), 1.0) == (
        "can't tell: a drop of 1.00 pp is so close to the limit of 1.0 that 1,000,000 more images would not decide"
    )


# --- percentiles


@pytest.mark.parametrize(("q", "n"), [(50, 7), (90, 64), (95, 130), (99, 662)])
def test_a_percentile_takes_as_many_samples_as_the_design_says(q: float, n: int) -> None:
    assert samples_needed(q) == n


@given(st.floats(0.1, 99.9).filter(lambda q: q != 50))
def test_the_samples_needed_are_the_fewest_with_two_beyond_in_99_of_100(q: float) -> None:
    from scipy.stats import binom

    n, share = samples_needed(q), min(q, 100 - q) / 100
    assert binom.cdf(1, n, share) <= 0.01 * (1 + 1e-9)
    assert binom.cdf(1, n - 1, share) > 0.01 * (1 - 1e-9)


def test_the_median_needs_one_sample_beyond_in_99_of_100() -> None:
    assert 0.5**7 <= 0.01 < 0.5**6


@pytest.mark.parametrize("q", [1, 5, 10, 25, 40])
def test_a_low_percentile_takes_as_many_samples_as_its_mirror(q: float) -> None:
    assert samples_needed(q) == samples_needed(100 - q)


@pytest.mark.parametrize("q", [0, 100, -1, float("nan")])
def test_a_percentile_outside_0_to_100_is_refused(q: float) -> None:
    with pytest.raises(UsageError, match="no such percentile"):
        samples_needed(q)


@given(st.lists(latencies, min_size=64, max_size=200))
def test_a_percentile_with_enough_samples_is_numpys(samples: list[float]) -> None:
    assert percentile(samples, 90) == np.percentile(samples, 90)


@pytest.mark.parametrize(("q", "n"), [(50, 6), (90, 63), (10, 63), (95, 129), (99, 661)])
def test_a_percentile_with_one_sample_too_few_is_none(q: float, n: int) -> None:
    assert percentile([1.0] * n, q) is None


# --- the signed-rank test


# --- comparing latencies


@pytest.mark.parametrize(("scale", "answer"), [(0.5, "faster"), (2.0, "slower")])
def test_a_candidate_is_called_what_it_is(scale: float, answer: str) -> None:
    baseline = np.random.default_rng(4).normal(10, 0.1, 12)
    candidate = np.random.default_rng(5).normal(10, 0.1, 12) * scale
    comparison = compare(baseline, candidate)
    assert comparison.answer == answer
    assert comparison.ratio == pytest.approx(1 / scale, rel=0.02)


@pytest.mark.parametrize(("n", "answer"), [(1, "5 more processes"), (3, "3 more processes"), (5, "1 more process")])
def test_fewer_than_6_rounds_can_tell_nothing_however_clear(n: int, answer: str) -> None:
    comparison = compare([10.0] * n, [1.0] * n)
    assert comparison.ci95 is None
    assert comparison.answer == f"can't tell: {answer}"
    assert comparison.ratio == pytest.approx(10)


def test_6_rounds_that_agree_are_enough() -> None:
    assert compare([10.0, 11, 12, 13, 14, 15], [9.0, 9, 9, 9, 9, 9]).answer == "faster"


def test_a_higher_confidence_takes_more_processes() -> None:
    assert compare([10.0] * 6, [1.0] * 6, confidence=0.99).answer == "can't tell: 2 more processes"


def test_equal_figures_are_not_told_apart() -> None:
    assert compare([2.0] * 8, [2.0] * 8).answer == "can't tell: the interval [1.00, 1.00] contains 1"


def test_an_interval_that_just_holds_1_is_printed_with_digits_enough_to_see_it() -> None:
    baseline = np.exp([0.0100, 0.0110, 0.0120, 0.0130, 0.0140, -0.0150])
    answer = compare(baseline, np.ones(6)).answer
    low, high = (float(part) for part in answer.split("[")[1].split("]")[0].split(", "))
    assert low < 1 < high


@given(rounds)
def test_the_interval_holds_the_ratio(pairs: list[tuple[float, float]]) -> None:
    baseline, candidate = zip(*pairs, strict=True)
    comparison = compare(baseline, candidate)
    assert comparison.ci95 is not None
    assert comparison.ci95[0] <= comparison.ratio <= comparison.ci95[1]


@given(rounds)
def test_swapping_the_files_inverts_the_ratio(pairs: list[tuple[float, float]]) -> None:
    baseline, candidate = zip(*pairs, strict=True)
    there, back = compare(baseline, candidate), compare(candidate, baseline)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.ci95 is not None
    assert back.ci95 is not None
    assert there.ci95 == pytest.approx((1 / back.ci95[1], 1 / back.ci95[0]))


@given(rounds, st.floats(0.1, 10.0))
def test_the_unit_of_time_does_not_matter(pairs: list[tuple[float, float]], unit: float) -> None:
    baseline, candidate = np.array(pairs).T
    assert compare(baseline * unit, candidate * unit).ratio == pytest.approx(compare(baseline, candidate).ratio)


@given(rounds, st.floats(1.01, 10.0))
def test_a_candidate_made_slower_has_the_ratio_that_much_lower(pairs: list[tuple[float, float]], by: float) -> None:
    baseline, candidate = np.array(pairs).T
    assert compare(baseline, candidate * by).ratio == pytest.approx(compare(baseline, candidate).ratio / by)


@pytest.mark.parametrize("n", [6, 9, 12, 30, 80])
def test_the_answer_is_that_of_scipys_signed_rank_test(n: int) -> None:
    from scipy.stats import wilcoxon

    rng, told = np.random.default_rng(6), []
    for shift in (0.0, 0.3, 0.6, 0.9, 4.0):
        logs = rng.normal(shift, 1, n)
        told.append(not compare(np.exp(logs), np.ones(n)).answer.startswith("can't"))
        p = wilcoxon(logs, method="exact" if n <= 50 else "asymptotic", correction=False).pvalue
        assert told[-1] == (p <= 0.05)
    assert any(told)


def simulated(rng: np.random.Generator, *, n: int, speedup: float) -> tuple[np.ndarray, np.ndarray]:
    """Figures of `n` rounds: a drifting machine, a fixed offset a process, now and then a disturbed process."""
    drift = np.linspace(0, rng.normal(0, 0.05), n) + np.cumsum(rng.normal(0, 0.01, n))
    logs = drift + rng.normal(0, 0.015, (2, n)) + (rng.random((2, n)) < 0.05) * rng.exponential(0.2, (2, n))
    baseline, candidate = 10 * np.exp(logs)
    return baseline, candidate / speedup


def share_told(*, rounds: int, n: int, speedup: float, seed: int) -> float:
    rng = np.random.default_rng(seed)
    answers = [compare(*simulated(rng, n=n, speedup=speedup)).answer for _ in range(rounds)]
    return sum(not answer.startswith("can't tell") for answer in answers) / rounds


@pytest.mark.parametrize("n", [6, 12, 20])
def test_a_file_compared_with_itself_is_told_apart_5_times_in_100(n: int) -> None:
    assert 0.015 <= share_told(rounds=2000, n=n, speedup=1.0, seed=n) <= 0.065


def test_3_percent_are_seen_with_12_processes_most_of_the_time() -> None:
    assert share_told(rounds=500, n=12, speedup=1.03, seed=7) > 0.8


def test_pooled_invocations_would_cry_wolf_where_processes_do_not() -> None:
    """The reason for one figure a process: invocations share their process's offset."""
    from scipy.stats import mannwhitneyu

    rng, alarms = np.random.default_rng(8), 0
    for _ in range(100):
        baseline, candidate = (
            np.concatenate([figure * rng.normal(1, 0.005, 50) for figure in figures])
            for figures in simulated(rng, n=6, speedup=1.0)
        )
        alarms += mannwhitneyu(baseline, candidate).pvalue <= 0.05
    assert alarms > 30


@pytest.mark.parametrize(
    ("baseline", "candidate"),
    [([1.0, 2.0], [1.0]), ([], []), ([1.0], [0.0]), ([1.0], [float("nan")]), ([float("inf")], [1.0]), ([-1.0], [1.0])],
)
def test_figures_that_are_no_latencies_are_refused(baseline: list[float], candidate: list[float]) -> None:
    with pytest.raises(UsageError):
        compare(baseline, candidate)


# --- one process, and how far processes differ


@given(st.lists(latencies, min_size=1, max_size=50))
def test_a_process_is_reduced_to_its_p10(samples: list[float]) -> None:
    assert process_figure(samples) == np.percentile(samples, 10)


def test_a_disturbed_fifth_of_the_invocations_does_not_move_a_process() -> None:
    calm = [10.0] * 80
    assert process_figure([*calm, *[50.0] * 20]) == process_figure(calm)


def test_a_process_without_invocations_is_refused() -> None:
    with pytest.raises(UsageError, match="not latencies"):
        process_figure([])


def test_a_wide_spread_is_warned_of_with_its_figure_and_a_next_step() -> None:
    assert spread_warning([10.0, 11.0, 12.0, 9.0, 8.0]) == (
        "spread is 20 % of the median (limit 10 %): close other programs, or raise processes to 20"
    )


def test_a_spread_that_no_number_of_processes_mends_names_none() -> None:
    warning = spread_warning([10.0, 50.0, 90.0, 10.0, 90.0])
    assert warning is not None
    assert warning.endswith("close other programs")


def test_a_spread_just_over_the_limit_is_printed_with_digits_enough_to_see_it() -> None:
    assert str(spread_warning([9.485, 10.0, 10.515] * 4)).startswith("spread is 10.3 % of the median (limit 10 %)")


@pytest.mark.parametrize("figures", [[], [10.0], [10.0, 10.1, 10.2, 9.9], [10.0] * 9 + [30.0]])
def test_processes_that_agree_are_not_warned_of(figures: list[float]) -> None:
    assert spread_warning(figures) is None
