"""Measures the embedding pass against transformers in torch, on real captions and towers of published size.

examples:
  python -m bench.embed --captions Validation_GCC-1.1.0-Validation.tsv
  python -m bench.embed --captions captions.txt --checkpoints real/checkpoints --quick --json embed.json

Three implementations embed captions and take turns: torch with its defaults (batch 64, padded to 77 tokens; 512
captions), torch with length buckets and our batch size in tokens, and our towers on packed rows. Then bfloat16 is
compared with float32, and the peak memory of a pass of 10 million synthetic captions through tiny towers is measured.
Weights are random unless --checkpoints names real ones.
"""

import collections
import functools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.checkpoints import build_audioldm, build_clip, read_captions
from bench.measure import bench_parser, report, run_watched, timed
from c2c_jax.data.embed import AHEAD, CPU_TOKENS, DEVICE_TOKENS
from c2c_jax.io.vectors import unit_rows
from c2c_jax.miniworld.captions import captions
from c2c_jax.spaces.devices import split_cores_into_devices, tower_options
from c2c_jax.spaces.packing import TextBatch
from c2c_jax.spaces.space import Space, load_space

TORCH = {"clip": transformers.CLIPTextModelWithProjection, "clap": transformers.ClapTextModelWithProjection}
PEAKS = {  # dense bfloat16 FLOP/s of a device, from the makers' data sheets
    "H100": 989e12, "H200": 989e12, "A100": 312e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}  # fmt: skip
LENGTHS = (8, 10, 12, 14, 16, 20, 28, 64, 77)  # torch's buckets, in tokens
PARTS = 8
HALF_ROWS = 1024  # captions compared between bfloat16 and float32
PAUSE = 0.3  # seconds between contestants


def ours(space: Space, batches: Sequence[TextBatch], vectors: np.ndarray) -> None:
    """Embeds as the embedding pass does: several batches are in flight while an earlier one is collected."""
    started: collections.deque[tuple[TextBatch, jax.Array]] = collections.deque()
    for batch in batches:
        started.append((batch, space.run_text(batch.tokens)))
        if len(started) > AHEAD:
            earlier, pooled = started.popleft()
            earlier.scatter(pooled, vectors)
    for batch, pooled in started:
        batch.scatter(pooled, vectors)


class Bucket(NamedTuple):
    """Texts of a list, padded to one length."""

    texts_N: np.ndarray
    ids: torch.Tensor
    mask: torch.Tensor


