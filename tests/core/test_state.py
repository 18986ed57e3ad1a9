"""Customers and partitions as blobs: they round-trip, trimmed, and unknown schemas are refused."""

import zlib
from base64 import b85decode

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from faults.old_release import laid_out
from stream_app.core.cycles import CYCLES
from stream_app.core.demand import DEMAND
from stream_app.core.hybrid import BLEND
from stream_app.core.insight_fields import USER_COUNTS
from stream_app.core.learned import TRANSITION
from stream_app.core.neighbourhood import SNAPSHOT
from stream_app.core.state import (
    PARTITION,
    USER,
    customer_name,
    decode_partition,
    decode_users,
    encode_users,
    fits,
    layout,
    new_partition,
    new_users,
)
from stream_app.core.tables import ITEM, NEIGHBOUR
from stream_app.errors import SchemaUnknown
from stream_app.offline.recompute_customers import agree_but_for_migration
from stream_app.sales import SALE
from stream_app.user_cache import UserCache
from tests.core.logs import Stream, logs

SEVEN = np.array([7], np.uint64)
# A customer and a partition after eight events, as the last release with schema 1 stored them.
STORED_1 = (
    b"0RjaG2nYoL0RRX9O#lD@2mk;80RR910RR91007)UDgXcg000009{>OV00000000oF{8ZUN000m`{8ZUN000o0{8ZUN"
    b"=TtLz_&Q?D{Lp>(v9y_L=TtLz_&Q?D{Lp>(v9y_L5lzT;YcA0U{Lp>(v9y_LCdm@^B&Z0dJ4Ib}-XTCm{Lp>(v9y_L"
    b"=TtLz_&Q?D{Lp>(v9y_L5lzT;YcA0UCdm@^B&Z0dJ4Ib}-XTCmvibi%U;V#8+5CS$Hvhjr004kL0P$00Jn>Uyc=1zZ"
    b"wDD7A@bOb+Eb>!jX!28Kr1Dc`WB>pFWdHyGW&i*HX8-^IXaE2JX#fBKY5)KLYXATMf&v2s0tf~I"
)
# One after seven, as the last release with schema 4 stored them, and as this one does.
STORED_4 = (
    b"1OoyG2L}QH0RR94009R800000000002LJ#70RR910RR91j{>7Z0R{mW7yt(Z8}n0T00000`hJQ)0qUbb0000#0000#0000#"
    b"000000000#j{>7Z5(C6S004kL0000#7xPnP00000000008}n0T0000#00000j{>7Z000002LJ~E2LJ#70s;X60096800RL4"
    b"+J;q^{m5p0TV4PF00000<E8t?{8ZUNXpya<{8ZUN<E8t?{8ZUN0000000000m~KM0{8ZUNXpya<{8ZUN000000000000000"
    b"00000d=C4z=_q#nd=C4z=_q#nd=C4z=_q#nd=C4z=_q#nupJF42}na8upJF42}na8upJF42}na8upJF42}na8d=C4z=_q#n"
    b"d=C4z=_q#nupJF42}na8d=C4z=_q#nVgBDh=>LB}004kL0000#0000#000001ojy}0000#3-eQDhVoNoit<xsq4HB@+456m"
    b"3-eQD7xPnP8}n0T+456m-jr?n9#h%*Ql}IMuJ;aksbZgra5AGo?Wl?yg8~Ey0s;g8000080|Ed52LJ>B4gdfE00agE00000"
    b"1OovP1Ox#A2LJ^C4g~-L0|WsB000070RVL|F*q<c"
)
STORED_5 = (
    b"1<nHk2Lb_M0Raa95CH)J&jAJj7zYFo8}n0T|N4H4KmqEbK!`s-0Qf(T0;5Au5(C6SfEYgv0FN8<Q)NE@0Pq3=0Rd_O2Ll5C"
    b"+J;q^{m5p016yAI<E8t?{8ZUN4~sNbX8-{Im~KM0{8ZUN0001tfImM7KaT|V89zS}5DXD3coWhA903gT!U2H>3<`n<2vY+B"
    b"2L#~`1O^1~1OovXPX`780Rh?t0s{vJ7zY6W000010RaI30097e4*Rz0D0cm@9Stc7NJAcB{@+08|9?Q<lx_MRQ`z}arxXaT"
    b"_YQffVxNg{GNVE5sEQkPF)=tWHv"
)
PARTITION_STORED_1 = (
    b"c-muRfB+5#Vt|YTAr+4*C+tNR6R=Ig5R-CD!Vo*OC>lfT<{W7ZG3y(v_Y!i4E$ae15FJ&@x(}ba+c9^*X7#VMw__jy"
    b"urAuaml$=YKVHJCu2wp5AHx8G2`N+dGK_*z00dX6TJ3mV1n-082@fAnaN3+>s)dq9k@E_+Jc~EIX?pA>Ht&Ey%ROO|"
    b")93304t7U({UNCDZMKaawsHs^Y;O>=slC60pt^hN$M?a?rmZ~7P{M4IW&ug%3$}6;WQKubC&}f7i*2!8)kLR#>$)uW"
    b"p80kQ9R8qqAf(UzT!sz0*xVK#46#Zdb__A`Q-7_|#i~O}F~oXJ<ZTGKgX8W>dk~$ZG2IrQy3!kJVEOnS6MIs^C!znT"
    b"4KeEW+!V%Zzg)yW+kwo#o*m^jqovp=0D+k-+wJ9R`D|f%qLBSCm_D~V5G9Qw=M`*u79aS*bHSR}yaO(WcEnhd>JR?e"
    b"ZuUhhcM-IMQJ&WxTRDUdI6WinwXAFis++OI$PQLEwK9jHgc*Ofm;)((z*dfe%=mm>n&k2#=G}ICuGe2|corwwAChRc"
    b"0fj#(9<ZzaU{6^p8fg90Hius3GB5xDS^T1&"
)


