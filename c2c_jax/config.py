"""Every setting of a run, with its unit and its default. A recipe in `configs/` fills these and nothing else does."""

import dataclasses


@dataclasses.dataclass(kw_only=True, slots=True)
class DataConfig:
    captions: str = "tfds:conceptual_captions:train"  # a source, or several with " + " between; README lists the kinds
    drop_duplicates: bool = True  # whether a caption equal to an earlier one is left out
    data_dir: str = ""  # folder of prepared TFDS sets; "": TFDS's own default, ~/tensorflow_datasets
    manual_dir: str = ""  # folder that holds Google's TSV files; "": DATA_DIR/downloads/manual
    store: str = ""  # folder of the embedding store; "": WORKDIR/store
    holdout: int = 1000  # captions kept out of training, drawn by the seed; validation retrieves among all of them


@dataclasses.dataclass(kw_only=True, slots=True)
class EmbedConfig:
    dtype: str = "float32"  # arithmetic of the towers: "float32" or "bfloat16"
    store_dtype: str = "float16"  # of the stored vectors: "float16" or "float32"
    batch_tokens: int = 0  # tokens a device sees at once; 0: 1,024 on a CPU, 16,384 elsewhere
    chunk_rows: int = 4096  # rows of a store chunk: packed into batches together; the unit of writing and resuming


@dataclasses.dataclass(kw_only=True, slots=True)
class TranslatorConfig:
    kind: str = "mlp"  # a kind of models/translator.py
    width: int = 512  # units of the hidden layers
    depth: int = 4  # linear layers
    clamp: float = 0.0  # output coordinates are cut to ±clamp; 0: no cut
    input_norm: str = "unit"  # "none": raw vectors; "unit": L2-normalised, times √dim for unit variance


@dataclasses.dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    kind: str = "infonce"  # an objective of training/objectives.py
    temperature: float = 0.07  # start of the learned temperature (infonce)


@dataclasses.dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    learning_rate: float = 1e-3  # AdamW's step size
    weight_decay: float = 0.01  # AdamW's decoupled decay, torch's default
    eps: float = 1e-8  # AdamW's floor under the root of the second moment


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
    source: str = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"  # space of the pictures: hub name or folder
    target: str = "cvssp/audioldm-l-full:text_encoder"  # space of the sounds: the CLAP that conditions the generator
    seed: int = 420  # of the held-out rows, initial weights and the order of rows
    batch_size: int = 1024  # rows a step, over all devices; every other row of the batch is a negative
    epochs: int = 20  # passes over the training rows
    log_every: int = 50  # steps between lines of metrics.jsonl
    eval_every: int = 500  # steps between validations and bundles
    checkpoint_every: int = 500  # steps between resumable checkpoints
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    embed: EmbedConfig = dataclasses.field(default_factory=EmbedConfig)
    translator: TranslatorConfig = dataclasses.field(default_factory=TranslatorConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
