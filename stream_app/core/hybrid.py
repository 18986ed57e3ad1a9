"""Blend weights, one set per journey step, learned from what customers do next.

Each source is an expert: its values, divided by their sum, are its probabilities for the next item.
The blend is a mixture of them, and Soft-Bayes (Orseau, Lattimore and Legg 2017) learns its weights
under log loss: its regret against the best fixed mixture grows with the square root of the number
of observations, however small the probabilities were. Three additions are as usual: a source that
had nothing to say for a customer sleeps and neither gains nor loses (Freund et al. 1997); a fixed
share flows back to the published weights, so that no source is ever lost and a change of the shop
is followed (Herbster and Warmuth 1998); without observations the weights stay as published.

Lists are ranked with the learned weights as far as they have proved better than the published ones
on the same events: what is gained in log loss decides, so that noise never moves a list.
"""

from collections.abc import Set
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel, one_layout
from stream_app.core.model import STEPS_MAX, Model
from stream_app.core.scoring import EXPLORATION, POPULAR, REPEAT, RETURN, SOURCES, SOURCES_N
from stream_app.errors import ConfigurationError, SchemaUnknown

BLEND_SCHEMA = 2
_SOURCES_1 = 12  # that schema 1 knew; those since follow them
ASLEEP = -1.0  # instead of a probability: the source had no candidate for this customer
_RATE = 0.01  # the square-root bound holds up to 1 / rate² observations; then it tracks
_SHARE = 0.002  # of the weights flows back to the published ones with each observation
_GAIN_LEAST, _GAIN_FULL = 0.01, 0.03  # nats: below, the published weights rank; above, the learned
_LOSS_MEMORY = 0.999  # of the running mean losses, per observation

_APART = [REPEAT, RETURN, EXPLORATION]  # probabilities of their own; a set share of the places
BLENDED = np.array([s for s in range(SOURCES_N) if s not in _APART])


def _blend_of(sources: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("schema", "u1"),
            ("sources_n", "u1"),
            ("reserved", "u1", (6,)),
            ("observed", "i8", (STEPS_MAX,)),
            ("loss", "f8", (STEPS_MAX,)),  # mean log loss of the learned mixture, in nats
            ("published_loss", "f8", (STEPS_MAX,)),  # of the published weights on the same events
            ("weights", "f8", (STEPS_MAX, sources)),
        ]
    )


# What a clickstream partition has learned about the sources; ``weights`` of a step sum to 1.
BLEND = _blend_of(SOURCES_N)
BLEND_1 = _blend_of(_SOURCES_1)


@lru_cache(maxsize=16)
def published_weights(model: Model) -> NDArray[np.float64]:
    """``(SOURCES_N,)``: what is blended, 0 for those that are not. The tables' sum to 1.

    For reading: callers share it.
    """
    weights = np.zeros(SOURCES_N)
    weights[BLENDED] = (
        model.weight_direct,
        model.weight_two_hop,
        model.weight_forward,
        model.weight_popular,
        model.weight_content,
        model.weight_embedding,
        model.weight_user_knn,
        model.weight_segment,
        model.weight_trending,
        model.weight_jaccard,
    )
    # What sources outside give comes on top of the tables': a share of one is that of the tables.
    weights /= weights[: POPULAR + 1].sum()
    return weights


def new_blend(model: Model) -> NDArray[np.void]:
    """A ``(1,) BLEND`` record before the first observation: the published weights."""
    blend = np.zeros(1, BLEND)
    blend["schema"], blend["sources_n"] = BLEND_SCHEMA, SOURCES_N
    blend["weights"] = prior_of(model)
    return blend


@lru_cache(maxsize=16)
def prior_of(model: Model) -> NDArray[np.float64]:
    """``(SOURCES_N,)``: the published weights as shares of one, for reading."""
    prior = published_weights(model)
    shares: NDArray[np.float64] = prior / prior.sum()
    return shares