def in_schema(schema: int, user: NDArray[np.void]) -> bytes:
    """The ``(1,) USER`` record as releases with one of the schemas 2 to 4 stored it."""
    as_then = user.copy()
    as_then["schema"] = schema
    return laid_out(as_then, layout(USER, without="bought_ts" if schema == 2 else ""))


@settings(max_examples=40, deadline=None)
@given(logs())
def test_customers_round_trip(log: NDArray[np.void]) -> None:
    stream = Stream()
    stream.learn(log)
    ids = np.array(list(stream.blobs), np.uint64)
    users = decode_users(ids, list(stream.blobs.values()))
    assert encode_users(users) == list(stream.blobs.values())
    assert users["id"].tolist() == ids.tolist()


@settings(max_examples=30, deadline=None)
@given(logs())
def test_partitions_round_trip(log: NDArray[np.void]) -> None:
    stream = Stream()
    stream.learn(log)
    again = decode_partition(stream.partition.tobytes())
    assert again.tobytes() == stream.partition.tobytes()
    again["applied"] += 1  # it is a copy that may be written to
    assert decode_partition(b"").tobytes() == new_partition().tobytes()


def test_a_full_customer_takes_all_its_bytes_and_a_new_one_few() -> None:
    user = new_users(np.array([1], np.uint64))
    assert len(encode_users(user)[0]) <= 256
    for name in ("ring_n", "seen_n", "vector_n", "cart_n", "bought_n"):
        user[name] = user["seen" if name == "seen_n" else name.replace("_n", "_item")].shape[1]
    for array, count in USER_COUNTS.items():
        user[count] = user[array].shape[1]
    assert len(encode_users(user)[0]) <= USER.itemsize <= 3336


def test_a_customer_takes_half_of_what_schema_4_took() -> None:
    old, new = b85decode(STORED_4), b85decode(STORED_5)
    read = decode_users(SEVEN, [old])
    assert (read["id"][0], read["ring_n"][0], read["bought_n"][0]) == (9036130693856724698, 7, 1)
    assert decode_users(SEVEN, [new]).tobytes() == read.tobytes()
    assert encode_users(read, [b"u11807"]) == [new], "other bytes need another schema"
    assert customer_name(old) == customer_name(new) == b"u11807"
    assert fits(old[:-6]) and fits(new[:-6]) and not fits(old) and not fits(new)
    assert (len(old), len(new)) == (488, 249)


def test_a_customer_of_schema_1_is_migrated_when_it_is_read() -> None:
    old = b85decode(STORED_1)
    (user,) = decode_users(np.array([42], np.uint64), [old])
    assert (user["schema"], user["id"], user["events"], user["purchases"]) == (5, 42, 8, 1)
    assert (user["step"], user["previous_step"], user["entered_at"]) == (2, 5, 1700000360.25)
    assert (user["last_ts"], user["session"], user["monetary"]) == (1700000420.25, 77, 27.5)
    assert user["seen"].tolist()[:9] == [*range(100, 108), 0]
    assert user["ring_kind"].tolist()[:9] == [130, 2, 3, 4, 2, 8, 6, 2, 0]
    assert user["vector_weight"][1] == np.float32(5.999679)
    assert user["ring_item"][6] == 12036054880848365862
    assert user["bought_item"][0] == user["cart_item"][0] + user["ring_item"][1]
    assert (user["timer_ts"], user["week_on"], user["category"]) == (0, 0, 0)
    assert customer_name(old) == b"", "schema 1 did not know it"
    both = decode_users(np.array([42, 7], np.uint64), [old, encode_users(new_users(SEVEN))[0]])
    assert both["events"].tolist() == [8, 0], "blobs of both schemas in one batch"


def test_a_customer_of_schema_2_is_one_who_searched_for_nothing() -> None:
    user = new_users(SEVEN)
    user["events"], user["cart_n"], user["cart_item"][0, 0] = 5, 1, 9
    new = encode_users(user, [b"anna"])[0]
    old = in_schema(2, user) + b"anna"
    assert customer_name(old) == b"anna"
    read = decode_users(SEVEN, [old])
    assert encode_users(read, [b"anna"])[0] == new
    read["query_n"], read["query_word"][0, :2] = 2, [5, 6]
    again = decode_users(SEVEN, [encode_users(read, [b"anna"])[0]])
    assert again.tobytes() == read.tobytes()


