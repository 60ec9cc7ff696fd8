"""What is recommended, and in which words, in several situations."""

import pytest
from synthetic_figures import MASKS_LEAD, estimator, parts, synthetic

from raymdm.variances.figures import Figure
from raymdm.variances.recommend import choose, recommend
from raymdm.variances.recommend import parts as parts_of
from raymdm.variances.wording import share

ONE_VIEW = {"standard": 1.0, "lattice": 0.85, "ppots_lattice": 0.6, "recommended": 0.44}


def words(**changes):
    return " ".join(recommend(synthetic(**changes)).sentences)


def test_the_least_gradient_variance_per_forward_is_recommended_with_its_numbers():
    advised = recommend(synthetic())
    assert advised.recommended == "recommended"
    first, second, third = advised.sentences[:3]
    assert first == (
        "Train with -c estimators/recommended --set training.batch_size=64: 64 rows of 1 forward "
        "within a budget of 64 forwards a step."
    )
    assert "recommended 0.44 [0.41, 0.47], the least" in second
    assert "No other comes near it." in second
    # 64 / 0.44, 64 / 0.4708 and 64 / 0.4092.
    assert third.startswith("Standard would need 145 [136, 156] rows")


def test_everything_else_stays_as_it_was_measured():
    figures = synthetic()
    advised = recommend(figures)
    kept = {"recommended", "sentences"}
    assert advised.model_dump(exclude=kept) == figures.model_dump(exclude=kept)
    assert figures.sentences == []


def test_an_estimator_of_another_objective_is_never_recommended():
    steps = {"standard": 1.0, "lattice": 0.9, "clipped": 0.1, "isad": 0.2}
    assert recommend(synthetic(steps, width=0.02)).recommended == "lattice"


def test_views_are_paid_for_before_they_are_compared():
    """Half the variance at twice the forwards buys nothing."""
    steps = {"standard": 1.0, "mirror": 0.5, "lattice": 0.9}
    assert recommend(synthetic(steps, width=0.02)).recommended == "lattice"


def test_two_views_share_the_budget():
    steps = {"standard": 1.0, "ppots_mirror": 0.3, "lattice": 0.9}
    text = words(steps=steps, forwards=33)
    assert "--set training.batch_size=16: 16 rows of 2 forwards within a budget of 33" in text
    assert "Standard would need 53 [50, 57] rows" in text


def test_what_the_budget_cannot_pay_is_not_recommended():
    steps = {"standard": 1.0, "rotation4": 0.1, "lattice": 0.9}
    assert recommend(synthetic(steps, width=0.02, forwards=4)).recommended == "rotation4"
    assert recommend(synthetic(steps, width=0.02, forwards=3)).recommended == "lattice"


def test_a_tie_goes_to_fewer_parts_and_is_told():
    steps = ONE_VIEW | {"ppots_lattice": 0.46, "lattice": 0.5}
    advised = recommend(synthetic(steps, width=0.1))
    assert advised.recommended == "lattice"
    text = " ".join(advised.sentences)
    assert "The least is recommended 0.44 [0.40, 0.48], but the two cannot be told apart" in text
    assert "Nor can ppots_lattice 0.46 [0.41, 0.51]" in text
    assert "the least of those" not in text


def test_a_tie_goes_to_fewer_forwards_before_fewer_parts():
    # MIRROR has one part, the recommended preset four.
    steps = {"standard": 1.0, "mirror": 0.25, "recommended": 0.52}
    assert recommend(synthetic(steps, width=0.1)).recommended == "recommended"


def test_a_tie_that_the_least_wins_names_the_others():
    steps = ONE_VIEW | {"lattice": 0.44, "recommended": 0.46}
    advised = recommend(synthetic(steps))
    assert advised.recommended == "lattice"
    assert "It cannot be told from recommended 0.46 [0.43, 0.49]" in " ".join(advised.sentences)


def test_a_tied_estimator_that_does_not_beat_standard_itself_is_not_taken():
    wide, narrow = estimator("ppots_lattice", 0.8, 0.15), estimator("lattice", 0.95, 0.1)
    figures = synthetic(estimators=[estimator("standard", 1.0), narrow, wide])
    choice = choose(figures)
    assert choice.chosen is wide
    assert choice.tied == [narrow]


