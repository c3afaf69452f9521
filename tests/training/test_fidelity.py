"""The paper's recipe against a torch transcription of its text: same initial weights, same batches, 50 steps."""

import jax
import numpy as np
import torch
from flax import nnx

from c2c_jax.cli.recipe import read_config
from c2c_jax.spaces.weights.rules import unfill
from c2c_jax.training.check import build_spec
from c2c_jax.training.loader import ResidentLoader, split_rows
from c2c_jax.training.objectives import build_objective
from c2c_jax.training.optimizer import build_learning_rate, build_optimizer
from c2c_jax.training.step import TranslatorLoss, data_mesh, init_state, jit_steps, make_step
from c2c_jax.translator.bundle import weight_table
from c2c_jax.translator.kinds import build_translator
from tests.fixtures.random_store import random_store

STEPS = 50


def test_mlp_recipe_equals_the_paper(tmp_path):
    """4 linear layers with tanh between, outputs cut to ±0.2, raw vectors in; logits 1/distance less a margin that
    grows by 0.03 an epoch, not below 0; cross-entropy along rows and columns; AdamW at 1e-3, batch 32."""
    config = read_config("configs/mlp.py", [])
    config.data.validation_size = 100
    store = random_store(tmp_path / "store", source_dim=512, target_dim=512)
    _, training = split_rows(store.plan.rows, config.data.validation_size, config.seed)
    translator = build_translator(build_spec(config, 512, 512), rngs=nnx.Rngs(config.seed))
    graphdef, params = nnx.split(translator, nnx.Param)
    mesh, learning_rate = data_mesh(), build_learning_rate(config.optimizer, STEPS)
    optimizer = build_optimizer(config.optimizer, learning_rate)
    objective = build_objective(config.objective.kind, config.objective.settings)
    state = init_state(params, objective, optimizer, mesh)
    per_epoch = len(training) // config.batch_size
    loader = ResidentLoader(store, training, 32, STEPS, config.seed, mesh)
    loss_of = TranslatorLoss(graphdef=graphdef, objective=objective, steps_per_epoch=per_epoch, seed=config.seed)
    train_step = jit_steps(make_step(loss_of, optimizer, learning_rate), loader.gather, mesh)

    layers = []
    for number in range(4):
        layers += [torch.nn.Linear(512, 512), torch.nn.Tanh()]
        for name, values in unfill(translator, weight_table(translator)).items():
            layer, leaf = name.removeprefix("layers.").split(".")
            if int(layer) == number:
                getattr(layers[-2], leaf).data = torch.from_numpy(values.copy())
    model = torch.nn.Sequential(*layers[:-1])
    theirs = torch.optim.AdamW(model.parameters(), lr=1e-3)
    source, target = store.read("source"), store.read("target")
    state, metrics = train_step(state, loader.table, loader.batches(0, STEPS), STEPS)
    for step in range(STEPS):
        rows = loader.stream_rows(step * 32, 32)
        predicted = model(torch.from_numpy(source[rows].astype(np.float32))).clamp(-0.2, 0.2)
        unit = torch.nn.functional.normalize(torch.from_numpy(target[rows].astype(np.float32)))
        # torch's default for more than 25 rows, by a product of matrices, is off by 1e-4 here.
        distances = torch.cdist(predicted, unit, compute_mode="donot_use_mm_for_euclid_dist")
        logits = torch.relu(1 / distances - 0.03 * (step // per_epoch))
        own = torch.arange(32)
        loss = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        np.testing.assert_allclose(metrics["loss"][step], loss.item(), atol=1e-4, rtol=0)
    trained = nnx.merge(graphdef, jax.device_get(state.params["model"]))
    for name, ours in unfill(trained, weight_table(trained)).items():
        layer, leaf = name.removeprefix("layers.").split(".")
        expected = getattr(layers[2 * int(layer)], leaf).detach().numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)
    assert per_epoch < STEPS / 2, "the margin has grown"
