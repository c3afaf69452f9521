"""Every setting of a run, with its unit and its default. A recipe in `configs/` fills these and nothing else does."""

import dataclasses

from c2c_jax.errors import ConfigError


@dataclasses.dataclass(kw_only=True, slots=True)
class DataConfig:
    captions: str = "miniworld:50000"  # a source, or several with " + " between; README lists the kinds
    drop_duplicates: bool = True  # whether a caption equal to an earlier one is left out
    data_dir: str = ""  # folder of prepared TFDS sets; "": TFDS's own default, ~/tensorflow_datasets
    manual_dir: str = ""  # folder that holds Google's TSV files; "": DATA_DIR/downloads/manual
    store: str = ""  # folder of the embedding store; "": WORKDIR/store
    holdout: int = 1000  # captions kept out of training, drawn by the seed; validation retrieves among all of them
    feed: str = "auto"  # "resident": the store lies on the devices; "streamed": read through grain; "auto": as fits


@dataclasses.dataclass(kw_only=True, slots=True)
class EmbedConfig:
    dtype: str = "float32"  # arithmetic of the towers: "float32" or "bfloat16"
    store_dtype: str = "float16"  # of the stored vectors: "float16" or "float32"
    batch_tokens: int = 0  # tokens a device sees at once; 0: 1,024 on a CPU, 16,384 elsewhere
    chunk_rows: int = 4096  # rows of a store chunk: packed into batches together; the unit of writing and resuming


@dataclasses.dataclass(kw_only=True, slots=True)
class TranslatorConfig:
    kind: str = "mlp"  # a kind of models/translator.py; README lists them
    width: int = 512  # units of the hidden layers; of a token's state in the transformer
    depth: int = 0  # linear layers, or the transformer's layers; 0: as many as the kind's name or the paper says
    heads: int = 8  # attention heads of the transformer
    mlp_width: int = 96  # hidden units of the transformer's feed-forward layers
    dropout: float = 0.0  # share of the transformer's states left out in training
    clamp: float = 0.0  # output coordinates are cut to ±clamp; 0: no cut
    input_norm: str = "centred"  # "none": raw vectors; "unit": L2-normalised; "centred": L2-normalised and centred
    start: str = "identity"  # of the residual's linear layer: "identity" or "procrustes"
    ridge: float = 1e-3  # of the ridge kind: weight of the squared coefficients, of the inputs' mean square


@dataclasses.dataclass(kw_only=True, slots=True)
class AugmentConfig:
    noise: float = 1.0  # noise in training, given as the cosine that it leaves to the clean source vector; 1: no noise


@dataclasses.dataclass(kw_only=True, slots=True)
class MemoryConfig:
    captions: int = 0  # training captions that the bundle remembers, drawn by the seed; 0: none, -1: all
    share: float = 0.5  # weight of the nearest captions in a picture's new vector, above 0 and at most 1
    temperature: float = 0.01  # of the softmax over cosines to the captions


@dataclasses.dataclass(kw_only=True, slots=True)
class PicturesConfig:
    files: str = ""  # unlabelled: a folder, file, pattern, .npy file of raw vectors, or miniworld:COUNT; "": none
    calibrate: bool = True  # whether the bundle stores their mean and centres pictures with it


@dataclasses.dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    kind: str = "infonce"  # an objective of training/objectives.py, or a weighted sum such as "infonce + 0.5*l2"
    temperature: float = 0.07  # start of the learned temperature (infonce)
    margin_growth: float = 0.0  # what an epoch adds to the margin (inverse_euclidean), from 0; the paper: 0.03
    margin_most: float = 1.0  # where the margin stops growing
    twin_cosine: float = 1.0  # captions whose targets' cosine is above it are no negatives of each other; 1: all are
    blocks: int = 0  # parts that a device's (a group's) logits are computed in; 0: of 1,024 rows on a CPU, else 8,192
    recompute: bool = False  # whether logits are computed again for gradients, not kept; beyond 1 GiB they always are