def pinned_blend(weights: NDArray[np.float64], model: Model) -> NDArray[np.void]:
    """A ``(1,) BLEND`` record that ranks with ``weights``, whatever was observed.

    ``weights`` are ``(SOURCES_N,)`` for all steps, or ``(STEPS_MAX, SOURCES_N)``.
    """
    blend = new_blend(model)
    blend["weights"] = weights / weights.sum(axis=-1, keepdims=True)
    blend["published_loss"] = 1.0  # trusted without condition
    return blend


def used_weights(blends: NDArray[np.void], model: Model) -> NDArray[np.float64]:
    """``(STEPS_MAX, SOURCES_N)``: what ``(p,) BLEND`` rank with now, as shares of one.

    Partitions count by their observations in the step; without any it is the published weights.
    """
    seen = blends["observed"].astype(np.float64)  # (p, STEPS_MAX)
    sure = np.array([trust(blends[k : k + 1]) for k in range(len(blends))])[..., None]
    mixed = sure * blends["weights"] + (1.0 - sure) * prior_of(model)
    every = seen.sum(axis=0)
    mean = (seen[..., None] * mixed).sum(axis=0) / np.maximum(every, 1.0)[:, None]
    found: NDArray[np.float64] = np.where(every[:, None] > 0, mean, prior_of(model))
    return found


def decode_blend(blob: bytes | None, model: Model) -> NDArray[np.void]:
    """The inverse of ``tobytes``; nothing is a new record.

    Raises :class:`~stream_app.errors.SchemaUnknown` for a record of another release.
    """
    if not blob:
        return new_blend(model)
    if blob[0] == 1 and len(blob) == BLEND_1.itemsize:
        return _migrated(np.frombuffer(blob, BLEND_1), model)
    if blob[0] != BLEND_SCHEMA or len(blob) != BLEND.itemsize:
        raise SchemaUnknown(
            f"blend weights have schema {blob[0]} and {len(blob)} bytes, this release reads"
            f" {BLEND_SCHEMA} with {BLEND.itemsize}: run the release that wrote them"
        )
    return np.frombuffer(blob, BLEND).copy()


def _migrated(old: NDArray[np.void], model: Model) -> NDArray[np.void]:
    """A record of schema 1, as if the sources since had been there all the time, and asleep."""
    blend, prior = new_blend(model), prior_of(model)
    for name in ("observed", "loss", "published_loss"):
        blend[name] = old[name]
    blend["weights"][:, :, :_SOURCES_1] = old["weights"] * prior[:_SOURCES_1].sum()
    return blend


@kernel
def _trust(part: Any, step: int) -> float:
    gain = part.published_loss[step] - part.loss[step]
    return float(min(max((gain - _GAIN_LEAST) / (_GAIN_FULL - _GAIN_LEAST), 0.0), 1.0))


def trust(blend: NDArray[np.void]) -> NDArray[np.float64]:
    """``(STEPS_MAX,)``: how far the learned weights of each step are used, 0 … 1.

    >>> blend = new_blend(Model())
    >>> blend["published_loss"][0, :3] = (0.0, 0.02, 0.5)
    >>> trust(blend)[:3].round(6).tolist()
    [0.0, 0.5, 1.0]
    """
    found = np.zeros(STEPS_MAX)
    _trust_all(blend, found)
    return found


@kernel
def _trust_all(blend: NDArray[np.void], out: NDArray[np.float64]) -> None:
    for k in range(len(out)):
        out[k] = _trust(blend[0], k)


