"""Measures retrieval against faiss, CLAP's audio tower against transformers in torch, and the memory of retrieval.

examples:
  python -m bench.evaluate
  python -m bench.evaluate --quick --json evaluate.json
  python -m bench.evaluate --only memory

Retrieval: the 10 nearest of 100,000 vectors to each of 100,000 others, 512 wide, float32, with `nearest.top_k` and
faiss's exact IndexFlatIP. They take turns over parts of the queries, on all cores; the time includes normalisation.
Clips: HTSAT-tiny of laion/clap-htsat-unfused's size with random weights, float32, ten-second clips.
`Space.encode_mels` and ClapAudioModelWithProjection encode the same spectrograms; `Space.encode_audio` and
ClapFeatureExtractor with that model encode the waveforms. Memory: peak resident GiB of processes that rank N × N
candidates by CSLS, including the float16 vectors of both sides; they are stopped after several slabs.
"""

import dataclasses
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.measure import bench_parser, medians, peak_gib, report, timed

DIM, NEAREST, PARTS = 512, 10, 5
RATE = 48_000
PAUSE = 0.3  # seconds between turns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the measurements. vectors: of each side in retrieval. ranked: candidates of the processes whose memory
    is measured. seconds: after which these are stopped. batches, batch, rounds, clip_seconds: of the audio clips.
    tower: fields of ClapAudioConfig."""

    vectors: int = 100_000
    ranked: tuple[int, ...] = (65_536, 250_000, 1_000_000)
    seconds: float = 60
    batches: int = 2
    batch: int = 16
    rounds: int = 7
    clip_seconds: int = 10
    tower: dict[str, Any] = dataclasses.field(default_factory=dict)


FULL = Sizes()
QUICK = Sizes(vectors=20_000, ranked=(65_536, 250_000), seconds=30, batch=8, rounds=3)


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM), np.float32)


def retrieval(count: int) -> dict[str, float]:
    """Seconds of both implementations, and how far their results agree."""
    import faiss

    from c2c_jax.retrieval.nearest import top_k

    query, candidates = vectors(count, 0), vectors(count, 1)
    seconds = {"faiss": 0.0, "ours": 0.0}
    results: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    index = faiss.IndexFlatIP(DIM)

    def build() -> None:
        unit = candidates.copy()
        faiss.normalize_L2(unit)
        index.add(unit)

    def theirs(part: np.ndarray) -> None:
        unit = part.copy()
        faiss.normalize_L2(unit)
        results["faiss"] = index.search(unit, NEAREST)

    def ours(part: np.ndarray) -> None:
        results["ours"] = top_k(part, candidates, NEAREST)

    seconds["faiss"] += timed(build, PAUSE)
    query_parts = np.array_split(query, PARTS)
    ours(query_parts[0])  # compile
    worst, same = 0.0, 0
    for part in query_parts:
        for who, work in (("faiss", theirs), ("ours", ours)):
            seconds[who] += timed(lambda: work(part), PAUSE)  # noqa: B023
        difference = np.abs(results["faiss"][0] - results["ours"][0])
        worst = max(worst, float(difference.max()))
        same += int((results["faiss"][1] == results["ours"][1]).sum())
    return {
        "retrieval_vs_faiss": seconds["faiss"] / seconds["ours"],
        **{f"retrieval_{who}_s": spent for who, spent in seconds.items()},
        **{f"retrieval_{who}_gflop_per_s": 2 * count**2 * DIM / spent / 1e9 for who, spent in seconds.items()},
        "retrieval_worst_difference": worst,
        "retrieval_same_indices": same / (count * NEAREST),
        "retrieval_vectors": count,
        "faiss_threads": faiss.omp_get_max_threads(),
    }


def clips(sizes: Sizes) -> dict[str, float]:
    """Clips per second of both towers, with and without preprocessing, and the difference of their vectors."""
    import torch
    import transformers

    from bench.checkpoints import quiet, randomise
    from c2c_jax.spaces.models.clap_audio import Mels
    from c2c_jax.spaces.space import load_space

    with tempfile.TemporaryDirectory() as folder, quiet():
        model = transformers.ClapAudioModelWithProjection(transformers.ClapAudioConfig(**sizes.tower)).eval()
        randomise(model, (), torch.Generator().manual_seed(0))
        model.save_pretrained(folder)
        extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
        extractor.save_pretrained(folder)
        space = load_space(folder)
    batch, count, samples = sizes.batch, sizes.batches * sizes.batch, sizes.clip_seconds * RATE
    waveforms = [waveform * 0.1 for waveform in np.random.default_rng(0).standard_normal((count, samples), np.float32)]
    recipe = space.require_audio_preprocessor()
    mels = recipe(waveforms)
    mel_BCTM = torch.from_numpy(np.asarray(mels.mel_BCTM))

    @torch.inference_mode()
    def theirs() -> np.ndarray:
        return np.concatenate([model(part).audio_embeds.numpy() for part in mel_BCTM.split(batch)])

    @torch.inference_mode()
    def theirs_with_preprocessing() -> None:
        for start in range(0, count, batch):
            part = extractor(waveforms[start : start + batch], sampling_rate=RATE, return_tensors="pt")
            model(part["input_features"])

    contestants: dict[str, Callable[[], object]] = {
        "torch": theirs,
        "ours": lambda: space.encode_mels(Mels(*map(np.asarray, mels)), batch_size=batch),
        "torch_whole": theirs_with_preprocessing,
        "ours_whole": lambda: space.encode_audio(waveforms, batch_size=batch),
    }
    expected, vectors_BE = theirs(), space.encode_mels(mels, batch_size=batch)
    expected, vectors_BE = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (expected, vectors_BE))
    rates = {who: count / spent for who, spent in medians(contestants, sizes.rounds, PAUSE).items()}
    return {
        "clips_vs_torch": rates["ours"] / rates["torch"],
        "clips_whole_vs_torch": rates["ours_whole"] / rates["torch_whole"],
        **{f"{who}_clips_per_s": rate for who, rate in rates.items()},
        "clips_unit_vector_error": float(np.abs(expected - vectors_BE).max()),
        "clips_peak_gib": peak_gib(),
    }


def rank(connection: Connection, count: int, seconds: float) -> None:
    """Ranks count × count candidates by CSLS for at most `seconds`, and sends the peak GiB."""

    def end() -> None:
        connection.send(peak_gib())
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True  # so that a process that fails ends at once
    timer.start()
    from c2c_jax.retrieval.nearest import paired_ranks

    few = vectors(10_000, 0).astype(np.float16)
    query, candidates = (few[np.arange(shift, count + shift) % len(few)] for shift in (0, 1))
    paired_ranks(query, candidates, csls=10)
    end()


def memory(count: int, seconds: float) -> float:
    """Peak resident GiB of a process that ranks for at most `seconds`. Raises RuntimeError if it fails."""
    context = multiprocessing.get_context("spawn")
    parent, theirs = context.Pipe()
    process = context.Process(target=rank, args=(theirs, count, seconds))
    process.start()
    theirs.close()
    try:
        return parent.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        raise RuntimeError(f"ranking {count:,} candidates ended with exit code {code}: its memory is unknown") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.evaluate", __doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 vectors; fewer rounds; memory of 250,000")
    parser.add_argument("--only", choices=("retrieval", "clips", "memory"), help="one of the parts")
    flags = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from c2c_jax.spaces.devices import split_cores_into_devices

    figures: dict[str, float] = {}
    sizes = QUICK if flags.quick else FULL
    parts = [flags.only] if flags.only else ["memory", "retrieval", "clips"]
    if "memory" in parts:
        for count in sizes.ranked:
            figures[f"csls_peak_gib_n{count}"] = memory(count, sizes.seconds)
    split_cores_into_devices()
    if "retrieval" in parts:
        figures |= retrieval(sizes.vectors)
        figures["retrieval_peak_gib"] = peak_gib()
    if "clips" in parts:
        figures |= clips(sizes)
    report("retrieval and audio encoding", figures, flags.json)


if __name__ == "__main__":
    main()
