"""The part of a model card that shows how to use its translator, in code that runs as it stands."""

import json
from collections.abc import Sequence

from c2c_jax.publishing.names import hub_name
from c2c_jax.spaces.weights.folders import EMBEDDED_OWNER
from c2c_jax.translator.bundle import Bundle


def usage(bundle: Bundle, name: str, graphs: Sequence[str]) -> list[str]:
    """The section on how to use a bundle. name, graphs: see `card.model_card`."""
    is_embedded = EMBEDDED_OWNER in (bundle.source.name.partition("/")[0], name.partition("/")[0])
    if is_embedded:
        lines = _in_jax(bundle, name)
    elif bundle.source.name.endswith(".npy"):  # a store of somebody's own vectors: no checkpoint to run
        lines = [
            "import numpy as np",
            "import torch",
            "from c2c_jax.torch import Translator",
            "",
            f"vectors = np.load({literal(bundle.source.name)})  # [B, {bundle.spec.source_dim}]",
            "source = torch.from_numpy(vectors).float()",
            f"translator = Translator.from_pretrained({literal(name)})",
            "with torch.no_grad():",
            f"    clap = torch.nn.functional.normalize(translator(source))  # [B, {bundle.spec.target_dim}]",
        ]
    else:
        lines = _in_torch(bundle, name)
    lines = ["```python", *lines, "```", ""]
    if not (hub_name(bundle.source.name) and hub_name(name)):
        lines += ["Names without an owner are folders and files: replace them with the paths of your copies.", ""]
    lines.append(
        "The last line gives a unit vector of the target space: `prompt_embeds` of diffusers' `AudioLDMPipeline`, or a "
        "query by cosine among vectors of sounds."
    )
    if not is_embedded:
        lines[-1] += (
            " For captions' vectors, use `translator(vectors)`. No JAX is needed; `c2c_jax/torch/translator.py` "
            "also works when it is copied alone."
        )
    if graphs:
        lines.append(
            f"{' and '.join(f'`{graph}`' for graph in graphs)}, for ONNX runtimes: `source` [batch, "
            f"{bundle.spec.source_dim}] → `target` [batch, {bundle.spec.target_dim}]"
            + (", the second for pictures' vectors" if len(graphs) > 1 else "")
            + (
                "; its output `target_audio` is un-centred by the mean of sounds."
                if len(graphs) > 1 and bundle.spec.input_norm == "centred" and bundle.gap.target_audio is not None
                else "."
            )
        )
    return lines


def _in_torch(bundle: Bundle, name: str) -> list[str]:
    """Code with transformers' CLIP and the torch translator."""
    base, colon, subfolder = bundle.source.name.partition(":")
    source = literal(base) + (f", subfolder={literal(subfolder)}" if colon else "")
    return [
        "import torch",
        "from PIL import Image",
        "from transformers import AutoImageProcessor, CLIPVisionModelWithProjection",
        "from c2c_jax.torch import Translator",
        "",
        f"processor = AutoImageProcessor.from_pretrained({source})",
        f"translator = Translator.from_pretrained({literal(name)})",
        "with torch.no_grad():",
        '    pixels = processor(Image.open("photo.png").convert("RGB"), return_tensors="pt").pixel_values',
        f"    image = CLIPVisionModelWithProjection.from_pretrained({source})(pixels).image_embeds",
        f"    clap = torch.nn.functional.normalize(translator.from_image(image))  # [1, {bundle.spec.target_dim}]",
    ]


def _in_jax(bundle: Bundle, name: str) -> list[str]:
    """Code with c2c_jax, for the checkpoints that come with it, which nothing else can load."""
    return [
        "from pathlib import Path",
        "from c2c_jax.io.images import read_image",
        "from c2c_jax.translator.inference import translate",
        "from c2c_jax.spaces.space import load_space",
        "from c2c_jax.translator.resolve import bundle_folder",
        "from c2c_jax.translator.bundle import load_bundle",
        "",
        f"translator = load_bundle(bundle_folder(Path({literal(name)})))",
        f'clip = load_space({literal(bundle.source.name)}, only="image")',
        f'clap = translate(translator, clip.encode_image([read_image(Path("photo.png"))]))  '
        f"# [1, {bundle.spec.target_dim}]",
    ]


def literal(text: str) -> str:
    """A Python string literal of the text, in UTF-8. Characters that are invisible, or change the direction of others,
    are escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in quoted)
