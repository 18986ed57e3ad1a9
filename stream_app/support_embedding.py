"""EMBEDDING: a local model of word vectors for messages (model2vec). Loaded once at start.

Nothing is downloaded. A message is the mean of its pieces' vectors: some 30 µs each, no GPU.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.support import Embed, normalised
from stream_app.errors import ConfigurationError

PACKAGED = "wordllama"  # its package holds English vectors: 32,000 pieces in 256 dimensions
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
BATCH_MAX = 1_000  # messages under one lock, some 20 ms


@dataclass(frozen=True, slots=True)
class StaticEmbedding:
    """See :data:`stream_app.core.support.Embed`; may be called by several threads."""

    model: Any  # model2vec's StaticModel, which ships no types
    _lock: Any = field(default_factory=threading.Lock)  # encoding changes the tokenizer meanwhile

    def __call__(self, messages: Sequence[str]) -> NDArray[np.float32]:
        """``(n, dimensions)`` float32."""
        vectors = np.zeros((len(messages), self.model.dim), np.float32)
        for at in range(0, len(messages), BATCH_MAX):
            part = [normalised(message) for message in messages[at : at + BATCH_MAX]]
            with self._lock:
                vectors[at : at + BATCH_MAX] = self.model.encode(part)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return vectors


def load_embedding(name: str) -> Embed | None:
    """The model that ``STREAM_APP_SUPPORT_EMBEDDING`` names; ``None`` for the empty name.

    Raises :class:`~stream_app.errors.ConfigurationError` with the cure.
    """
    if not name:
        return None
    told = f"STREAM_APP_SUPPORT_EMBEDDING={name}"
    if name != PACKAGED and not Path(name).is_dir():  # model2vec would look for it in a hub
        raise ConfigurationError(
            f"{told}: no such folder; name one that model2vec saved (config.json,"
            f" model.safetensors, tokenizer.json), or {PACKAGED}"
        )
    try:
        model = _packaged() if name == PACKAGED else _saved(name)
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"{told}: {exc.name} is not installed; pip install stream_app[embedding] adds it;"
            " without the setting none is used"
        ) from exc
    except Exception as exc:  # of three libraries, which share no error
        raise ConfigurationError(
            f"{told}: cannot be read ({exc}); save the model again with model2vec's save_pretrained"
        ) from exc
    if not np.isfinite(model.embedding).all():
        raise ConfigurationError(f"{told}: vectors that are not finite; name another model")
    return StaticEmbedding(model)


def _saved(folder: str) -> Any:
    from model2vec import StaticModel  # not all need it

    return StaticModel.from_pretrained(folder)


def _packaged() -> Any:
    """The vectors in the package, read without it: its import would set up logging."""
    from model2vec import StaticModel
    from safetensors import safe_open
    from tokenizers import Tokenizer

    found = find_spec(PACKAGED)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(name=PACKAGED)
    folder = Path(found.origin).parent
    with safe_open(folder / _WEIGHTS, framework="numpy") as opened:
        vectors = opened.get_tensor("embedding.weight")
    return StaticModel(vectors, Tokenizer.from_file(str(folder / _TOKENIZER)))