def test_a_partition_of_schema_1_is_migrated_when_it_is_read() -> None:
    partition = decode_partition(zlib.decompress(b85decode(PARTITION_STORED_1)))
    assert (partition["schema"][0], partition["applied"][0]) == (2, 8)
    assert partition["transitions"][0] == 7.0
    assert partition["step_counts"].sum() == partition["step_counts"][0, :7, :7].sum() == 5.0
    assert np.abs(partition["revisit_weights"]).sum() > 0.0
    assert decode_partition(partition.tobytes() + b"more").tobytes() == partition.tobytes()


def test_a_customer_of_schema_2_is_one_whose_purchases_have_no_dates() -> None:
    user = new_users(SEVEN)
    user["bought_n"], user["bought_item"][0, :2], user["ring_n"] = 2, (5, 6), 3
    user["bought_ts"][0, :2], user["seen_n"], user["seen"][0, :2] = (1111111, 2222222), 2, (8, 9)
    (new,) = encode_users(user, [b"anna"])
    old = in_schema(2, user) + b"anna"
    assert len(old) == len(in_schema(3, user) + b"anna") - 8
    assert customer_name(old) == customer_name(new) == b"anna"
    both = decode_users(np.array([7, 7], np.uint64), [old, new])
    assert both["bought_ts"][:, :2].tolist() == [[0, 0], [1111111, 2222222]]
    both["bought_ts"] = 0
    assert both[0] == both[1], "the same but for the dates"
    assert fits(old[:-4]) and fits(new[:-4]) and not fits(old[:-8]) and not fits(new)


def test_a_customer_of_schema_3_is_one_with_few_bought_items() -> None:
    user = new_users(SEVEN)
    user["bought_n"], user["bought_item"][0, :10], user["bought_ts"][0, :10] = 10, 5, 1111111
    old = in_schema(3, user) + b"anna"
    assert len(old) == len(in_schema(3, new_users(SEVEN))) + 10 * 12 + len(b"anna")
    read = decode_users(SEVEN, [old])
    assert read.tobytes() == user.tobytes()
    assert customer_name(old) == b"anna"


def test_a_migrated_customer_may_lack_older_purchases_and_nothing_else() -> None:
    users = new_users(np.array([7, 7, 7, 7], np.uint64))
    users["events"], users["bought_n"] = (12, 12, 12, 13), (3, 2, 2, 2)
    users["bought_item"][0, :3] = 4, 5, 6
    users["bought_item"][1:, :2] = (5, 6), (5, 9), (5, 6)
    true, *stored = encode_users(users, [b"anna"] * 4)
    assert [agree_but_for_migration(blob, true) for blob in stored] == [True, False, False]
    assert agree_but_for_migration(true, true) and not agree_but_for_migration(None, true)
    assert not agree_but_for_migration(true, stored[0]), "more than the log says"


def test_no_customers_are_no_blobs() -> None:
    nobody = np.zeros(0, np.uint64)
    assert encode_users(decode_users(nobody, [])) == []


def test_an_unknown_schema_stops_the_worker() -> None:
    (blob,) = encode_users(new_users(np.array([1], np.uint64)))
    with pytest.raises(SchemaUnknown, match="customer state has schema 9, this release reads 5"):
        decode_users(np.array([1], np.uint64), [b"\x09" + blob[1:]])
    for partition in (b"\x09" + bytes(PARTITION.itemsize - 1), b"\x02 too short"):
        with pytest.raises(
            SchemaUnknown, match=r"partition state has schema . and \d+ bytes.*: run the release"
        ):
            decode_partition(partition)


def test_a_cache_of_customers_forgets_those_written_longest_ago() -> None:
    cache = UserCache(2)
    cache.put([(b"a", b"1"), (b"b", b"1")])
    cache.put([(b"a", b"2"), (b"c", b"1")])
    assert cache.get([b"a", b"b", b"c"]) == [b"2", None, b"1"]
    none = UserCache(0)
    none.put([(b"a", b"1")])
    assert none.get([b"a"]) == [None]


def bytes_of_fields(dtype: np.dtype[np.void]) -> int:
    """Without what lies between them, at any level."""
    total = 0
    for field, *_ in (dtype.fields or {}).values():
        one = field.base
        times = field.itemsize // one.itemsize
        total += times * (bytes_of_fields(one) if one.names else one.itemsize)
    return total


STORED = (USER, PARTITION, CYCLES, BLEND, DEMAND, ITEM, NEIGHBOUR, SNAPSHOT, TRANSITION, SALE)


@pytest.mark.parametrize("dtype", STORED)
def test_what_is_stored_or_sent_has_no_byte_of_no_field(dtype: np.dtype[np.void]) -> None:
    # Copies leave those as the memory was: replay would not be exact, and others could read them.
    assert bytes_of_fields(dtype) == dtype.itemsize