@dataclasses.dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    learning_rate: float = 1e-3  # AdamW's step size, after warm-up and before decay
    warmup: int = 0  # steps in which the learning rate grows from 0
    decay: str = "constant"  # of the learning rate after warm-up: "constant", or "cosine" or "linear" to 0 at the end
    clip_norm: float = 0.0  # gradients of a greater norm are brought down to it; 0: none are
    ema: float = 0.0  # decay of a moving average of the weights, which is then validated and published; 0: none
    weight_decay: float = 0.01  # AdamW's decoupled decay, torch's default
    eps: float = 1e-8  # AdamW's floor under the root of the second moment


@dataclasses.dataclass(kw_only=True, slots=True)
class LogConfig:
    tensorboard: bool = False  # whether metrics go to WORKDIR/tensorboard as well
    wandb: str = ""  # Weights & Biases project that metrics go to as well; "": none


REMOVED_FIELDS = ("augment.noise_most", "min_steps")  # of earlier versions; saved configs may have them


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
    source: str = "miniworld/clip"  # space of the pictures: hub name, folder, or one that comes along
    target: str = "miniworld/clap"  # space of the sounds: the CLAP that conditions the generator
    seed: int = 420  # of the held-out rows, initial weights, the order of rows and those that are remembered
    batch_size: int = 1024  # rows a step, over all devices; every other row of the batch is a negative
    groups: int = 0  # 2, 4, 8, ...: parts of a batch, added in one order on up to groups / 2 devices; 0: as is fastest
    epochs: int = 20  # passes over the training rows
    steps: int = 0  # number of steps, instead of `epochs`; 0: as many as `epochs` take
    log_every: int = 50  # steps between lines of metrics.jsonl
    precision: str = "float32"  # of products on accelerators: "float32", "tensorfloat32", "bfloat16"; CPUs: float32
    eval_every: int = 500  # steps between validations
    checkpoint_every: int = 500  # steps between resumable checkpoints
    # Validation score that selects the bundle: "noisy_mrr" (favours the exact item), "noisy_cosine" (favours items of
    # the right class), or a score of unperturbed held-out captions, such as "recall@10"; see docs/training.md.
    select_by: str = "noisy_mrr"
    # Whether closed-form maps, blends with them, and going without the caption memory compete with the trained
    # translator. If so, at most a tenth of the captions is held out, and the batch size is limited by the number of
    # captions.
    adapt: bool = False
    patience: int = 0  # validations without an improvement after which the run ends; 0: it does not end early
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    embed: EmbedConfig = dataclasses.field(default_factory=EmbedConfig)
    translator: TranslatorConfig = dataclasses.field(default_factory=TranslatorConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    memory: MemoryConfig = dataclasses.field(default_factory=MemoryConfig)
    pictures: PicturesConfig = dataclasses.field(default_factory=PicturesConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)


# Checkpoints and captions by the name that follows a recipe's: `--config configs/mlp.py:gcc`.
_PAPER = {"source": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "target": "cvssp/audioldm-l-full:text_encoder"}
WORLDS: dict[str, dict[str, str]] = {
    "miniworld": {},
    "gcc": {**_PAPER, "captions": "tfds:conceptual_captions:train"},
    "coco": {**_PAPER, "captions": "tfds:coco_captions:train:captions/text"},
}


def trained_on(world: str, config: Config) -> Config:
    """A recipe with the checkpoints and captions of one of WORLDS. Raises ConfigError for another name."""
    if world not in WORLDS:
        raise ConfigError(f"no world {world!r} behind the recipe's name; there are {', '.join(WORLDS)}")
    places = WORLDS[world]
    return dataclasses.replace(
        config,
        source=places.get("source", config.source),
        target=places.get("target", config.target),
        data=dataclasses.replace(config.data, captions=places.get("captions", config.data.captions)),
    )