def buckets(ids: list[list[int]], pad: int, batch_tokens: int) -> list[Bucket]:
    """Batches of `batch_tokens` of the texts sorted by length, each padded to the bucket of its longest text."""
    order = sorted(range(len(ids)), key=lambda text: -len(ids[text]))
    batches, start = [], 0
    while start < len(order):
        length = next(length for length in LENGTHS if length >= len(ids[order[start]]))
        texts = order[start : start + max(batch_tokens // length, 1)]
        padded = np.full((len(texts), length), pad)
        mask = np.zeros_like(padded)
        for row, text in enumerate(texts):
            padded[row, : len(ids[text])] = ids[text]
            mask[row, : len(ids[text])] = 1
        batches.append(Bucket(np.asarray(texts), torch.from_numpy(padded), torch.from_numpy(mask)))
        start += len(texts)
    return batches


@torch.inference_mode()
def torch_bucketed(model: torch.nn.Module, batches: Sequence[Bucket], vectors: np.ndarray) -> None:
    for batch in batches:
        vectors[batch.texts_N] = model(input_ids=batch.ids, attention_mask=batch.mask).text_embeds.numpy()


@torch.inference_mode()
def torch_padded(model: torch.nn.Module, tokenizer: transformers.PreTrainedTokenizerBase, texts: list[str]) -> None:
    for start in range(0, len(texts), 64):
        batch = texts[start : start + 64]
        model(**tokenizer(batch, padding="max_length", truncation=True, max_length=77, return_tensors="pt"))


def matmul_peak() -> float:
    """The maximum FLOP/s of XLA's float32 matrix products on all devices, over shapes like those of the towers."""
    mesh = Mesh(np.asarray(jax.local_devices()), ("data",))
    best = 0.0
    for m, k, n in ((1024, 768, 3072), (1024, 3072, 768), (2048, 2048, 2048), (4096, 1024, 1024)):
        a = jax.device_put(np.ones((m * len(mesh.devices), k), np.float32), NamedSharding(mesh, PartitionSpec("data")))
        b = jax.device_put(np.ones((k, n), np.float32), NamedSharding(mesh, PartitionSpec()))
        product = jax.jit(functools.partial(jnp.matmul, precision="float32"), compiler_options=tower_options())

        def work(product=product, a=a, b=b) -> None:
            product(a, b).block_until_ready()

        work()  # compiles
        best = max(best, 2 * len(a) * k * n / min(timed(work) for _ in range(10)))
    return best


def compare(folder: Path, texts: list[str]) -> dict[str, float]:
    """Captions per second of the three implementations, both towers together; our FLOPs; how close the vectors are."""
    names = {"clip": str(folder / "clip"), "clap": f"{folder / 'audioldm'}:text_encoder"}
    folders = {"clip": folder / "clip", "clap": folder / "audioldm" / "text_encoder"}
    tokens = CPU_TOKENS if jax.default_backend() == "cpu" else DEVICE_TOKENS
    padded_texts = [texts[part::PARTS][:64] for part in range(PARTS)]  # torch's defaults would take an hour for all
    half_texts = texts[:HALF_ROWS]
    captions = dict(ours=len(texts), torch_bucketed=len(texts), torch_padded=sum(map(len, padded_texts)))
    spent = dict.fromkeys(captions, 0.0)
    flops, error, worst, mean = 0.0, 0.0, 1.0, 0.0
    for tower, name in names.items():
        space, model = load_space(name), TORCH[tower].from_pretrained(folders[tower]).eval()
        exact, theirs = (np.empty((len(texts), space.dim), np.float32) for _ in range(2))
        half = np.empty((len(half_texts), space.dim), np.float32)
        batches = space.text_batches(texts, tokens)
        padded = buckets(space.tokenizer(texts)["input_ids"], space.tokenizer.pad_token_id, tokens)
        shapes = {batch.tokens.ids_RL.shape: batch for batch in batches}
        cost = {shape: space.text_flops(batch.tokens) for shape, batch in shapes.items()}
        flops += sum(cost[batch.tokens.ids_RL.shape] for batch in batches)
        ours(space, list(shapes.values()), exact)  # compile, and let torch warm up
        torch_bucketed(model, padded[:2], theirs)
        for part in range(PARTS):
            turns = {
                "ours": functools.partial(ours, space, batches[part::PARTS], exact),
                "torch_bucketed": functools.partial(torch_bucketed, model, padded[part::PARTS], theirs),
                "torch_padded": functools.partial(torch_padded, model, space.tokenizer, padded_texts[part]),
            }
            for who, work in turns.items():
                spent[who] += timed(work, PAUSE)
        rounded = space.with_dtype("bfloat16")
        ours(rounded, rounded.text_batches(half_texts, tokens), half)
        error = max(error, float(np.abs(unit_rows(exact) - unit_rows(theirs)).max()))
        cosines = (unit_rows(exact[: len(half)]) * unit_rows(half)).sum(1)
        worst, mean = min(worst, float(cosines.min())), mean + float(cosines.mean()) / len(names)
    rates = {who: captions[who] / spent[who] for who in captions}
    return {
        **{f"{who}_captions_per_s": rate for who, rate in rates.items()},
        "captions_vs_torch_padded": rates["ours"] / rates["torch_padded"],
        "captions_vs_torch_bucketed": rates["ours"] / rates["torch_bucketed"],
        "gflop_per_caption": flops / len(texts) / 1e9,
        "gflop_per_s": flops / spent["ours"] / 1e9,
        "unit_vector_error_vs_torch": error,
        "bfloat16_worst_cosine": worst,
        "bfloat16_mean_cosine": mean,
    }


def synthetic(count: int) -> Iterator[str]:
    """`count` distinct captions of three words."""
    words = sorted({word for caption in captions("train", 2000) for word in caption.split()})
    for number in range(count):
        number, first = divmod(number, len(words))
        number, second = divmod(number, len(words))
        yield f"{words[first]} {words[second]} {words[number % len(words)]}"


def pass_memory(count: int, folder: Path) -> dict[str, float]:
    """Peak resident memory of a process that embeds `count` synthetic captions, and of its first tenth."""
    texts, store = folder / "captions.txt", folder / "store"
    with open(texts, "w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in synthetic(count))
    for build, name in ((build_clip, "clip"), (build_audioldm, "audioldm")):
        build(folder / "tiny" / name, list(captions("train", 2000)))
    command = [
        sys.executable, "-m", "c2c_jax.cli.main", "embed", "--config", "configs/mlp.py", "--out", str(store),
        f"--config.source={folder / 'tiny' / 'clip'}", f"--config.target={folder / 'tiny' / 'audioldm'}:text_encoder",
        f"--config.data.captions=txt:{texts}", "--config.embed.batch_tokens=8192",
    ]  # fmt: skip
    tenth = 0.0

    def on_poll(peak: float) -> None:
        nonlocal tenth
        if len(list((store / "target" / "c").glob("*"))) <= -(-count // 4096) / 10:
            tenth = peak

    seconds, peak = run_watched(command, on_poll)
    return {"peak_gib": peak, "peak_gib_at_a_tenth": tenth, "pass_captions": count, "pass_s": seconds}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.embed", __doc__)
    parser.add_argument("--captions", type=Path, required=True, help="real captions: txt, or tsv (first column)")
    parser.add_argument(
        "--checkpoints", type=Path, help="folder with clip/ and audioldm/ (default: random, published sizes)"
    )
    parser.add_argument("--rows", type=int, default=4096, help="captions compared (default: 4096, a chunk)")
    parser.add_argument("--pass-rows", type=int, default=10_000_000, help="captions of the memory pass; 0: none")
    parser.add_argument("--quick", action="store_true", help="512 captions compared, 100,000 in the memory pass")
    flags = parser.parse_args(arguments)
    rows, pass_rows = (512, min(100_000, flags.pass_rows)) if flags.quick else (flags.rows, flags.pass_rows)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    split_cores_into_devices()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    texts = read_captions(flags.captions)[:rows]
    with tempfile.TemporaryDirectory() as scratch:
        folder = flags.checkpoints or Path(scratch) / "published"
        if not flags.checkpoints:
            build_clip(folder / "clip", texts, "published")
            build_audioldm(folder / "audioldm", texts, "published")
        figures = compare(folder, texts)
        device = jax.devices()[0].device_kind
        peaks = [peak for name, peak in PEAKS.items() if name in device]
        figures["matmul_gflop_per_s"] = matmul_peak() / 1e9
        figures["share_of_matmul_peak"] = figures["gflop_per_s"] / figures["matmul_gflop_per_s"]
        if peaks:
            figures["mfu"] = figures["gflop_per_s"] * 1e9 / peaks[0] / jax.local_device_count()
        if pass_rows:
            figures |= pass_memory(pass_rows, Path(scratch))
    report(f"embedding pass, {rows:,} captions, {device}", figures, flags.json)


if __name__ == "__main__":
    main()
