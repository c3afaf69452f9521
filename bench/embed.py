"""The embedding pass against transformers in torch, on real captions and towers of published size, side by side.

examples:
  python -m bench.embed --captions Validation_GCC-1.1.0-Validation.tsv
  python -m bench.embed --captions captions.txt --checkpoints real/checkpoints --quick --json embed.json

Three do the same work, slice by slice in turn: torch with its defaults (batch 64, padded to 77 tokens), torch with our
length buckets and batch sizes, and our towers. Then bfloat16 against float32, and the peak memory of a pass of
10 million synthetic captions through tiny towers. Weights are random unless --checkpoints names real ones.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table

from bench.checkpoints import build_audioldm, build_clip, read_captions
from bench.demo_captions import captions as demo_captions
from c2c_jax.data.embed import AHEAD, CPU_TOKENS, DEVICE_TOKENS
from c2c_jax.spaces import Space, TextBatch, load_space, tower_options

TORCH = {"clip": transformers.CLIPTextModelWithProjection, "clap": transformers.ClapTextModelWithProjection}
PEAKS = {  # dense bfloat16 FLOP/s of a device, from the makers' data sheets
    "H100": 989e12, "H200": 989e12, "A100": 312e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}  # fmt: skip
PAUSE = 0.3  # seconds between contestants: torch's threads spin for a while after their last work


def ours(space: Space, batches: Sequence[TextBatch]) -> np.ndarray:
    """As in the embedding pass: some batches in flight while an earlier one is collected."""
    vectors = np.empty((sum(len(batch.rows) for batch in batches), space.dim), np.float32)
    started = []
    for batch in batches:
        started.append((batch, space.run_text(batch)))
        if len(started) > AHEAD:
            _take(vectors, *started.pop(0))
    for batch, array in started:
        _take(vectors, batch, array)
    return vectors


def _take(vectors: np.ndarray, batch: TextBatch, array: jax.Array) -> None:
    vectors[batch.rows] = np.asarray(array)[: len(batch.rows)]


@torch.inference_mode()
def torch_bucketed(model: torch.nn.Module, batches: Sequence[TextBatch], pad: int, dim: int) -> np.ndarray:
    vectors = np.empty((sum(len(batch.rows) for batch in batches), dim), np.float32)
    for batch in batches:
        ids = torch.from_numpy(batch.ids_BL).long()
        mask = _mask(batch.ids_BL, pad)
        out = model(input_ids=ids, attention_mask=mask).text_embeds
        vectors[batch.rows] = out.numpy()[: len(batch.rows)]
    return vectors


def _mask(ids_BL: np.ndarray, pad: int) -> torch.Tensor:
    """Where tokens are; CLIP's padding is its end-of-text token, of which the first one counts."""
    is_pad = ids_BL == pad
    before = np.cumsum(is_pad, axis=1) - is_pad
    return torch.from_numpy((~is_pad | (before == 0) & (pad == ids_BL.max())).astype(np.int64))


@torch.inference_mode()
def torch_padded(model: torch.nn.Module, tokenizer: transformers.PreTrainedTokenizerBase, texts: list[str]) -> None:
    for start in range(0, len(texts), 64):
        batch = texts[start : start + 64]
        model(**tokenizer(batch, padding="max_length", truncation=True, max_length=77, return_tensors="pt"))


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What `work` gives, and the seconds it took."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - start


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def matmul_peak() -> float:
    """The most FLOP/s that XLA's float32 products of matrices reach on this device, over shapes like the towers'."""
    best = 0.0
    for m, k, n in ((1024, 768, 3072), (1024, 3072, 768), (2048, 2048, 2048), (4096, 1024, 1024)):
        a, b = jnp.ones((m, k)), jnp.ones((k, n))
        product = jax.jit(jnp.matmul, compiler_options=tower_options())
        product(a, b).block_until_ready()
        for _ in range(10):
            start = time.perf_counter()
            product(a, b).block_until_ready()
            best = max(best, 2 * m * k * n / (time.perf_counter() - start))
    return best


