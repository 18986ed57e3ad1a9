"""An older release applied the first half of the log; this one goes on, on the same store."""

from base64 import b85decode
from collections.abc import AsyncIterator
from zlib import decompress

import numpy as np
import pytest

from faults.old_release import blend_before, customer_before, item_before, laid_out, outbox_before
from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.codec import decode_outbox, decode_transitions
from stream_app.commands.verify import Findings
from stream_app.commands.verify import _count_pairs as count_pairs
from stream_app.commands.verify import _result as result_of
from stream_app.core.hybrid import BLEND
from stream_app.core.model import Model
from stream_app.core.schema_1 import PARTITION_1, USER_1
from stream_app.core.state import (
    customer_name,
    decode_partition,
    decode_users,
    encode_users,
    layout,
)
from stream_app.core.tables import ItemTables
from stream_app.embedded import ValkeyServer
from stream_app.offline.recompute_customers import agree_but_for_migration
from stream_app.owning import BLEND_ID
from stream_app.ports import ITEMS, USERS, Commit
from tests.contract.shop_run import (
    ITEM_PARTITIONS,
    SOURCES,
    STEP_EVENTS,
    Run,
    faults,
    stored_items,
    take_over,
    truth,
    work,
)
from tests.contract.stores import opened

EVENTS, ROUNDS = 1_200, 2  # of each partition's events before the upgrade

# A customer after nine events, an item with three neighbours, and an outbox (of batches whose
# transitions had not been sent), as the last releases with these schemas stored them.
CUSTOMER_2 = (
    b"0s;jI2?+%O0ssI4009XAO#lD@000002><{90RR910ssI2003M<00saU7yt(XX!28K00000003}8pc_;`0000#0000#00"
    b"00#000000000#003M<000C*004kL0000#Eb>!j0000000000;PO*t004kL00000003M<000002>=NI2><{90RjO50RaF"
    b"400992DgXcg000007ytkO00000000oU{8ZUN000m`{8ZUN000oU{8ZUN0000000000000oF{8ZUN000m`{8ZUN000000"
    b"000000000000006?{s6xp_C9D)^NCa`SFHD)^NCa`SFHKXl)HEN!ORD)^NCa`SFH6?{s6xp_C9RPZVN<>uXZX>4?SpI{"
    b"XiD)^NCa`SFHRPZVN<>uXZD)^NCa`SFHX>4?SpI{Xi6?{s6xp_C9D)^NCa`SFHKXl)HEN!ORRPZVN<>uXZX>4?SpI{Xi"
    b"Ir{%U?EBw9zxsba=KcRaHvd0B004kL0000#0000#00000000000000#0P$00Jn>Uyc=1zZwDD7A@bOb+Eb>!jX!28Kr1"
    b"Dc`;PO*tWB>pFWdHyGW&i*HX8-^IXaE2JX#fBKY5)KLYXATMYybcNf&v5r2m%BM0ssI200;vD000L71ON^I000021_S^"
    b"A000C80Tl!U0s{vC1pp2O00IL70s{a50AX%!VE"
)
ITEM_1 = (
    b"0RRI41^@s6IsgCwcLM+bW=N&-e$}WzT9um~SZ9wwdiiPq0PKH20000000000f;2keuzDjv0RR9100000$&)lgQWf_@0{"
    b"{R300000AyBzQ000000ssI2000000APPa00000b8lm7EiwQA"
)
OUTBOX_1 = (
    b"c-nPSJ#Q015cMfh<bQ#+BAsK-;UmNnA}OhHhtO%gH});L+qHJ~>{wAGq!b_u<O@9wvYh}DR8*8l#V?3x_z4u05n}f2!;"
    b"XNptlNDvJM-qv?DHv#2omnSvxX~_R%(UWsh4*i?zguqw7klEd5iyx8=t<te(>yi<v(k4L+)L+FZQpZKki@K`t{lE*61g"
    b"9cZSfJ#1bvOJQpcioq)mYP1^L&2DB?!tWD5DAG24K_AMw22Eu^b?CbtT`*KfiY`*V-0>f<q7wD6x<m$o(dPt^x-DNy4f"
    b"CH(*+^bB5PL;*n^Cr?lf_b$pXx0J2Q-r))k|u4m0nFFWYd`PJP^U)F$y=W&o&d3>GG-`v%nhD=RB&j64p1g8oQhelj@W"
    b"$5S_~sS3>*(uXMLj+J;zlV$8~0aW8q~Zs5z&a?$&H1vE~Gr-{^zu&WN>|4ZqIdun)r3J>YQ)tmQZS;}3n}7jc9@l2*!Q"
    b"`G()P?fd==p_ddul_?l*q0c7BW5Dql1@21PWv5R1FW&bfMhcifhQx*t%FUHlqeQ33T3sF^)LB8Q#X3e05ejxNkmL|745"
    b"1|5sEcG;c8!Sd`193l+_}}PvzU`s2%uI>+l{-sHz@<48vzQ)%|C9!fZ`IL?LVG$AiNZSPNY$y70~@rp$?q|#R`g^7v_#"
    b"md(kRjKv38cSP4gZ28%o{mXq|VaR_j*w1_A*D~{TPB<QkF&LgIYCw*Mj!VoMvMB-6{*g~5!ML8ydCcUT4DB#_$RP<C`p"
    b"^qL@DfD#1ztFys0!nl=4{|)E_ks|P&)heq;T}&#EX4tie*=01Vc7"
)


