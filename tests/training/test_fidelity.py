"""The paper's recipe against a torch transcription of its text: same initial weights, same batches, 50 steps."""

import jax
import numpy as np
import torch
from flax import nnx

from c2c_jax.cli.recipe import read_config
from c2c_jax.spaces.weights.rules import unfill
from c2c_jax.training.build import build_learning_rate, build_objective, build_optimizer, build_spec, initial_translator
from c2c_jax.training.feed import Resident, split
from c2c_jax.training.step import Schedule, data_mesh, init_state, jit_steps, make_step
from c2c_jax.translator.bundle import TABLE
from tests.fixtures.random_store import random_store

STEPS = 50


def test_mlp_recipe_is_the_papers(tmp_path):
    """4 linear layers with tanh between, outputs cut to ±0.2, raw vectors in; logits 1/distance less a margin that
    grows by 0.03 an epoch, not below 0; cross-entropy along rows and columns; AdamW at 1e-3, batch 32."""
    config = read_config("configs/mlp.py", [])
    config.data.holdout = 100
    store = random_store(tmp_path / "store", source_dim=512, target_dim=512)
    _, training = split(store.plan.rows, config.data.holdout, config.seed)
    spec = build_spec(config, store)
    translator = initial_translator(config, spec, None)
    graphdef, params = nnx.split(translator, nnx.Param)
    mesh, optimizer = data_mesh(), build_optimizer(config.optimizer, build_learning_rate(config.optimizer, STEPS))
    objective = build_objective(config, mesh)
    state = init_state(params, objective, optimizer, mesh)
    per_epoch = len(training) // config.batch_size
    schedule = Schedule(per_epoch, (config.objective.margin_growth, config.objective.margin_most), config.seed)
    feed = Resident(store, training, 32, config.seed, mesh)
    train_step = jit_steps(make_step(graphdef, objective, optimizer, mesh, schedule), feed.batch, mesh)

    layers = []
    for number in range(4):
        layers += [torch.nn.Linear(512, 512), torch.nn.Tanh()]
        for name, values in unfill(translator, TABLE).items():
            layer, leaf = name.removeprefix("layers.").split(".")
            if int(layer) == number:
                getattr(layers[-2], leaf).data = torch.from_numpy(values.copy())
    model = torch.nn.Sequential(*layers[:-1])
    theirs = torch.optim.AdamW(model.parameters(), lr=1e-3)
    source, target = store.read("source"), store.read("target")
    state, metrics = train_step(state, feed.table, feed.block(0, STEPS), STEPS)
    for step in range(STEPS):
        rows = feed.rows(step * 32, 32)
        predicted = model(torch.from_numpy(source[rows].astype(np.float32))).clamp(-0.2, 0.2)
        unit = torch.nn.functional.normalize(torch.from_numpy(target[rows].astype(np.float32)))
        # torch's own choice for more than 25 rows, by the product of matrices, is off by 1e-4 here.
        distances = torch.cdist(predicted, unit, compute_mode="donot_use_mm_for_euclid_dist")
        logits = torch.relu(1 / distances - 0.03 * (step // per_epoch))
        own = torch.arange(32)
        loss = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        np.testing.assert_allclose(metrics["loss"][step], loss.item(), atol=1e-4, rtol=0)
    trained = nnx.merge(graphdef, jax.device_get(state.params["model"]))
    for name, ours in unfill(trained, TABLE).items():
        layer, leaf = name.removeprefix("layers.").split(".")
        expected = getattr(layers[2 * int(layer)], leaf).detach().numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)
    assert per_epoch < STEPS / 2, "the margin has grown"
