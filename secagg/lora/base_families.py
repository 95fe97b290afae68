"""Shapes of the layers of base models, from ``config.json`` alone, for architectures that are known here.

Names and shapes are those of the causal language models of transformers 5.23, and of the checkpoints they were made
for; a test builds each of them there. What a config leaves out is refused unless its meaning is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from secagg.lora.errors import AdapterError, AdapterRejectReason, quoted
from secagg.lora.layout import MAX_DIMENSION

BASE_CONFIG_FILE = "config.json"
MAX_LAYERS = 2**12


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer with weights: path, kind as in ``manifest.KINDS``, and the sizes of its factors."""

    path: str
    kind: str
    outputs: int
    inputs: int


Fields = Mapping[str, object]


def family_of(fields: Fields) -> Callable[[Fields], Iterator[Layer]] | None:
    """What lists the layers of a model with this config; None where the architecture is not known here."""
    kind = fields.get("model_type")
    return _FAMILIES.get(kind) if isinstance(kind, str) else None


def is_transposed(fields: Fields) -> bool:
    """Whether the base stores the weights of its layers transposed (PEFT's ``fan_in_fan_out``)."""
    return fields.get("model_type") == "gpt2"


def _llama(fields: Fields) -> Iterator[Layer]:
    width, inner = _size(fields, "hidden_size"), _size(fields, "intermediate_size")
    queries, keys = _attention(fields, width)
    for number in range(_layers(fields, "num_hidden_layers")):
        attention, perceptron = f"model.layers.{number}.self_attn", f"model.layers.{number}.mlp"
        yield Layer(f"{attention}.q_proj", "linear", queries, width)
        yield Layer(f"{attention}.k_proj", "linear", keys, width)
        yield Layer(f"{attention}.v_proj", "linear", keys, width)
        yield Layer(f"{attention}.o_proj", "linear", width, queries)
        yield Layer(f"{perceptron}.gate_proj", "linear", inner, width)
        yield Layer(f"{perceptron}.up_proj", "linear", inner, width)
        yield Layer(f"{perceptron}.down_proj", "linear", width, inner)
    yield from _ends(fields, width)


def _phi3(fields: Fields) -> Iterator[Layer]:
    width, inner = _size(fields, "hidden_size"), _size(fields, "intermediate_size")
    queries, keys = _attention(fields, width)
    for number in range(_layers(fields, "num_hidden_layers")):
        attention, perceptron = f"model.layers.{number}.self_attn", f"model.layers.{number}.mlp"
        yield Layer(f"{attention}.qkv_proj", "linear", queries + 2 * keys, width)
        yield Layer(f"{attention}.o_proj", "linear", width, queries)
        yield Layer(f"{perceptron}.gate_up_proj", "linear", 2 * inner, width)
        yield Layer(f"{perceptron}.down_proj", "linear", width, inner)
    yield from _ends(fields, width)


def _gpt2(fields: Fields) -> Iterator[Layer]:
    width, words = _size(fields, "n_embd"), _size(fields, "vocab_size")
    inner = 4 * width if fields.get("n_inner") is None else _size(fields, "n_inner")
    for number in range(_layers(fields, "n_layer")):
        layer = f"transformer.h.{number}"
        yield Layer(f"{layer}.attn.c_attn", "linear", 3 * width, width)
        yield Layer(f"{layer}.attn.c_proj", "linear", width, width)
        yield Layer(f"{layer}.mlp.c_fc", "linear", inner, width)
        yield Layer(f"{layer}.mlp.c_proj", "linear", width, inner)
    yield Layer("transformer.wte", "embedding", width, words)
    yield Layer("transformer.wpe", "embedding", width, _size(fields, "n_positions"))
    yield Layer("lm_head", "linear", words, width)


_FAMILIES: Mapping[str, Callable[[Fields], Iterator[Layer]]] = {
    "gemma": _llama,
    "gemma2": _llama,
    "gemma3_text": _llama,
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _llama,
    "phi3": _phi3,
    "qwen2": _llama,
    "qwen3": _llama,
}
# Their heads are not as wide as width divided by heads, so nothing can stand for a missing head_dim.
_OWN_HEADS = frozenset({"gemma", "gemma2", "gemma3_text", "qwen3"})


def _ends(fields: Fields, width: int) -> Iterator[Layer]:
    words = _size(fields, "vocab_size")
    yield Layer("model.embed_tokens", "embedding", width, words)
    yield Layer("lm_head", "linear", words, width)


def _attention(fields: Fields, width: int) -> tuple[int, int]:
    """Widths of all queries, and of all keys, together."""
    heads = _size(fields, "num_attention_heads")
    shared = heads if fields.get("num_key_value_heads") is None else _size(fields, "num_key_value_heads")
    if fields.get("head_dim") is not None or fields["model_type"] in _OWN_HEADS:
        each = _size(fields, "head_dim")
    elif width % heads:
        raise bad_base("hidden_size", width, f"a multiple of num_attention_heads, {heads}, or head_dim given")
    else:
        each = width // heads
    return heads * each, shared * each


def _layers(fields: Fields, name: str) -> int:
    count = _size(fields, name)
    if count > MAX_LAYERS:
        raise bad_base(name, count, f"at most {MAX_LAYERS}")
    return count


def _size(fields: Fields, name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 1 <= value <= MAX_DIMENSION:
        raise bad_base(name, value, f"an integer from 1 to {MAX_DIMENSION}")
    return value


def bad_base(name: str, found: object, expected: str) -> AdapterError:
    """The refusal of one field of a base model's config."""
    return AdapterError(
        AdapterRejectReason.BAD_CONFIG,
        field=f"{BASE_CONFIG_FILE}: {name}",
        found=quoted(found),
        expected=expected,
        fix="give the directory of the base model as it was published, or an adapter as an example",
    )
