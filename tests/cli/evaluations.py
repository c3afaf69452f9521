"""What tests of `c2c evaluate` share: rows of a metrics.json, scores by hand, and spoilt checkpoints."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from c2c_jax.data.store import Store
from c2c_jax.training.feed import split
from c2c_jax.translator.bundle import load_bundle


def rows_of(content, task, method, metric, direction=None):
    return [
        row["value"]
        for row in content["rows"]
        if (row["task"], row["method"], row["metric"], row.get("direction")) == (task, method, metric, direction)
    ]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_hand(run: Path) -> dict[str, float]:
    """MRR of the held-out captions' translations among their targets by each scoring, and the mean cosine."""
    bundle, store = load_bundle(run / "bundle"), Store.open(run / "store")
    rows, _ = split(store.plan.rows, 40, bundle.recipe["seed"])
    source, target = (store.read_rows(side, rows).astype(np.float32) for side in ("source", "target"))
    gap, ridge = bundle.gap, bundle.translator
    inputs = unit(unit(source) - gap.source_text), np.asarray(bundle.memory.source, np.float32)
    out, stored = (unit(np.asarray(ridge(jnp.asarray(x)))) for x in inputs)
    along = out @ gap.target_text  # un-centring: the unit vector m + ρ û
    rho = np.sqrt(along**2 + 1 - np.sum(gap.target_text**2)) - along
    moved, target = gap.target_text + rho[:, None] * out, unit(target)
    candidates = unit(target - target.mean(axis=0))
    hubness = 0.5 * np.sort(candidates @ stored.T, axis=1)[:, -2:].mean(axis=1)

    def mrr(scores):
        return np.mean(1 / np.sum(scores >= np.diagonal(scores)[:, None], axis=1))

    return {
        "mrr": mrr(moved @ target.T),
        "centred_mrr": mrr(out @ candidates.T),
        "nnn_mrr": mrr(out @ candidates.T - hubness),
        "mean_cosine": np.mean(np.sum(moved * target, axis=1)),
    }


def saw(run: Path, folder: Path) -> Path:
    """A file of five captions that the run was trained on."""
    store = Store.open(run / "store")
    _, training = split(store.plan.rows, 40, load_bundle(run / "bundle").recipe["seed"])
    captions = list(store.captions())
    (folder / "saw.txt").write_text("\n".join(captions[row] for row in training[:5]), encoding="utf-8")
    return folder / "saw.txt"


def spoil(folder: Path) -> None:
    """Another text tower: its last bias is moved."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["text_projection.linear2.bias"] = tensors["text_projection.linear2.bias"][::-1] + np.float32(3)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
