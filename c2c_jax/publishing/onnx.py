"""Exports the translator to ONNX through torch, and checks the result in onnxruntime."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from c2c_jax.errors import ExportError
from c2c_jax.torch import Translator

GRAPH_BYTES = 2**31 - 1  # maximum size of an ONNX file
TOLERANCE = 1e-5  # maximum difference from the torch translator, relative to the largest output or to 1


class FromImage(torch.nn.Module):
    """The torch translator's `from_image` as a module for export. If a translator of centred vectors has the mean of
    sounds, it has two outputs: un-centred with the mean of captions, and with that of sounds."""

    def __init__(self, translator: Translator):
        super().__init__()
        self.translator = translator
        is_centred = translator.input_norm == "centred"
        self.outputs = ["target", "target_audio"][: 1 + (is_centred and translator.gap.target_audio is not None)]

    def forward(self, source: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Translates image vectors [B, S] to target vectors [B, E]: one tensor for each name in `outputs`."""
        target = self.translator.from_image(source)
        return target if len(self.outputs) == 1 else (target, self.translator.from_image(source, output_mean="audio"))


def write_onnx(folder: Path) -> list[Path]:
    """Writes `model.onnx` into a bundle's folder: `source` [batch, S] → `target` [batch, E], batch of any size.

    `model_from_image.onnx` computes `from_image` and is written if it differs for images and captions. It has a second
    output, `target_audio`, if the bundle can un-centre with the mean of sounds.
    Returns the files. Raises ExportError if results in onnxruntime differ from the torch translator's, or if a graph is
    too large for one file.
    """
    translator = Translator.from_pretrained(folder)
    graphs: dict[str, torch.nn.Module] = {"model.onnx": translator}
    if (
        translator.input_norm == "centred"
        or translator.gap.corrects
        or (translator.memory is not None and translator.memory.weight)
    ):
        size = sum(x.nbytes for x in translator.state_dict().values())
        if size > GRAPH_BYTES:
            raise ExportError(
                f"with its caption memory the translator has {size:,} bytes, more than the {GRAPH_BYTES:,} of an ONNX "
                f"file: "
                "export it without --onnx, or train one with a smaller config.memory.size"
            )
        graphs["model_from_image.onnx"] = FromImage(translator).eval()
    for file, module in graphs.items():
        outputs = module.outputs if isinstance(module, FromImage) else ["target"]
        _write(folder / file, module, translator.source_dim, outputs)
    return [folder / file for file in graphs]


def _write(path: Path, module: torch.nn.Module, source_dim: int, outputs: list[str]) -> None:
    logger = logging.getLogger(
        "torch.onnx._internal.exporter._registration"
    )  # warns about torchvision, which is not needed
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # torch uses functions that it deprecates
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            program: Any = torch.onnx.export(
                module,
                (torch.zeros(2, source_dim),),
                dynamo=True,
                verbose=False,
                input_names=["source"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    finally:
        logger.setLevel(level)
    for node in program.model.graph.all_nodes():  # torch stores source lines and local paths there
        node.metadata_props.clear()
    program.save(path, external_data=False)
    if (difference := _difference(path, module, source_dim, outputs)) > TOLERANCE:
        raise ExportError(
            f"{path.name} differs from the torch translator by {difference:.2g} in onnxruntime and was deleted"
        )


def _difference(path: Path, module: torch.nn.Module, source_dim: int, outputs: list[str]) -> float:
    """The maximum difference of graph and module over two batches, relative to the largest output or to 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    difference = 0.0
    for rows in (1, 5):
        source = np.random.default_rng(rows).normal(size=(rows, source_dim)).astype(np.float32)
        with torch.no_grad():
            output = module(torch.from_numpy(source))
        expected = [x.numpy() for x in (output if isinstance(output, tuple) else (output,))]
        for actual, reference in zip(session.run(outputs, {"source": source}), expected, strict=True):
            difference = max(difference, float(np.abs(actual - reference).max() / max(1.0, np.abs(reference).max())))
    return difference
