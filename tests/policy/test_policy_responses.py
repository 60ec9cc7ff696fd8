"""The baselines' rows: what diffu-GRPO and coupled-GRPO show, and how they average."""

from typing import Any

import pytest
import torch
from rolled import EOS, MASK, SHAPE, by_hand, decoding, policy, tiny_model

from raymdm.policy.loss import policy_loss
from raymdm.policy.responses import rows_of_responses
from raymdm.policy.rows import PolicyRows, Rollout
from raymdm.policy.scoring import score

TEXT = [3, 1, 4, EOS, 5]
TRACE = by_hand([MASK] * 5, [TEXT], [TEXT])
ROLLOUTS = [Rollout([7, 8, 2], TRACE, 0, 0), Rollout([6], TRACE, 0, 1), Rollout([6], TRACE, 1, 0)]


def rows(loss: str, iteration: int = 0, **keys: Any) -> PolicyRows:
    section = policy(loss=loss, normalisation="mean", **keys)
    return rows_of_responses(
        ROLLOUTS, [1.0, -1.0, 0.5], section, SHAPE, seed=4, iteration=iteration
    )


def test_diffu_grpo_masks_the_whole_response_and_counts_it_up_to_its_eos():
    found = rows("diffu_grpo")
    assert found.shown.tolist() == [
        [[7, 8, 2, *[MASK] * 5], [11, 11, 6, *[MASK] * 5], [11, 11, 6, *[MASK] * 5]]
    ]
    assert found.targets[0].tolist() == [7, 8, 2, *TEXT]
    assert found.counted[0].tolist() == [False] * 3 + [True] * 4 + [False]
    assert rows("diffu_grpo", after_eos=True).counted[0].tolist() == [False] * 3 + [True] * 5
    assert torch.equal(found.coefficients[0], found.counted.float())
    assert found.behaviour is None


def test_prompt_tokens_are_masked_at_their_rate_by_address():
    section = policy(loss="diffu_grpo", normalisation="mean", prompt_masking=0.15)
    long = Rollout([1] * 4000, TRACE, 3, 1)

    def hidden(rollouts: list[Rollout], seed: int = 4, iteration: int = 0) -> list[bool]:
        found = rows_of_responses(
            rollouts, [1.0] * len(rollouts), section, SHAPE, seed=seed, iteration=iteration
        )
        return (found.shown[0, -1, :4000] == MASK).tolist()

    assert sum(hidden([long])) / 4000 == pytest.approx(0.15, abs=0.02)
    assert hidden([ROLLOUTS[0], long]) == hidden([long])
    others = [
        hidden([long], seed=5),
        hidden([long], iteration=1),
        hidden([Rollout(long.prompt, TRACE, 3, 2)]),
        hidden([Rollout(long.prompt, TRACE, 4, 1)]),
    ]
    assert all(other != hidden([long]) for other in others)


def test_coupled_grpo_shows_all_masked_and_a_complementary_pair():
    found = rows("coupled_grpo")
    full, first, second = found.shown == MASK
    assert torch.equal(full, found.response)
    assert torch.equal(first ^ second, found.response)
    assert not (first & second).any()
    assert first.any()
    assert second.any()
    assert not torch.equal(first[1], first[2])
    assert (found.coefficients[0] == 0.5 * found.counted).all()
    for row in range(3):
        one, other = (
            found.coefficients[view, row][found.counted[row] & hides[row]].unique().tolist()
            for view, hides in ((1, first), (2, second))
        )
        # 1 / 2r and 1 / (2 - 2r), of one ratio r; a side may hide nothing that counts.
        ratios = [0.5 / value for value in one] + [1 - 0.5 / value for value in other]
        assert all(0.2 <= ratio <= 0.8 for ratio in ratios)
        assert max(ratios) - min(ratios) < 1e-6
    assert not torch.equal(rows("coupled_grpo", iteration=1).shown, found.shown)
    fixed = rows("coupled_grpo", mask_ratios=[0.5, 0.5])
    assert torch.equal(fixed.coefficients.sum(0), 1.5 * fixed.counted)


def test_coupled_log_probabilities_are_the_average_by_hand():
    model, settings = tiny_model(), decoding(temperature=0.9)
    found = rows("coupled_grpo")
    with torch.no_grad():
        scored = score(model, found, settings, SHAPE)
    for row in range(3):
        real = found.attention[row]
        wanted = torch.zeros(int(real.sum()), dtype=torch.float64)
        for view in range(3):
            with torch.no_grad():
                logits = model(found.shown[view, row][real][None])[0] / 0.9
            logits[:, MASK] = -torch.inf
            every = logits.log_softmax(-1)
            own = every.gather(1, found.targets[row][real][:, None])[:, 0]
            part = found.coefficients[view, row][real].double()
            wanted += torch.where(part > 0, part * own, 0.0)
        torch.testing.assert_close(scored[row][real], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", ["diffu_grpo", "coupled_grpo"])
def test_parts_add_up_to_the_whole_and_the_first_update_has_ratio_one(loss: str):
    model, settings = tiny_model(), decoding()
    found = rows(loss)
    with torch.no_grad():
        found = found.with_behaviour(score(model, found, settings, SHAPE))
        whole = policy_loss(score(model, found, settings, SHAPE), found, epsilon=0.2, beta=0.0)
        part = found.take([2, 1])
        parts = policy_loss(score(model, part, settings, SHAPE), part, epsilon=0.2, beta=0.0)
    assert part.shown.shape == (len(found.shown), 2, 6)
    torch.testing.assert_close(parts.per_row, whole.per_row[[2, 1]], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole.per_row, -found.advantages.double(), rtol=1e-9, atol=0)


def test_the_steps_of_mdpo_are_no_final_responses():
    section = policy()
    with pytest.raises(ValueError, match="mdpo does not score final responses"):
        rows_of_responses(ROLLOUTS, [1.0] * 3, section, SHAPE, seed=0, iteration=0)
