"""A partition's lane: order of acks, bounds, batches that are joined and cut."""

from stream_app.adapters.lanes import Lane, joined
from tests.integration.batches import batch


def lane(batches_max: int = 4, records_max: int = 100) -> Lane:
    return Lane(("clicks", 0), 0, batches_max=batches_max, records_max=records_max)


def test_acks_out_of_order_never_pass_unacked_work() -> None:
    it = lane()
    first, second, third = (it.admit(batch(n, n + 10)) for n in (0, 10, 20))
    it.settle(third)
    assert it.acked == 0
    it.settle(first)
    assert it.acked == 10
    it.settle(second)
    assert it.acked == 30


def test_a_fetch_of_markers_only_moves_the_commit_in_its_turn() -> None:
    it = lane()
    first = it.admit(batch(0, 10))
    it.admit(batch(10, 10, next_offset=12))
    assert (it.acked, it.position) == (0, 12)
    it.settle(first)
    assert it.acked == 12


def test_a_lane_is_full_by_batches_or_by_records() -> None:
    it = lane(batches_max=2, records_max=100)
    first = it.admit(batch(0, 1))
    assert not it.full
    it.admit(batch(1, 2))
    assert it.full
    it.settle(first)
    assert not it.full
    it.admit(batch(2, 200))
    assert it.full


def test_a_lane_with_anything_under_way_is_full_while_the_worker_is_crowded() -> None:
    crowded = True
    it = Lane(("clicks", 0), 0, batches_max=4, records_max=100, crowded=lambda: crowded)
    assert not it.full, "whoever has nothing gets something"
    it.admit(batch(0, 1))
    assert it.full
    crowded = False
    assert not it.full


async def test_queued_batches_are_joined_up_to_the_limit() -> None:
    it = lane()
    for start in (0, 10, 20):
        it.queue(batch(start, start + 10), start)
    assert it.queued_records == 30
    taken = await it.take(25)
    assert taken is not None
    assert (list(taken[0].offsets), taken[0].next_offset, taken[1], it.queued_records) == (
        list(range(25)),
        25,
        [0, 10],
        5,
    )
    rest = await it.take(25)
    assert rest is not None
    assert (rest[0].values, rest[1]) == ([b"%d" % n for n in range(25, 30)], [20])


async def test_a_batch_is_acked_with_its_last_part_and_markers_with_the_batch_before() -> None:
    it = lane()
    it.queue(batch(0, 10), "records")
    it.queue(batch(10, 10, next_offset=12), "markers")
    parts = [await it.take(5) for _ in range(2)]
    assert [(part[0].next_offset, part[1]) for part in parts if part] == [
        (5, []),
        (12, ["records", "markers"]),
    ]
    it.close()
    assert await it.take(25) is None


def test_one_batch_is_joined_as_it_is() -> None:
    only = batch(0, 3)
    assert joined([only]) is only
