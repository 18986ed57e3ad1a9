"""The store comes back older, and another worker than the one that noticed goes on."""

import copy

import pytest

from stream_app.adapters.memory import MemoryPublic, MemoryStore
from tests.contract.shop_run import Run, faults, take_over, work

EVENTS = 1_200


async def test_the_heir_of_a_rolled_back_store_publishes_under_a_higher_epoch() -> None:
    """Else what readers take for the latest list would be the one from before the roll-back."""
    run = Run(MemoryStore(), MemoryPublic(), EVENTS)
    await run.fill()
    first = await take_over(run.worker())
    await work(run, first, last=1)
    before = copy.deepcopy((run.state, run.public))
    second = first
    for _ in range(3):  # a rebalance storm: epochs rise
        second = await take_over(run.worker())
    await work(run, second, first=1)
    run.state, run.public = before
    third = await take_over(run.worker())
    await work(run, third)
    for p, owned in third.learn.owned.items():
        assert owned.claim.epoch > second.learn.owned[p].claim.epoch
    assert await faults(run) == []


@pytest.mark.parametrize("clock_stands", [False, True])
async def test_epochs_rise_with_every_claim(clock_stands: bool) -> None:
    run = Run(MemoryStore(), MemoryPublic(), EVENTS)
    if clock_stands:
        now = run.clock()
        run.clock = lambda: now  # type: ignore[assignment]
    epochs = []
    for _ in range(3):
        stages = await take_over(run.worker())
        epochs.append(stages.learn.owned[0].claim.epoch)
    assert epochs == sorted(set(epochs))
