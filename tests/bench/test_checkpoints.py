"""Random checkpoints: Hugging Face's classes read them, and they distinguish captions."""

import itertools
import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from bench import checkpoints
from tests.fixtures.captions import captions

ROOT = Path(__file__).parents[2]
CAPTIONS = captions(400)
ODD_CAPTIONS = [
    "",
    "A dog, barking LOUDLY at the mailman's car!",
    "a dog 🐕‍🦺 and a 🎻",
    "كلب ينبح في الحديقة",
    "一只狗在公园里叫",
    "word " * 600,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints.build_clip(folder / "clip", CAPTIONS)
    checkpoints.build_audioldm(folder / "audioldm", CAPTIONS)
    return folder


def mean_cosine(vectors_BE: torch.Tensor) -> float:
    units_BE = torch.nn.functional.normalize(vectors_BE, dim=-1)
    cosines_BB = (units_BE @ units_BE.T).numpy()
    return float(cosines_BB[~np.eye(len(cosines_BB), dtype=bool)].mean())


@torch.no_grad()
def test_clip_distinguishes_captions_and_fits_its_tokenizer(folder: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(folder / "clip")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "clip")
    text = model.config.text_config
    assert isinstance(tokenizer, transformers.CLIPTokenizer)
    assert (text.bos_token_id, text.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id) == (998, 999)
    assert text.pad_token_id == tokenizer.pad_token_id
    ids = tokenizer(ODD_CAPTIONS, truncation=True)["input_ids"]
    assert max(itertools.chain(*ids)) < text.vocab_size
    assert ids[0] == [998, 999]
    assert len(ids[-1]) == 77
    assert all(row.count(999) == 1 for row in ids)  # the end-of-text token is also the unknown token
    assert tokenizer.decode(ids[2], skip_special_tokens=True).replace(" ", "") == ODD_CAPTIONS[2].replace(" ", "")
    features = model.get_text_features(**tokenizer(CAPTIONS[:50], padding=True, return_tensors="pt"))
    assert features.pooler_output.shape == (50, 64)
    assert 0.05 < mean_cosine(features.pooler_output) < 0.9


@torch.no_grad()
def test_clip_distinguishes_pictures(folder: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(folder / "clip")
    processor = transformers.AutoImageProcessor.from_pretrained(folder / "clip")
    pixels = processor([Image.open(ROOT / "examples/dog.png"), Image.new("RGB", (40, 90), "red")], return_tensors="pt")
    assert pixels["pixel_values"].shape == (2, 3, 32, 32)
    assert pixels["pixel_values"][1, 0].mean() == pytest.approx((1 - 0.48145466) / 0.26862954)
    features = model.get_image_features(**pixels).pooler_output
    assert features.shape == (2, 64)
    assert mean_cosine(features) < 0.9


@torch.no_grad()
def test_clap_distinguishes_captions_and_fits_its_tokenizer(folder: Path) -> None:
    model = transformers.ClapTextModelWithProjection.from_pretrained(folder / "audioldm" / "text_encoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "audioldm" / "tokenizer")
    assert isinstance(tokenizer, transformers.RobertaTokenizer)
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]) == [0, 1, 2, 3, 799]
    assert (model.config.bos_token_id, model.config.pad_token_id, model.config.eos_token_id) == (0, 1, 2)
    ids = tokenizer(ODD_CAPTIONS, truncation=True)["input_ids"]
    assert max(itertools.chain(*ids)) < model.config.vocab_size
    assert 3 not in itertools.chain(*ids)
    assert ids[0] == [0, 2]
    assert len(ids[-1]) == 512
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in ids[:-1]] == ODD_CAPTIONS[:-1]
    features = model(**tokenizer(CAPTIONS[:50], padding=True, return_tensors="pt")).text_embeds
    assert features.shape == (50, 64)
    assert 0.05 < mean_cosine(features) < 0.9


def test_audioldms_sound_depends_on_its_prompt(folder: Path) -> None:
    pipeline = diffusers.AudioLDMPipeline.from_pretrained(folder / "audioldm")
    pipeline.set_progress_bar_config(disable=True)
    prompts = torch.nn.functional.normalize(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    generators = [torch.Generator().manual_seed(0) for _ in prompts]
    audio = pipeline(
        prompt_embeds=prompts,
        negative_prompt_embeds=-prompts,
        num_inference_steps=2,
        audio_length_in_s=1.0,
        generator=generators,
    ).audios
    assert audio.shape == (2, 16000)
    assert np.isfinite(audio).all()
    assert (audio.std(axis=1) > 0.01).all()
    assert (abs(audio.mean(axis=1)) < 0.1).all()
    assert np.corrcoef(audio)[0, 1] < 0.99


def test_every_tensor_is_random(folder: Path) -> None:
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == 5
    for file in files:
        for name, tensor in load_file(file).items():
            if not tensor.is_floating_point():  # position_ids and token_type_ids
                continue
            assert tensor.numel() == 1 or tensor.unique().numel() > 1, name
            assert tensor.isfinite().all() and 0 < tensor.abs().max() < 20, name


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    checkpoints.build_clip(tmp_path / "clip", CAPTIONS)
    checkpoints.build_audioldm(tmp_path / "audioldm", CAPTIONS)
    checkpoints.build_clip(tmp_path / "other" / "clip", CAPTIONS, seed=1)
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".safetensors", ".json")]
    assert len(names) == 17  # 5 of weights, 8 of configs, 4 of tokenizers
    assert [(tmp_path / name).read_bytes() for name in names] == [(folder / name).read_bytes() for name in names]
    weights = Path("clip", "model.safetensors")
    assert (tmp_path / "other" / weights).read_bytes() != (folder / weights).read_bytes()


def test_published_tokenizers_have_the_published_ids() -> None:
    clip = checkpoints.clip_tokenizer(CAPTIONS, checkpoints.CLIP_TEXT["published"]["vocab_size"])
    roberta = checkpoints.roberta_tokenizer(CAPTIONS, checkpoints.CLAP_TEXT["published"]["vocab_size"])
    assert (clip.bos_token_id, clip.eos_token_id, len(clip)) == (49406, 49407, 49408)
    assert (roberta.bos_token_id, roberta.pad_token_id, roberta.eos_token_id) == (0, 1, 2)
    assert (roberta.unk_token_id, roberta.mask_token_id, len(roberta)) == (3, 50264, 50265)


def test_command_line_writes_both_and_names_a_missing_caption_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.tsv").write_text("\n".join(f"{caption}\thttp://x" for caption in CAPTIONS))
    checkpoints.main(["--captions", str(tmp_path / "captions.tsv"), "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out/audioldm/model_index.json").read_text())["_class_name"] == "AudioLDMPipeline"
    vocab = json.loads((tmp_path / "out/clip/tokenizer.json").read_text())["model"]["vocab"]
    assert not any("http" in token for token in vocab)
    with pytest.raises(SystemExit) as stop:
        checkpoints.main(["--captions", str(tmp_path / "none.txt"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "none.txt" in capsys.readouterr().err