def test_a_file_of_the_user_counts_as_more_parts_than_any_preset():
    mine = estimator("mine.yaml", 0.43)
    figures = synthetic(
        estimators=[estimator("standard", 1.0), mine, estimator("recommended", 0.44)]
    )
    assert recommend(figures).recommended == "recommended"
    alone = recommend(synthetic(estimators=[estimator("standard", 1.0), mine]))
    assert "Train with -c mine.yaml --set training.batch_size=64" in alone.sentences[0]


def test_the_run_s_own_section_is_not_taken_for_a_file():
    figures = synthetic(estimators=[estimator("standard", 1.0), estimator("configured", 0.4)])
    first = recommend(figures).sentences[0]
    assert first.startswith("Train with the estimator of your configuration and --set")


@pytest.mark.parametrize(
    "steps", [{"standard": 1.0, "lattice": 0.97, "mirror": 0.6}, {"standard": 1.0}]
)
def test_nothing_beats_standard_is_said_exactly(steps):
    advised = recommend(synthetic(steps))
    assert advised.recommended == "standard"
    assert advised.sentences[0].startswith("Nothing beats Standard: no other estimator")
    assert "-c estimators/standard --set training.batch_size=64" in advised.sentences[1]
    assert not any("would need" in text for text in advised.sentences)


def test_a_lower_loss_variance_alone_does_not_beat_standard():
    assert recommend(synthetic({"standard": 1.0, "ema": 1.0})).recommended == "standard"


@pytest.mark.parametrize(
    ("simpler", "richer"),
    [
        ("standard", "power"),
        ("power", "ppots"),
        ("lattice", "ppots_lattice"),
        ("ppots", "ppots_mirror"),
        ("ppots_mirror", "ppots_mirror_strats"),
        ("count", "recommended"),
    ],
)
def test_parts_are_counted_from_the_presets(simpler, richer):
    assert parts_of(simpler) < parts_of(richer) < parts_of("no/such/preset")


def test_another_batch_size_than_the_measured_is_pointed_out_where_it_matters():
    note = "It was measured with 64 rows a batch"
    assert note in words(forwards=128)
    assert note not in words(forwards=64)
    assert note not in words(steps={"standard": 1.0, "ppots": 0.7}, forwards=128)


def test_loss_and_gradient_disagree_and_the_optimiser_sees_the_gradient():
    text = words()
    assert (
        "They disagree: A leads the gradient, C the loss. The optimiser sees the gradient." in text
    )
    assert (
        "Of the gradient's variance: A (mask patterns) 74% [71%, 77%], B (mask rates) 14%" in text
    )
    assert "Of the loss's variance: C (rows) 58% [54%, 62%], A (mask patterns) 29%" in text
    assert "B1 (alike for all rows) is 9.0% and B2 (differs by row) 5.0%" in text


def test_agreement_and_doubt_about_the_leader_are_told_apart():
    assert "A leads both. The optimiser" in words(loss=parts(MASKS_LEAD, 0.05))
    even = {"A": 0.42, "B": 0.14, "C": 0.44, "B1": 0.09, "B2": 0.05}
    assert "A or C (their intervals overlap) leads the gradient" in words(gradient=parts(even, 1.0))


def with_rho(value, low, high, shares):
    figures = synthetic(gradient=parts(shares, 3.4e-6))
    rho = Figure(value=value, low=low, high=high)
    curves = figures.gradient_curves.model_copy(update={"pooled_rho": rho})
    return " ".join(recommend(figures.model_copy(update={"gradient_curves": curves})).sentences)


NEARLY_ALL_A = {"A": 0.94, "B": 0.03, "C": 0.03, "B1": 0.01, "B2": 0.02}


def test_views_pay_where_rho_a_exceeds_b_and_c():
    text = with_rho(-0.2, -0.25, -0.15, NEARLY_ALL_A)
    assert "Two mirrored views pay for the gradient: |rho| A is 19% [14%, 24%]" in text
    assert "B + C 6.0% [5.2%, 7.0%]" in text