def compare(folder: Path, texts: list[str], slice_rows: int) -> dict[str, float]:
    """Captions per second of the three contestants, both towers together; our FLOPs; how close the vectors are."""
    names = {"clip": str(folder / "clip"), "clap": f"{folder / 'audioldm'}:text_encoder"}
    folders = {"clip": folder / "clip", "clap": folder / "audioldm" / "text_encoder"}
    tokens = CPU_TOKENS if jax.default_backend() == "cpu" else DEVICE_TOKENS
    spent = dict.fromkeys(("ours", "torch_bucketed", "torch_padded"), 0.0)
    flops, error, worst, total = 0.0, 0.0, 1.0, 0.0
    for tower, name in names.items():
        space, model = load_space(name), TORCH[tower].from_pretrained(folders[tower]).eval()
        rounded = space.computing_in("bfloat16")
        pad = space.tokenizer.pad_token_id
        slices = [texts[start : start + slice_rows] for start in range(0, len(texts), slice_rows)]
        batched = [space.text_batches(part, tokens, most_rows=slice_rows) for part in slices]
        shapes = {batch.ids_BL.shape: batch for part in batched for batch in part}
        cost = {shape: space.text_flops(batch) for shape, batch in shapes.items()}
        for batch in shapes.values():  # compile, and let torch warm up
            ours(space, [TextBatch(np.arange(len(batch.ids_BL)), batch.ids_BL)])
        torch_padded(model, space.tokenizer, texts[:8])
        for part, batches in zip(slices, batched, strict=True):
            vectors, time_spent = timed(ours, space, batches)
            spent["ours"] += time_spent
            theirs, time_spent = timed(torch_bucketed, model, batches, pad, space.dim)
            spent["torch_bucketed"] += time_spent
            spent["torch_padded"] += timed(torch_padded, model, space.tokenizer, part)[1]
            flops += sum(cost[batch.ids_BL.shape] for batch in batches)
            exact, half = unit(vectors), unit(ours(rounded, batches))
            error = max(error, float(np.abs(exact - unit(theirs)).max()))
            cosines = (exact * half).sum(1)
            worst, total = min(worst, float(cosines.min())), total + float(cosines.sum())
    rates = {f"{who}_captions_per_s": len(texts) / time_spent for who, time_spent in spent.items()}
    return {
        **rates,
        "captions_vs_torch_padded": spent["torch_padded"] / spent["ours"],
        "captions_vs_torch_bucketed": spent["torch_bucketed"] / spent["ours"],
        "gflop_per_caption": flops / len(texts) / 1e9,
        "gflop_per_s": flops / spent["ours"] / 1e9,
        "unit_vector_error_vs_torch": error,
        "bfloat16_worst_cosine": worst,
        "bfloat16_mean_cosine": total / (2 * len(texts)),
    }


def synthetic(count: int) -> Iterator[str]:
    """`count` distinct captions of three words."""
    words = sorted({word for caption in demo_captions(2000) for word in caption.split()})
    for number in range(count):
        number, first = divmod(number, len(words))
        number, second = divmod(number, len(words))
        yield f"{words[first]} {words[second]} {words[number % len(words)]}"


def pass_memory(count: int, folder: Path) -> dict[str, float]:
    """Peak resident memory of a process that embeds `count` synthetic captions, and of its first tenth."""
    captions, store = folder / "captions.txt", folder / "store"
    with open(captions, "w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in synthetic(count))
    for build, name in ((build_clip, "clip"), (build_audioldm, "audioldm")):
        build(folder / "tiny" / name, demo_captions(2000))
    command = [
        sys.executable, "-m", "c2c_jax.cli.main", "embed", "--config", "configs/mlp.py", "--out", str(store),
        f"--config.source={folder / 'tiny' / 'clip'}", f"--config.target={folder / 'tiny' / 'audioldm'}:text_encoder",
        f"--config.data.captions=txt:{captions}", "--config.embed.batch_tokens=8192",
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = tenth = 0.0
    chunks = -(-count // 4096)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        high = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        peak = max([peak, *(kib / 2**20 for kib in high)])
        if len(list((store / "target" / "c").glob("*"))) <= chunks / 10:
            tenth = peak
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"the embedding pass ended with {process.returncode}")
    elapsed = time.perf_counter() - start
    return {"peak_gib": peak, "peak_gib_at_a_tenth": tenth, "pass_captions": count, "pass_s": elapsed}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.embed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=Path, required=True, help="real captions: txt, or tsv (first column)")
    parser.add_argument(
        "--checkpoints", type=Path, help="folder with clip/ and audioldm/ (default: random, published sizes)"
    )
    parser.add_argument("--rows", type=int, default=2048, help="captions compared (default: 2048)")
    parser.add_argument("--pass-rows", type=int, default=10_000_000, help="captions of the memory pass; 0: none")
    parser.add_argument("--quick", action="store_true", help="256 captions compared, 100,000 in the memory pass")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat object")
    flags = parser.parse_args(arguments)
    rows, pass_rows = (256, min(100_000, flags.pass_rows)) if flags.quick else (flags.rows, flags.pass_rows)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    texts = read_captions(flags.captions)[:rows]
    with tempfile.TemporaryDirectory() as scratch:
        folder = flags.checkpoints or Path(scratch) / "published"
        if not flags.checkpoints:
            build_clip(folder / "clip", texts, "published")
            build_audioldm(folder / "audioldm", texts, "published")
        figures = compare(folder, texts, slice_rows=min(1024, rows))
        device = jax.devices()[0].device_kind
        known = [peak for name, peak in PEAKS.items() if name in device]
        figures["matmul_gflop_per_s"] = matmul_peak() / 1e9
        figures["share_of_matmul_peak"] = figures["gflop_per_s"] / figures["matmul_gflop_per_s"]
        if known:
            figures["mfu"] = figures["gflop_per_s"] * 1e9 / known[0] / jax.local_device_count()
        if pass_rows:
            figures |= pass_memory(pass_rows, Path(scratch))
    table = Table("figure", "value", title=f"embedding pass, {rows:,} captions, {device}")
    for name, value in figures.items():
        table.add_row(
            name, f"{value:,.6f}" if "cosine" in name else f"{value:.2e}" if "error" in name else f"{value:,.2f}"
        )
    Console().print(table)
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