@pytest.fixture(params=["memory", "valkey"])
async def run(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Run]:
    """A log that nobody has read yet, on each adapter."""
    async with opened(request.param, valkey.url) as stores:
        run = Run(stores.state, stores.public, EVENTS)
        await run.fill()
        yield run


def ids_of(p: int) -> np.ndarray:
    """All customers that partition ``p`` will ever have, ``(n,) uint64``."""
    return np.array(list(truth(EVENTS).customers[p].customers), np.uint64)


async def blobs_of(run: Run, p: int) -> list[bytes | None]:
    """Their state."""
    ids = ids_of(p)
    return await run.state.load(USERS, [p] * len(ids), [key.tobytes() for key in ids])


def as_schema_1(blob: bytes) -> bytes:
    """What a release with schema 1 would have written of this customer."""
    (user,) = decode_users(np.zeros(1, np.uint64), [blob])
    old = np.zeros(1, USER_1)
    for name in USER_1.names or ():
        old[name] = user[name][: old[name].shape[1]] if old[name].ndim > 1 else user[name]
    assert user["bought_n"] <= old["bought_item"].shape[1], "as many as it could hold"
    old["schema"] = 1
    return laid_out(old, layout(USER_1))


def partition_as_schema_1(meta: bytes) -> bytes:
    """The same of a partition."""
    new, old = decode_partition(meta), np.zeros(1, PARTITION_1)
    for name in PARTITION_1.names or ():
        old[name] = new[name][..., :7, :7] if name == "step_counts" else new[name]
    old["schema"] = 1
    return old.tobytes()


async def to_schema_1(run: Run) -> None:
    """Rewrite all customers and partitions in the store as schema 1 had them."""
    for p in range(SOURCES):
        claim = await run.state.claim(USERS, p)
        held = zip(ids_of(p), await blobs_of(run, p), strict=True)
        writes = [(key.tobytes(), as_schema_1(blob)) for key, blob in held if blob]
        meta = partition_as_schema_1(claim.meta)
        step = Commit(claim.cursor, claim.cursor or 0, writes, meta, claim.outbox)
        await run.state.commit(claim, step)


async def test_an_upgrade_from_customers_of_schema_1_loses_and_doubles_nothing(run: Run) -> None:
    await work(run, await take_over(run.worker()), last=ROUNDS)
    await to_schema_1(run)
    assert {blob[0] for blob in await blobs_of(run, 0) if blob} == {1}
    await work(run, await take_over(run.worker()), first=ROUNDS)
    told = [fault for fault in await faults(run) if "customers differ" not in fault]
    assert told == [], "accounts, transitions, items, lists and dead letters are what the log says"

    undisturbed = Run(MemoryStore(), MemoryPublic(), EVENTS)
    await undisturbed.fill()
    await work(undisturbed, await take_over(undisturbed.worker()))
    for p in range(SOURCES):
        upgraded = decode_users(ids_of(p), await blobs_of(run, p))
        expected = decode_users(ids_of(p), await blobs_of(undisturbed, p))
        for name in USER_1.names or ():
            assert (upgraded[name] == expected[name]).all(), name


