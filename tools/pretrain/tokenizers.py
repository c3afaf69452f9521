"""Trains CLIP and RoBERTa tokenizers with small vocabularies on captions."""

from collections.abc import Sequence
from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from c2c_jax.io.json import parse_json


def clip_tokenizer(captions: Sequence[str], vocab_size: int) -> transformers.CLIPTokenizer:
    """Trains a CLIP tokenizer. As in published ones, start and end of text have the last two of `vocab_size` ids."""
    pieces = transformers.CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[]).backend_tokenizer
    letters = byte_letters()
    alphabet = letters + [letter + "</w>" for letter in letters]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    merges = learned_merges(pieces, captions, vocab_size - len(specials) - len(alphabet), end_of_word="</w>")
    tokens = padded_vocabulary(alphabet + merged_tokens(merges), vocab_size - len(specials)) + specials
    vocab = {token: index for index, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)  # type: ignore[arg-type]


def roberta_tokenizer(captions: Sequence[str], vocab_size: int) -> transformers.RobertaTokenizer:
    """Trains a RoBERTa tokenizer. As published, `<s> <pad> </s> <unk>` have ids 0 to 3 and `<mask>` the last."""
    pieces = transformers.RobertaTokenizer().backend_tokenizer
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = byte_letters()
    merges = learned_merges(pieces, captions, vocab_size - len(specials) - 1 - len(alphabet), end_of_word="")
    tokens = padded_vocabulary(specials + alphabet + merged_tokens(merges), vocab_size - 1) + ["<mask>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return transformers.RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=512)  # type: ignore[arg-type]


def byte_letters() -> list[str]:
    """Returns the 256 printable letters that represent bytes in byte-level BPE."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def learned_merges(pieces: Tokenizer, captions: Sequence[str], count: int, end_of_word: str) -> list[tuple[str, str]]:
    """Learns at most `count` byte-pair merges on captions, which the tokenizer `pieces` splits into words."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=end_of_word))
    learner.pre_tokenizer = pieces.pre_tokenizer
    if pieces.normalizer is not None:
        learner.normalizer = pieces.normalizer
    letters = byte_letters()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(letters) + count,
        initial_alphabet=letters,
        # Ties are resolved by id; without this, letters that end a word have ids in random order.
        special_tokens=[letter + end_of_word for letter in letters],
        end_of_word_suffix=end_of_word,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges = parse_json(learner.to_str(), dict[str, Any])["model"]["merges"][:count]
    return [(left, right) for left, right in merges]


def merged_tokens(merges: list[tuple[str, str]]) -> list[str]:
    """Returns the distinct tokens that result from merges, in order."""
    return list(dict.fromkeys(left + right for left, right in merges))


def padded_vocabulary(tokens: list[str], count: int) -> list[str]:
    """Pads `tokens` with unused ones to `count`, the size of the embedding table."""
    return tokens + [f"unused{index}" for index in range(len(tokens), count)]
