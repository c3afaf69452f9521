# %% [markdown]
# # Images to sounds with c2c_jax
#
# CLIP embeds images and texts, CLAP embeds sounds and texts. A *translator* maps CLIP vectors to CLAP vectors. It is
# trained on captions alone, since a caption has a vector in both spaces. The translated vector of an image then either
# prompts AudioLDM, which generates a sound, or finds the nearest sounds in a library.
#
# This notebook runs in the **mini world**, which comes with the package: drawings, synthetic sounds and captions of 24
# sources of sound, and a small CLIP, CLAP and AudioLDM that were trained on them. Nothing is downloaded. With your own
# images, replace the four `miniworld/…` names with published checkpoints; the last section shows how.

# %% tags=["install"]
# %pip install -q "c2c_jax[torch]"

# %%
import tempfile
from pathlib import Path

import torch
from IPython.display import display

import c2c_jax
from c2c_jax.miniworld.captions import captions
from c2c_jax.miniworld.pairs import caption_at, image_at
from c2c_jax.miniworld.show import export
from c2c_jax.torch import Translator

# %% [markdown]
# ## A sound for an image
#
# `image_at` draws a scene of the mini world. You can also pass a file path, a PIL image or an array.

# %%
image = image_at("test", 3)
print(caption_at("test", 3, "picture", 0))
display(image.resize((256, 256)))

# %%
pipe = c2c_jax.pipeline("miniworld/translator", generator="miniworld/audioldm")
pipe

# %% [markdown]
# The same image and seed give the same sound. `clap_score` is the cosine between the sound and the vector that it was
# generated from. A longer sound or more steps take longer.

# %%
audio = pipe(image, seconds=2.5, steps=10, seed=0)
print(audio)
display(audio.spectrogram("mel spectrogram"))
audio

# %% [markdown]
# `audio.save("dog.wav")` writes a file. `pipe(image, prompt="heavy rain", mix=0.3, candidates=4)` mixes in a text,
# generates four candidates and returns the best one.

# %% [markdown]
# ## The nearest sounds of a library
#
# A library is a folder of sounds. They are encoded once, and their vectors are stored in an index inside the folder.

# %%
folder = Path(tempfile.mkdtemp()) / "world"
export(folder, "test", 96, 0, "picture")  # images, sounds, and a CSV file of their pairs
library = c2c_jax.SoundLibrary(folder / "sounds", clap="miniworld/clap")
library

# %%
for score, path in library.search(image, translator=pipe.translator, k=3):
    print(f"{score:.3f}  {path.name}  {caption_at('test', int(path.stem), 'sound', 0)}")

# %%
for score, path in library.search(text="a car revs twice", k=3):
    print(f"{score:.3f}  {path.name}  {caption_at('test', int(path.stem), 'sound', 0)}")

# %% [markdown]
# ## Training a translator
#
# `fit` takes two arrays of vectors, whose rows belong to the same captions. Vectors of unlabelled images help it to
# select the best of several candidates. Here it takes a few seconds; with millions of captions it takes minutes.

# %%
texts = list(captions("train", 2000))
print(texts[0])
clip, clap = c2c_jax.load_space("miniworld/clip"), c2c_jax.load_space("miniworld/clap")
translator = c2c_jax.fit(
    clip.encode_text(texts),
    clap.encode_text(texts),
    images=clip.encode_images([image_at("train", index) for index in range(200)]),
    spaces=(clip, clap),
    steps=200,
    progress=False,
)
translator

# %%
translator.metrics

# %% [markdown]
# `translator.save("my-translator")` writes a folder that `c2c_jax.load`, the command `c2c` and PyTorch read;
# `translator.push_to_hub("ME/NAME")` uploads it.

# %% [markdown]
# ## How good is it?
#
# The pairs of images and sounds that were exported above were not used in training. An image counts as right if the
# sound nearest to it has the same source.

# %%
evaluation = c2c_jax.evaluate(translator, pairs=folder / "manifest.csv", bootstrap=200)
scores = evaluation.metrics["images_to_sounds"]
for method in ("translator", "chance"):
    print(f"{method:12} right source {scores[method]['neighbour_accuracy']:.2f}")

# %%
evaluation

# %% [markdown]
# ## In PyTorch
#
# `c2c_jax.torch` needs no JAX.

# %%
module = Translator.from_pretrained("miniworld/translator")
with torch.inference_mode():
    clap_vectors = module.from_image(torch.from_numpy(clip.encode_images([image])))
clap_vectors.shape

# %% [markdown]
# ## With your own images
#
# 1. Choose a CLIP, such as `openai/clip-vit-base-patch32`, and the CLAP that your generator was trained with, such as
#    `cvssp/audioldm-s-full-v2:text_encoder`. Both are downloaded at first use.
# 2. Embed about 100,000 captions with both, and `fit` a translator, with a few hundred of your photographs as `images`.
#    `c2c train --recipe recommended --data txt:captions.txt --source CLIP --target CLAP` does both, and can resume.
# 3. `c2c_jax.pipeline(translator, generator="cvssp/audioldm-s-full-v2")` turns photographs into sounds.