async def to_release_before(run: Run) -> None:
    """Rewrite customers, items and outboxes in the store as the release before had them."""
    for p in range(SOURCES):
        claim = await run.state.claim(USERS, p)
        held = zip(ids_of(p), await blobs_of(run, p), strict=True)
        writes = [(key.tobytes(), customer_before(blob)) for key, blob in held if blob]
        (blend,) = await run.state.load(USERS, [p], [BLEND_ID])
        assert blend is not None
        writes.append((BLEND_ID, blend_before(blend)))
        outbox = outbox_before(decode_outbox(claim.outbox), partitions=ITEM_PARTITIONS)
        await run.state.commit(
            claim, Commit(claim.cursor, claim.cursor or 0, writes, claim.meta, outbox)
        )
    for q in range(ITEM_PARTITIONS):
        claim = await run.state.claim(ITEMS, q)
        held_items = (await stored_items(run, q)).items()
        writes = [(key.to_bytes(8, "little"), item_before(blob)) for key, blob in held_items]
        await run.state.commit(
            claim, Commit(claim.cursor, claim.cursor or 0, writes, claim.meta, claim.outbox)
        )


async def test_an_upgrade_from_the_release_before_loses_and_doubles_nothing(run: Run) -> None:
    old = await take_over(run.worker())
    await work(run, old, last=ROUNDS)
    old.learn.gathering = True  # what the last batches say of items is in the outbox only
    for p in range(SOURCES):
        await run.learn(old, p, (ROUNDS + 1) * STEP_EVENTS)
    await to_release_before(run)
    waiting = [decode_outbox((await run.state.claim(USERS, p)).outbox) for p in range(SOURCES)]
    assert all(outbox.schema == 1 and outbox.transitions for outbox in waiting)
    new = await take_over(run.worker())
    for p, owned in new.learn.owned.items():
        before = old.learn.owned[p].blend
        for name in BLEND.names or ():
            np.testing.assert_allclose(owned.blend[name], before[name], rtol=1e-12)
        assert before["observed"].sum() > 0 and owned.blend["schema"] == 2
    await work(run, new, first=ROUNDS)
    told = [fault for fault in await faults(run) if "customers differ" not in fault]
    assert told == [], "accounts, transitions, items, lists and dead letters are what the log says"
    for p in range(SOURCES):
        everyone = truth(EVENTS).customers[p].customers.values()
        for blob, who in zip(await blobs_of(run, p), everyone, strict=True):
            assert agree_but_for_migration(blob, who.blob())


def test_what_the_release_before_stored_is_read_and_could_be_written_again() -> None:
    customer, item = b85decode(CUSTOMER_2), b85decode(ITEM_1)
    (user,) = decode_users(np.array([42], np.uint64), [customer])
    assert (user["schema"], user["events"], user["purchases"], user["monetary"]) == (5, 9, 2, 55.0)
    assert user["bought_item"][:2].tolist() == user["ring_item"][[4, 7]].tolist()
    assert not user["bought_ts"].any() and user["query_n"] == 0
    assert customer_name(customer) == b"anna"
    now = encode_users(decode_users(np.array([42], np.uint64), [customer]), [b"anna"])[0]
    assert now[0] == 5 and customer_before(now) == customer

    tables = ItemTables(Model(), rows_max=1_000, nodes_max=2_000)
    node = tables.ensure(np.array([2], np.uint64))
    tables.decode(node, [item], now=0.0)
    assert tables.names[int(node[0])] == "sock-2" and tables.filled[tables.nodes["row"][node]] == 3
    (again,) = tables.encode(node)
    assert again[0] == 2 and item_before(again) == item

    outbox = decode_outbox(decompress(b85decode(OUTBOX_1)))
    ((_, record),) = outbox.transitions
    told = decode_transitions(record)
    assert (outbox.schema, len(told.rows), told.names, outbox.waiting) == (1, 1, ["i97"], [])
    assert outbox.lists is not None and outbox.lists.customers == ["u10"]


@pytest.mark.parametrize(
    ("merged", "late", "passed"),
    [(9, 0, True), (8, 0, False), (8, 1, True), (7, 1, False), (10, 1, False)],
)
def test_only_refunds_that_migrated_customers_forgot_may_lack(
    merged: int, late: int, passed: bool
) -> None:
    findings = Findings(error=0.01 if merged == 8 else 0.0)
    count_pairs(findings, {"transitions": merged}, 9, late)
    found = result_of(findings, [], 0)
    assert found["passed"] == passed
    assert (found["lost"], found["doubled"]) == (
        (0, 0) if passed else (max(9 - merged, 0), merged > 9)
    )
