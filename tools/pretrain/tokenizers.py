"""Trains CLIP's and RoBERTa's tokenizers, of the real classes, with small vocabularies on captions."""

from collections.abc import Sequence
from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from c2c_jax.io.json import parse_json


def clip_tokenizer(captions: Sequence[str], vocab_size: int) -> transformers.CLIPTokenizer:
    """A CLIP tokenizer whose start and end of text are the last two of `vocab_size` ids, as published."""
    pieces = transformers.CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[]).backend_tokenizer
    letters = byte_letters()
    alphabet = letters + [letter + "</w>" for letter in letters]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    merges = learned_merges(pieces, captions, vocab_size - len(specials) - len(alphabet), end_of_word="</w>")
    tokens = filled_up(alphabet + merged(merges), vocab_size - len(specials)) + specials
    vocab = {token: index for index, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)  # type: ignore[arg-type]


def roberta_tokenizer(captions: Sequence[str], vocab_size: int) -> transformers.RobertaTokenizer:
    """A RoBERTa tokenizer with `<s> <pad> </s> <unk>` at ids 0 to 3 and `<mask>` last of `vocab_size`, as published."""
    pieces = transformers.RobertaTokenizer().backend_tokenizer
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = byte_letters()
    merges = learned_merges(pieces, captions, vocab_size - len(specials) - 1 - len(alphabet), end_of_word="")
    tokens = filled_up(specials + alphabet + merged(merges), vocab_size - 1) + ["<mask>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return transformers.RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=512)  # type: ignore[arg-type]


def byte_letters() -> list[str]:
    """The 256 printable letters that stand for the 256 bytes in byte-level BPE."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def learned_merges(pieces: Tokenizer, captions: Sequence[str], count: int, end_of_word: str) -> list[tuple[str, str]]:
    """At most `count` byte-pair merges learned on `captions`, cut into words as the tokenizer `pieces` cuts them."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=end_of_word))
    learner.pre_tokenizer = pieces.pre_tokenizer
    if pieces.normalizer is not None:
        learner.normalizer = pieces.normalizer
    letters = byte_letters()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(letters) + count,
        initial_alphabet=letters,
        # Ties between pairs fall to the lower ids, which letters that end a word get in random order unless named here.
        special_tokens=[letter + end_of_word for letter in letters],
        end_of_word_suffix=end_of_word,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges = parse_json(learner.to_str(), dict[str, Any])["model"]["merges"][:count]
    return [(left, right) for left, right in merges]


def merged(merges: list[tuple[str, str]]) -> list[str]:
    """The distinct tokens that merges make, in their order."""
    return list(dict.fromkeys(left + right for left, right in merges))


def filled_up(tokens: list[str], count: int) -> list[str]:
    """`tokens` followed by unused ones, `count` in all, so that the embedding table has its full height."""
    return tokens + [f"unused{index}" for index in range(len(tokens), count)]
