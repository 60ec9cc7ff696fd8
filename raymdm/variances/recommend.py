"""What to train with at a budget of forwards, and why, in plain words.

The choice is by the gradient's variance per forward (the optimiser sees gradients), among the
estimators of Standard's objective. What the intervals cannot tell apart goes to fewer forwards a
row, then to fewer parts.
"""

from dataclasses import dataclass

from raymdm.diffusion.compose import estimator_section, needs_probe
from raymdm.errors import ConfigurationError
from raymdm.variances.figures import Curves, Figure, Figures, Gain, Measured, Parts
from raymdm.variances.wording import (
    counted,
    figure_text,
    general,
    listed,
    overlap,
    percent,
    percent_interval,
    ratio_interval,
    share,
)

STANDARD = "standard"
CONFIGURED = "configured"
"""The name of the run's own estimator section."""
_MANY_PARTS = 99
_MEANINGS = {"A": "mask patterns", "B": "mask rates", "C": "rows"}


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        chosen: the recommended estimator; None where nothing beats Standard.
        best: the least variance per forward, of those that beat Standard or else of all.
        tied: the others that cannot be told from the best, the least variance first.
    """

    chosen: Measured | None
    best: Measured | None
    tied: list[Measured]


def recommend(figures: Figures) -> Figures:
    """The figures with `recommended` and `sentences` filled, at the budget `figures.forwards`."""
    choice = choose(figures)
    sentences = [
        *_choice_sentences(figures, choice),
        *_noise_sentences(figures),
        *_view_sentences(figures),
        *_limit_sentences(figures),
        *_check_sentences(figures),
    ]
    name = choice.chosen.name if choice.chosen else STANDARD
    return figures.model_copy(update={"recommended": name, "sentences": sentences})


def choose(figures: Figures) -> Choice:
    """The affordable estimator of Standard's objective with the least gradient variance.

    It beats Standard where the interval of its variance per forward lies below 1. Of those that
    cannot be told from the least one (their ratio's interval reaches 1): the fewest forwards, then
    the fewest `parts`, then the least variance.
    """
    rivals = sorted(
        (
            measured
            for measured in figures.estimators
            if measured.same_objective
            and measured.forwards <= figures.forwards
            and measured.name != STANDARD
        ),
        key=lambda measured: measured.gradient.forward.value,
    )
    better = [measured for measured in rivals if measured.gradient.forward.high < 1]
    if not better:
        return Choice(None, rivals[0] if rivals else None, [])
    best = better[0]
    near = [one for one in rivals if _cannot_be_told_apart(one, best)]
    chosen = min(
        (measured for measured in near if measured in better),
        key=lambda one: (one.forwards, parts(one.name), one.gradient.forward.value),
    )
    return Choice(chosen, best, [measured for measured in near if measured is not best])


def _cannot_be_told_apart(one: Measured, best: Measured) -> bool:
    """By their ratio to each other where it is known: both ratios to Standard share its noise."""
    if one.over_best is None:
        return overlap(one.gradient.forward, best.gradient.forward)
    return one.over_best.low <= 1 or one is best


def parts(name: str) -> int:
    """In how many choices a shipped preset differs from Standard; a fitted density counts twice.

    A user's file is not looked into and ranks behind the presets.
    """
    try:
        section = estimator_section(name)
    except ConfigurationError:
        return _MANY_PARTS
    chosen = (
        section.time.sampler != "uniform",
        needs_probe(section) or section.density.kind == "ap",
        section.time.stratify != "none",
        section.masker.kind != "independent",
        section.masker.views > 1,
        section.delimiters.rates != "same",
        section.control.kind != "none",
    )
    return sum(chosen)


def _choice_sentences(figures: Figures, choice: Choice) -> list[str]:
    budget = counted(figures.forwards, "forward")
    chosen, best = choice.chosen, choice.best
    if chosen is None or best is None:
        least = f" The least is {_named(best)}." if best else ""
        return [
            "Nothing beats Standard: no other estimator of its objective has an interval of the "
            f"gradient's variance per forward that lies below 1.{least}",
            f"Train with {_how(STANDARD, figures.forwards)}: "
            f"{counted(figures.forwards, 'row')} of 1 forward within a budget of {budget} a step.",
        ]
    rows = figures.forwards // chosen.forwards
    least = ", the least of those with Standard's objective" if chosen is best else ""
    sentences = [
        f"Train with {_how(chosen.name, rows)}: {counted(rows, 'row')} of "
        f"{counted(chosen.forwards, 'forward')} within a budget of {budget} a step.",
        f"Gradient variance per forward, Standard = 1: {_named(chosen)}{least}. "
        + _told_apart(choice, chosen, best),
        _standard_rows(chosen.gradient, rows),
    ]
    if chosen.limit == "stratified" and rows != figures.batch_size:
        sentences.append(
            f"It was measured with {counted(figures.batch_size, 'row')} a batch; stratified rates "
            "gain a little with more rows and lose a little with fewer."
        )
    return sentences


def _how(name: str, rows: int) -> str:
    """The estimator as the command line takes it."""
    batch = f"--set training.batch_size={rows}"
    if name == CONFIGURED:
        return f"the estimator of your configuration and {batch}"
    shipped = parts(name) < _MANY_PARTS
    return f"{'-c estimators/' if shipped else '-c '}{name} {batch}"


def _standard_rows(gain: Gain, rows: int) -> str:
    """How many rows, that is forwards, Standard needs for the noise of so many rows."""
    value, low, high = (
        f"{rows / times:.0f}" for times in (gain.step.value, gain.step.high, gain.step.low)
    )
    return (
        f"Standard would need {value} [{low}, {high}] rows, a forward each, for the same noise of "
        "the gradient."
    )


def _told_apart(choice: Choice, chosen: Measured, best: Measured) -> str:
    if not choice.tied:
        return "No other comes near it."
    if chosen is best:
        return (
            f"It cannot be told from {listed([_named(one) for one in choice.tied])}: the intervals "
            "of their ratios hold 1. Of those that beat Standard it takes the fewest forwards a "
            "row, then the fewest parts."
        )
    others = [_named(one) for one in choice.tied if one is not chosen]
    also = f" Nor can {listed(others)}." if others else ""
    simpler = "takes fewer forwards a row" if chosen.forwards < best.forwards else "has fewer parts"
    return (
        f"The least is {_named(best)}, but the two cannot be told apart (the interval of their "
        f"ratio holds 1); "
        f"{chosen.name} {simpler}.{also}"
    )


def _noise_sentences(figures: Figures) -> list[str]:
    gradient, loss = _leading(figures.gradient), _leading(figures.loss)
    compared = (
        f"{_led(gradient)} leads both"
        if loss == gradient
        else f"They disagree: {_led(gradient)} leads the gradient, {_led(loss)} the loss"
    )
    return [
        f"{compared}. The optimiser sees the gradient.",
        _shares("gradient", figures.gradient),
        _shares("loss", figures.loss),
    ]


def _shares(quantity: str, noise: Parts) -> str:
    shares = {name: share(noise, name) for name in ("A", "B", "C", "B1", "B2")}
    ordered = sorted(_MEANINGS, key=lambda name: -shares[name].value)
    shown = [f"{name} ({_MEANINGS[name]}) {percent_interval(shares[name])}" for name in ordered]
    return (
        f"Of the {quantity}'s variance: {', '.join(shown)}; within B, B1 (alike for all rows) is "
        f"{percent(shares['B1'].value)} and B2 (differs by row) {percent(shares['B2'].value)}."
    )


def _leading(noise: Parts) -> tuple[str, ...]:
    """The greatest of A, B, C, with those whose intervals overlap it."""
    values: dict[str, Figure] = {name: getattr(noise, name) for name in _MEANINGS}
    greatest = max(values, key=lambda name: values[name].value)
    return tuple(name for name in values if overlap(values[name], values[greatest]))


def _led(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{' or '.join(names)} (their intervals overlap)"


def _view_sentences(figures: Figures) -> list[str]:
    sentences = [
        _views("gradient", figures.gradient, figures.gradient_curves),
        _views("loss", figures.loss, figures.loss_curves),
    ]
    several = [one for one in figures.estimators if one.forwards > 1 and one.same_objective]
    if several:
        least = min(several, key=lambda one: one.gradient.forward.value)
        mirror = [_named(one) for one in several if one.name == "mirror" and one is not least]
        also = f" ({mirror[0]})" if mirror else ""
        sentences.append(
            f"Of the estimators with several views {_named(least)} has the least gradient variance "
            f"per forward{also}."
        )
    return sentences


def _views(quantity: str, noise: Parts, curves: Curves) -> str:
    """Whether a mirrored view is worth a further row: |rho| A > B + C, rho negative.

    Both sides as shares of the variance, so that they depend on rho and on the share of A alone.
    """
    rho, masks = curves.pooled_rho, share(noise, "A")
    gain = _product(Figure(value=-rho.value, low=-rho.high, high=-rho.low), masks)
    cost = Figure(value=1 - masks.value, low=1 - masks.high, high=1 - masks.low)
    verdict = (
        "pay"
        if gain.low > cost.high
        else "do not pay"
        if gain.high < cost.low
        else "may or may not pay (the intervals overlap)"
    )
    name = "|rho| A" if rho.value < 0 else "-rho A"
    return (
        f"Two mirrored views {verdict} for the {quantity}: {name} is {percent_interval(gain)} of "
        f"the variance, B + C {percent_interval(cost)}; they pay where the first is greater "
        f"(rho {figure_text(rho, 2)})."
    )


def _product(one: Figure, other: Figure) -> Figure:
    """The product, its interval from the ends that make it widest."""
    corners = [a * b for a in (one.low, one.high) for b in (other.low, other.high)]
    return Figure(value=one.value * other.value, low=min(corners), high=max(corners))


def _limit_sentences(figures: Figures) -> list[str]:
    gradient, loss = figures.gradient, figures.loss
    rates, rows = share(gradient, "B1"), share(gradient, "C")
    unseen = "" if gradient.B1.low > 0 else "; its interval reaches 0"
    return [
        f"Stratified rates can remove B1: {percent_interval(rates)} of the gradient's variance"
        f"{unseen} (loss: {percent(share(loss, 'B1').value)}).",
        f"No estimator removes C, only more rows do: {percent_interval(rows)} of the gradient's "
        f"variance (loss: {percent(share(loss, 'C').value)}).",
    ]


def _check_sentences(figures: Figures) -> list[str]:
    """Warnings: components that do not add up, and rare rates that the batches did not meet."""
    return [*_sum_sentences(figures), *_tail_sentences(figures)]


def _tail_sentences(figures: Figures) -> list[str]:
    """Standard's variance lies for a good part in rates near 0 that few batches draw."""
    standard = next((row for row in figures.estimators if row.name == STANDARD), None)
    if standard is None:
        return []
    return [
        f"Check: {general(noise.direct)} was measured of Standard's {quantity} variance, "
        f"{gain.expected:.3g} is expected: rare rates near 0, which these batches met "
        f"{'too seldom' if gain.expected > noise.direct.high else 'too often'}, make the "
        "difference. Trust the predicted ratios more than the measured, or raise variance.batches."
        for quantity, gain, noise in (
            ("loss", standard.loss, figures.loss),
            ("gradient", standard.gradient, figures.gradient),
        )
        if gain.expected is not None and not noise.direct.low <= gain.expected <= noise.direct.high
    ]


def _sum_sentences(figures: Figures) -> list[str]:
    return [
        f"Check: the {quantity}'s A + B + C, {general(noise.total)}, disagrees with its "
        f"direct variance, {general(noise.direct)} (the intervals do not overlap). Measure more "
        "rows before you rely on its shares."
        for quantity, noise in (("loss", figures.loss), ("gradient", figures.gradient))
        if not overlap(noise.total, noise.direct)
    ]


def _named(measured: Measured) -> str:
    return f"{measured.name} {ratio_interval(measured.gradient.forward)}"