def test_views_do_not_pay_where_it_stays_below():
    assert "Two mirrored views do not pay for the gradient: |rho| A is 6.7%" in words()
    assert "Two mirrored views do not pay for the loss: |rho| A is 2.6%" in words()


@pytest.mark.parametrize("rho", [-0.07, -0.05])
def test_overlapping_sides_leave_it_open_whether_views_pay(rho):
    text = with_rho(rho, -0.1, -0.04, NEARLY_ALL_A)
    assert "Two mirrored views may or may not pay (the intervals overlap) for the gradient" in text


def test_views_that_resemble_each_other_never_pay():
    """A positive correlation is not a large |rho|."""
    assert "do not pay for the gradient: -rho A is -19%" in with_rho(0.2, 0.15, 0.25, NEARLY_ALL_A)


def test_the_measured_views_stand_beside_the_rule():
    assert (
        "Of the estimators with several views ppots_mirror_strats 0.86 [0.80, 0.92] has the least "
        "gradient variance per forward (mirror 1.16 [1.08, 1.24])."
    ) in words()


def test_what_strata_remove_and_what_nothing_removes_is_told():
    text = words()
    assert "can remove B1: 9.0% [7.8%, 10%] of the gradient's variance (loss: 3.0%)" in text
    assert "removes C, only more rows do: 12% [10%, 14%] of the gradient's" in text


def test_a_b1_below_zero_is_not_hidden():
    shares = MASKS_LEAD | {"B1": -0.002}
    assert "B1: -0.2% [-0.2%, -0.2%] of the gradient's variance; its" in words(
        gradient=parts(shares, 1.0)
    )


def test_a_component_that_is_nearly_all_of_a_noisy_total_has_a_narrow_share():
    """It and the total rise and fall together."""
    noise = parts({"A": 0.98, "B": 0.01, "C": 0.01, "B1": 0.005, "B2": 0.005}, 1.0, width=0.9)
    share_of_a = share(noise, "A")
    assert 0.7 < share_of_a.low < share_of_a.value == 0.98 < share_of_a.high < 1


def test_a_share_that_noise_leaves_undefined_is_a_dash():
    noise = parts(MASKS_LEAD, 1.0)
    below = Figure(value=0.1, low=-2.0, high=0.2)
    figures = synthetic(gradient=noise.model_copy(update={"C": below}))
    assert "A (mask patterns) 74% [66%, –]" in " ".join(recommend(figures).sentences)


def test_components_that_do_not_add_up_are_warned_about():
    assert "Check:" not in words()
    text = words(gradient=parts(MASKS_LEAD, 3.4e-6, direct=1.5))
    assert "Check: the gradient's A + B + C, 3.4e-06 [3.13e-06, 3.67e-06], disagrees" in text


@pytest.mark.parametrize(("direct", "word"), [(0.5, "too seldom"), (2.0, "too often")])
def test_rare_rates_that_the_batches_met_too_seldom_or_too_often_are_named(
    direct: float, word: str
):
    text = words(gradient=parts(MASKS_LEAD, 3.4e-6, direct=direct))
    assert "of Standard's gradient variance, 3.43e-06 is expected: rare rates near 0" in text
    assert word in text
    assert "of Standard's loss variance" not in text


def test_two_that_differ_from_each_other_are_told_apart_though_standards_noise_blurs_both():
    """Wide intervals against Standard overlap; the ratio of the two to each other does not."""
    steps = {"standard": 1.0, "power": 0.6, "recommended": 0.4}
    figures = synthetic(steps, width=0.4)
    assert choose(figures).chosen.name == "power"
    above = {"standard": 2.5, "power": 1.5, "recommended": 1.0}
    compared = [
        row.model_copy(
            update={
                "over_best": Figure(
                    value=above[row.name], low=0.9 * above[row.name], high=1.1 * above[row.name]
                )
            }
        )
        for row in figures.estimators
    ]
    choice = choose(figures.model_copy(update={"estimators": compared}))
    assert choice.chosen.name == "recommended"
    assert choice.tied == []