@lru_cache(maxsize=16)
def _wanted(
    model: Model, sources: Set[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """``(SOURCES_N,)`` each: 1 for ``sources``, and the published weights of those.

    Also what weights to rank with sum to, the tables' own being one.
    """
    unknown = sorted(sources - set(SOURCES))
    if unknown or not sources:
        raise ConfigurationError(
            f"sources {', '.join(unknown) or '(none)'}: choose of {', '.join(SOURCES)}"
        )
    on = np.array([name in sources for name in SOURCES], np.float64)
    prior = published_weights(model) * on
    whole = float(prior.sum() / max(prior[: POPULAR + 1].sum() or prior.sum(), 1e-300))
    return on, prior, whole


@lru_cache(maxsize=16)
def _published_sum(model: Model) -> float:
    return float(published_weights(model).sum())


@kernel
def _mix(
    blend: NDArray[np.void],
    on: NDArray[np.float64],
    prior: NDArray[np.float64],
    prior_sum: float,
    whole: float,
    out: NDArray[np.float64],
) -> None:
    """Learned and published weights as far as each is trusted, of those sources that are ``on``.

    Those of a step sum to ``whole``.
    """
    part = blend[0]
    for k in range(len(out)):
        trusted, total = _trust(part, k), 0.0
        for s in range(len(on)):
            learned = trusted * part.weights[k, s] * on[s]
            out[k, s] = learned + (1.0 - trusted) * prior[s] / prior_sum
            total += out[k, s]
        for s in range(len(on)):
            out[k, s] *= whole / max(total, 1e-300)


def ranking_weights(
    model: Model, sources: Set[str], blend: NDArray[np.void] | None = None
) -> NDArray[np.float64]:
    """``(STEPS_MAX, SOURCES_N)``: weights to rank with, 0 for sources that are left out.

    ``blend`` are the learned ones, ``None`` the published. Those of the tables sum to 1 when
    published; learned ones sum to as much as the published ones do with all that is outside.

    Raises :class:`~stream_app.errors.ConfigurationError` for a name that is no source.

    >>> ranking_weights(Model(), {"two_hop", "repeat"})[0, :6].tolist()
    [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    """
    on, prior, whole = _wanted(model, frozenset(sources))
    if blend is None:
        weights = np.tile(prior * (whole / max(prior.sum(), 1e-300)), (STEPS_MAX, 1))
    else:
        weights = np.empty((STEPS_MAX, SOURCES_N))
        _mix(blend, on, prior, _published_sum(model), whole, weights)
    weights[:, _APART] = on[_APART]
    return weights


@kernel
def _observe(
    weights: NDArray[np.float64],
    given: NDArray[np.float64],
    prior: NDArray[np.float64],
    rate: float,
    share: float,
) -> float:
    """One Soft-Bayes step in place; returns the probability the mixture gave, 0 when none did."""
    awake, p = 0.0, 0.0
    for s in range(len(weights)):
        if given[s] >= 0.0:
            awake += weights[s]
            p += weights[s] * given[s]
    if p <= 0.0:
        return 0.0
    p /= awake
    for s in range(len(weights)):
        if given[s] >= 0.0:
            weights[s] *= 1.0 - rate + rate * given[s] / p
        weights[s] += share * (prior[s] - weights[s])
    return p


@kernel
def _learn_blend(
    blend: NDArray[np.void],
    steps: NDArray[np.uint8],
    given: NDArray[np.float64],
    prior: NDArray[np.float64],
    rate: float,
    share: float,
) -> int:
    part = blend[0]
    count = 0
    for i in range(len(steps)):
        k = steps[i]
        awake, published = 0.0, 0.0
        for s in range(len(prior)):
            if given[i, s] >= 0.0:
                awake += prior[s]
                published += prior[s] * given[i, s]
        p = _observe(part.weights[k], given[i], prior, rate, share)
        if p <= 0.0 or published <= 0.0:
            continue
        part.observed[k] += 1
        memory = min(1.0 - 1.0 / part.observed[k], _LOSS_MEMORY)
        part.loss[k] = memory * part.loss[k] - (1.0 - memory) * np.log(p)
        part.published_loss[k] = memory * part.published_loss[k] - (1.0 - memory) * np.log(
            published / awake
        )
        count += 1
    return count


def learn_blend(
    blend: NDArray[np.void],
    steps: NDArray[np.uint8],
    given: NDArray[np.float64],
    prior: NDArray[np.float64],
    rate: float = _RATE,
    share: float = _SHARE,
) -> int:
    """Learn ``(n,)`` observations in order, in place; returns how many said something.

    ``given (n, SOURCES_N)`` is each source's probability of the item that came, or ``ASLEEP``;
    ``prior (SOURCES_N,)`` sums to 1. An item that no source had among its candidates says nothing.
    """
    # No defaults in kernels: numba takes milliseconds to look up a call that leaves some out.
    return _learn_blend(blend, one_layout(steps), given, prior, rate, share)
