"""The embedding pass on tiny towers: rows against direct encoding, reuse, and going on after a stop."""

from pathlib import Path

import numpy as np
import pytest

from c2c_jax.config import Config, DataConfig, EmbedConfig
from c2c_jax.data.embed import prepare_store
from c2c_jax.errors import StoreError
from c2c_jax.spaces import Space, load_space

ROWS = 50


@pytest.fixture
def config(tmp_path: Path, clip_folder: Path, audioldm_folder: Path, caption_list: list[str]) -> Config:
    (tmp_path / "captions.txt").write_text("\n".join(caption_list[:ROWS]), encoding="utf-8")
    return Config(
        source=str(clip_folder),
        target=f"{audioldm_folder}:text_encoder",
        data=DataConfig(captions=f"txt:{tmp_path / 'captions.txt'}"),
        embed=EmbedConfig(batch_size=8, chunk_rows=16),
    )


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_rows_are_the_captions_vectors(config, tmp_path, caption_list):
    store = prepare_store(config, tmp_path / "store")
    assert (store.plan.rows, store.plan.chunks) == (ROWS, 4)
    for side in ("source", "target"):
        expected = load_space(getattr(config, side)).encode_text(caption_list[:ROWS])
        np.testing.assert_allclose(store.read(side), expected, atol=1e-5, rtol=1e-3)  # float16 keeps 11 bits


def test_stopped_pass_goes_on_and_ends_with_the_same_bytes(config, tmp_path, monkeypatch):
    prepare_store(config, tmp_path / "unbroken")
    whole, calls = Space.encode_text, []

    def stopping(self, texts, **kwargs):
        calls.append(len(texts))
        if len(calls) == 6:  # the target side of the third chunk
            raise KeyboardInterrupt
        return whole(self, texts, **kwargs)

    monkeypatch.setattr(Space, "encode_text", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare_store(config, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "manifest.json").exists()
    calls.clear()
    calls.extend([0] * 6)
    prepare_store(config, tmp_path / "stopped")
    assert calls[6:] == [16, 16, 2, 2]  # the third and the last chunk, both sides; the finished two not again
    assert contents(tmp_path / "stopped") == contents(tmp_path / "unbroken")


def test_finished_store_is_reused_without_towers(config, tmp_path, monkeypatch):
    prepare_store(config, tmp_path / "store")
    monkeypatch.setattr(Space, "encode_text", lambda *args, **kwargs: pytest.fail("encoded again"))
    assert prepare_store(config, tmp_path / "store").plan.rows == ROWS
    config.source = config.target = ""
    assert prepare_store(config, tmp_path / "store").plan.rows == ROWS


def test_edited_captions_and_swapped_spaces_are_refused(config, tmp_path):
    prepare_store(config, tmp_path / "store")
    captions = Path(config.data.captions.removeprefix("txt:"))
    original = captions.read_text()
    captions.write_text(original + "\none more")
    with pytest.raises(StoreError, match="content has changed"):
        prepare_store(config, tmp_path / "store")
    captions.write_text(original)
    config.target = config.source
    with pytest.raises(StoreError, match="was made with target space"):
        prepare_store(config, tmp_path / "store")
